"""Peak memory of computations whose tensors are counted by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spar_bench.run.memory import MIB, held_bytes, peak_mib
from tests.run.tiny import CPU

N = MIB // 4  # floats in a MiB


def chain(x: Tensor) -> Tensor:
    a = x + 1
    b = a + 1
    c = b + 1  # a, b, c
    del a
    return c + 1  # b, c and the result


def freed_before_the_end(x: Tensor) -> Tensor:
    a = torch.empty(8 * N)
    del a
    return x + 1


def joined(x: Tensor) -> Tensor:
    a = x + 1
    b = torch.cat([a, a, a, a])  # a and four times a
    del a
    return b[:N] + 1  # b is alive, and the result


def replaced(x: Tensor) -> Tensor:
    for _ in range(10):
        x = x + 1  # the old one goes when the new one is there; the first is not ours
    return x


def product(x: Tensor) -> Tensor:
    image, weight = torch.zeros(1024, 512), torch.zeros(512, 512)  # 2 and 1
    return torch.nn.functional.linear(image, weight)  # 2


@pytest.mark.parametrize(
    ("run", "expected_mib"),
    [(chain, 3), (freed_before_the_end, 8), (joined, 5), (replaced, 2), (product, 5)],
)
def test_peak_is_what_tensors_hold_at_once_and_the_weights(
    run: Callable[[Tensor], Tensor], expected_mib: int
) -> None:
    x = torch.zeros(N)

    with torch.inference_mode():
        found = peak_mib(lambda: run(x), CPU, 3 * MIB)

    assert found == pytest.approx(3 + expected_mib, abs=0.001)


class Network(nn.Module):
    """Has 7 x 5 weights and 7 biases, and 3 halves in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 7)
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float16))


class Component:
    """Holds a network, a table in a dict and in a list, a view of it, and no tensors."""

    def __init__(self) -> None:
        self.network = Network()
        table = torch.zeros(100, dtype=torch.uint8)
        self.tables = {"a": table, "b": [table[20:]]}
        self.library, self.kind, self.itself = torch, nn.Linear, self


def test_tensors_that_a_component_holds_are_counted_once() -> None:
    assert held_bytes(Component()) == (7 * 5 + 7) * 4 + 3 * 2 + 100
    assert held_bytes(object()) == 0
