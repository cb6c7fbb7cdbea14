"""Mean squared error on the features as they are: the paper's loss."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1


def loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference, mean over every element of `(B, C, h, w)`, a scalar `()`.

    Magnitude counts: positions and channels with large features dominate.

    Source: SPAR, whose released code uses it on un-normalised final features.
    """
    return F.mse_loss(*matched(student, teacher))
