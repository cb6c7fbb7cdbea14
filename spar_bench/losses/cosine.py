"""Cosine distance of the features at each position: only their direction counts."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1


def loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 minus the cosine over C, mean over `(B, h, w)`, a scalar `()` between 0 and 2.

    Open-vocabulary labels depend on direction alone. A position whose features are all zero has no
    direction; it counts as 1.
    """
    cosine = F.cosine_similarity(*matched(student, teacher), dim=1)
    return (1 - cosine).clamp_min(0).mean()  # rounding can take a cosine just above 1
