"""Smooth L1 on the features as they are: squared near zero, absolute beyond."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1
BETA = 1.0  # where square and line meet, in units of a feature


def loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over every element of `(B, C, h, w)`, a scalar `()`.

    A difference d counts d^2 / (2 BETA) below BETA and |d| - BETA / 2 from there on. Features much
    smaller than BETA never reach the line: there the loss is half the mean squared error.

    Source: Girshick, Fast R-CNN, equation 3.
    """
    return F.smooth_l1_loss(*matched(student, teacher), beta=BETA)
