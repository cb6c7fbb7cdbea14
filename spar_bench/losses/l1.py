"""Mean absolute error on the features as they are."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1


def loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the absolute difference, mean over every element of `(B, C, h, w)`, a scalar `()`."""
    return F.l1_loss(*matched(student, teacher))
