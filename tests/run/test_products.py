"""Products by oneDNN: torch's own to rounding, with its gradients, and only where it is faster."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from spar_bench.run import products
from spar_bench.run.products import linear, wide_products

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch is without oneDNN"
)
CPU = torch.device("cpu")


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Have oneDNN in use on any processor; returns the shapes of what it multiplies."""
    taken = list[torch.Size]()

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        taken.append(x.shape)
        return linear(x, weight, bias)

    monkeypatch.setattr(products, "_is_faster", lambda: True)
    monkeypatch.setattr(products, "linear", noted)
    return taken


def drawn(*shape: int, learns: bool = False) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(sum(shape)), requires_grad=learns)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (2, 65, 7)])
@pytest.mark.parametrize("n_outputs", [3, 21])
@pytest.mark.parametrize("has_bias", [True, False])
def test_product_and_gradients_are_those_in_double_precision_to_rounding(
    shape: tuple[int, ...], n_outputs: int, has_bias: bool
) -> None:
    x, weight = drawn(*shape, learns=True), drawn(n_outputs, 7, learns=True)
    bias = drawn(n_outputs, learns=True) if has_bias else None
    learning = [one for one in (x, weight, bias) if one is not None]
    exactly = [one.detach().double().requires_grad_() for one in learning]

    found, expected = linear(x, weight, bias), F.linear(*exactly)
    slope = drawn(*found.shape)
    slopes = torch.autograd.grad(found, learning, slope)
    exact_slopes = torch.autograd.grad(expected, exactly, slope.double())

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for one, exact, of in zip(slopes, exact_slopes, learning, strict=True):
        assert one.shape == of.shape
        torch.testing.assert_close(one.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learning", ["x", "weight", "bias"])
def test_only_what_learns_has_a_gradient(learning: str) -> None:
    given = {"x": drawn(4, 7), "weight": drawn(3, 7), "bias": drawn(3)}
    given[learning].requires_grad_()

    linear(**given).sum().backward()  # type: ignore[no-untyped-call]

    assert [name for name, one in given.items() if one.grad is not None] == [learning]


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 65, 7)])
def test_product_that_nothing_learns_from_is_the_exact_one_to_rounding(
    shape: tuple[int, ...],
) -> None:
    whole, weight, bias = drawn(*shape[:-1], 14), drawn(3, 7), drawn(3)
    for x in (whole[..., ::2], whole[..., :7], whole[..., :7].contiguous()):
        with torch.inference_mode():
            found = linear(x, weight, bias)
        exact = F.linear(x.double(), weight.double(), bias.double())
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_result_may_be_changed_in_place_and_still_has_gradients() -> None:
    x, weight = drawn(4, 7), drawn(3, 7, learns=True)

    linear(x, weight).mul_(2).sum().backward()  # type: ignore[no-untyped-call]

    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * x.sum(dim=0).expand(3, 7), rtol=1e-5, atol=1e-6)


def test_one_context_within_another_changes_nothing(faster: list[torch.Size]) -> None:
    with wide_products(CPU):
        with wide_products(CPU):
            F.linear(drawn(4, 7), drawn(3, 7))
        F.linear(drawn(5, 7), drawn(3, 7))
    F.linear(drawn(6, 7), drawn(3, 7))

    assert [shape[0] for shape in faster] == [4, 5]


def test_nothing_is_kept_where_nothing_learns() -> None:
    layer = nn.Linear(7, 3)

    with torch.no_grad():
        assert linear(drawn(4, 7), layer.weight, layer.bias).grad_fn is None
    assert linear(drawn(4, 7), drawn(3, 7)).grad_fn is None


def test_layers_of_libraries_are_computed_by_it(faster: list[torch.Size]) -> None:
    layer, x = nn.Linear(7, 3), drawn(2, 5, 7)
    expected = layer(x)

    with wide_products(CPU):
        found = layer(x)

    assert faster == [x.shape]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    layer(x)
    assert len(faster) == 1


def test_what_does_not_suit_is_left_to_torch(faster: list[torch.Size]) -> None:
    x, weight = drawn(4, 6), drawn(6, 6)

    with wide_products(CPU):
        F.linear(x.double(), weight.double())
        F.linear(x, weight.T)
        F.linear(x[:0], weight)
        with torch.autocast("cpu", torch.bfloat16):
            F.linear(x, weight)
        with FakeTensorMode(allow_non_fake_inputs=True):
            F.linear(torch.zeros(4, 6), weight)

    assert not faster


def test_other_devices_and_processors_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "linear", None)

    monkeypatch.setattr(products, "_is_faster", lambda: True)
    with wide_products(torch.device("cuda")):
        F.linear(drawn(4, 7), drawn(3, 7))
    monkeypatch.setattr(products, "_is_faster", lambda: False)
    with wide_products(CPU):
        F.linear(drawn(4, 7), drawn(3, 7))
