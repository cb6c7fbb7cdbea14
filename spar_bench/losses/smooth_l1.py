"""Smooth L1 on the features as they are: squared near zero, absolute beyond."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1


def loss(student: Tensor, teacher: Tensor, *, beta: float = 1.0) -> Tensor:
    """Return the mean over every element of `(B, C, h, w)`, a scalar `()`.

    A difference d counts d^2 / (2 beta) below beta, in units of a feature, and |d| - beta / 2 from
    there on. Features much smaller than beta never reach the line: there the loss is half the mean
    squared error over beta.

    Source: Girshick, Fast R-CNN, equation 3.
    """
    return F.smooth_l1_loss(*matched(student, teacher), beta=beta)
