"""The contract of a loss plug-in: how far a student's features are from its teacher's.

Shape legend: B images, C channels, h x w patch grid.
"""

from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """A loss plug-in: a module of this folder with a function `loss` and a `VERSION`."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return a scalar `()`, at least zero, and zero where the two are equal.

        Args:
            student: Features with gradient, `(B, C, h, w)`, as the backbone gives them.
            teacher: Target features, same shape; no gradient flows into them.

        Raises:
            ValueError: the shapes differ.
        """
        ...


def matched(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both `(B, C, h, w)`, at least float32, with the teacher detached.

    A mean of squares is lost in half precision: 512 channels of 1e-4 round to nothing.

    Raises:
        ValueError: the shapes differ; broadcasting would silently train on the wrong pairs.
    """
    if student.shape != teacher.shape or student.ndim != 4:
        raise ValueError(
            "student and teacher must both be (B, C, h, w), "
            f"but got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)
