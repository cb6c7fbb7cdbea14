"""Mean squared error on features of length one: direction alone, on the scale of `mse`."""

from torch import Tensor
from torch.nn import functional as F

from spar_bench.losses.base import matched

VERSION = 1


def loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of features L2-normalised over C, mean over every element.

    A scalar `()` between 0 and 4 / C. It equals `cosine` times 2 / C, so the two differ only in the
    size of their gradients, which AdamW nearly cancels, while for SGD it acts like another learning
    rate.
    """
    student, teacher = matched(student, teacher)
    return F.mse_loss(F.normalize(student, dim=1), F.normalize(teacher, dim=1))
