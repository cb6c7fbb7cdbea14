"""Resampling along one axis as matrices in float64, without our code or torch's."""

import numpy as np
import torch
from torch import Tensor


def cubic(n_in: int, n_out: int, *, step: float | None = None) -> Tensor:
    """Return bicubic resampling along one axis, `(n_out, n_in)`: a = -0.75, borders repeated.

    Outputs are `step` inputs apart, n_in / n_out by default.
    """
    step = n_in / n_out if step is None else step
    matrix = np.zeros((n_out, n_in))
    for row in range(n_out):
        centre = (row + 0.5) * step - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - tap)
            near = (1.25 * d - 2.25) * d * d + 1
            far = -0.75 * (((d - 5) * d + 8) * d - 4)
            matrix[row, min(max(tap, 0), n_in - 1)] += near if d <= 1 else far
    return torch.as_tensor(matrix)


def triangle(n_in: int, n_out: int) -> Tensor:
    """Return bilinear resampling with antialiasing along one axis, `(n_out, n_in)`."""
    step = n_in / n_out
    matrix = np.zeros((n_out, n_in))
    for row in range(n_out):
        for tap in range(n_in):
            distance = abs(tap + 0.5 - (row + 0.5) * step) / max(step, 1)
            matrix[row, tap] = max(0.0, 1 - distance)
    matrix /= matrix.sum(1, keepdims=True)
    return torch.as_tensor(matrix)
