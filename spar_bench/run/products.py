"""Products with weights by oneDNN, where MKL leaves half of a processor unused.

torch multiplies float32 matrices on a CPU by MKL, which keeps to AVX2 on AMD's processors. oneDNN,
which torch has too, uses their AVX-512: 2.2 times as fast, forward and backward. torch reaches it
by the operation that its compiler uses; sums are rounded in another order.

Shape legend: N rows, K inputs, M outputs.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from spar_bench.machines import mkl_lacks_avx512

STEP = 128
"""In training, rows are filled up to a multiple of this: oneDNN prepares for each number of rows
anew, which takes as long as a product, and images have many sizes."""


def wide_products(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which `F.linear` on a device is by oneDNN, if that is faster."""
    is_needed = device.type == "cpu" and _is_faster() and not getattr(_here, "is_on", False)
    return _Wide() if is_needed else nullcontext()


_here = threading.local()
"""Whether this thread is in that context: a second one would only slow torch down."""


@cache
def _is_faster() -> bool:
    return mkl_lacks_avx512() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Wide(TorchFunctionMode):
    """Replaces `F.linear`, which libraries' modules call too; leaves all else to torch."""

    def __enter__(self) -> Self:
        """Begin."""
        _here.is_on = True
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: object) -> None:
        """End."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _here.is_on = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute a function of torch."""
        given = kwargs or {}
        if func is F.linear and not given and _suits(*args):
            return linear(*args)
        return func(*args, **given)


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Return whether oneDNN can take a product as torch is about to compute it."""
    return (
        {type(x), type(weight)} <= {Tensor, nn.Parameter}  # not one that only counts FLOPs
        and {x.dtype, weight.dtype} == {torch.float32}
        and {x.device.type, weight.device.type} == {"cpu"}
        and not torch.is_autocast_enabled("cpu")
        and weight.ndim == 2
        and weight.is_contiguous()
        and x.numel() > 0
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias` by oneDNN: `(..., K)` and `(M, K)` give `(..., M)`."""
    learns = any(one is not None and one.requires_grad for one in (x, weight, bias))
    if learns and torch.is_grad_enabled():
        # Filled and cut outside: torch forbids changing a view in place that a function has made.
        found: Tensor = _Linear.apply(_filled(x), weight, bias)
        return _cut(found, x.shape)
    return _product(x.contiguous(), weight, bias)


class _Linear(torch.autograd.Function):
    """`F.linear` of contiguous rows, with its gradients, which have none themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product `(N, M)`, and keep what its gradients need."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of those inputs that have one, given that of the output."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        slope = slope.contiguous()
        return (
            _product(slope, weight.T) if needs_x else None,
            _of_weight(slope, x) if needs_weight else None,
            slope.sum(dim=0) if needs_bias else None,
        )


def _of_weight(slope: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a weight, `(M, K)`, from that of the output `(N, M)`, and `(N, K)`.

    The smaller of M and K is the one in rows, which oneDNN computes faster.
    """
    if slope.shape[1] > x.shape[1]:
        return _product(x.T, slope.T).T
    return _product(slope.T, x.T)


def _filled(x: Tensor) -> Tensor:
    """Return `(..., any)` as contiguous rows, with rows of zeros up to a multiple of STEP."""
    rows = x.reshape(-1, x.shape[-1])
    lacking = -len(rows) % STEP
    return F.pad(rows, (0, 0, 0, lacking)) if lacking else rows.contiguous()


def _cut(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return the rows of what was filled as they were, but for the length of each: `(..., any)`."""
    return rows[: shape[:-1].numel()].view(*shape[:-1], -1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a product of contiguous matrices, or of such transposed: of others it takes ages."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], None)
    return found
