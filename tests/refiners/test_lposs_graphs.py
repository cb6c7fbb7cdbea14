"""The graphs of LPOSS and its solver, against loops in float64 and a dense solution."""

from itertools import product
from math import exp, hypot, sqrt

import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from torch import Tensor

from spar_bench.components.refiner import RefinedSizes, refining_flops
from spar_bench.errors import SparBenchError
from spar_bench.refiners import lposs_self
from spar_bench.refiners._patch_graph import PatchGraph
from spar_bench.refiners._pixel_graph import PixelGraph, lab
from spar_bench.refiners._propagation import Propagation
from spar_bench.spec.plugins import PluginSpec

CLOSE = 1e-5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def normalised(weights: Tensor) -> Tensor:
    """Divide by the roots of both degrees, one by one; a degree of 0 counts as 1."""
    n, degrees = len(weights), [sum(row.tolist()) or 1.0 for row in weights]
    graph = torch.zeros(n, n, dtype=torch.float64)
    for i, j in product(range(n), range(n)):
        graph[i, j] = weights[i, j] / sqrt(degrees[i] * degrees[j])
    return graph


def patch_graph(vectors: Tensor, patch_px: int, *, k: int) -> Tensor:
    """Construct the graph of patches edge by edge, with gamma 3 and sigma 0.01."""
    _, h, w = vectors.shape
    places = list(product(range(h), range(w)))
    n, unit = len(places), F.normalize(vectors.double(), dim=0)
    directed = torch.zeros(n, n, dtype=torch.float64)
    for i, (y, x) in enumerate(places):
        cosines = [float(unit[:, y, x] @ unit[:, other[0], other[1]]) for other in places]
        for j in sorted(range(n), key=lambda j: -cosines[j])[:k]:
            pixels = patch_px * hypot(y - places[j][0], x - places[j][1])
            directed[i, j] = max(0.0, cosines[j]) ** 3 * exp(-0.01 * pixels)
    weights = directed + directed.T
    return normalised(weights - torch.diag(weights.diagonal()))


def pixel_graph(rgb: Tensor, side: int, tau: float) -> Tensor:
    """Construct the graph of pixels edge by edge, with scikit-image's colours."""
    _, height, width = rgb.shape
    colours = torch.as_tensor(rgb2lab(rgb.double().permute(1, 2, 0).numpy()))
    colours = colours / torch.tensor([100.0, 128.0, 128.0])
    places = list(product(range(height), range(width)))
    weights = torch.zeros(len(places), len(places), dtype=torch.float64)
    for (i, (y, x)), (j, (v, u)) in product(enumerate(places), enumerate(places)):
        if i != j and max(abs(y - v), abs(x - u)) <= side // 2:
            # Both directions are added.
            weights[i, j] = 2 * exp(-float((colours[y, x] - colours[v, u]).norm()) / tau)
    return normalised(weights)


def conjugate_gradients(graph: Tensor, scores: Tensor, n_steps: int) -> Tensor:
    """Take steps for one query after the other, each of a 1-d vector in float64."""
    system, found = torch.eye(len(graph), dtype=torch.float64) - 0.95 * graph, []
    for b in scores.double():
        x, r, p = torch.zeros_like(b), b, b
        for _ in range(n_steps):
            step = (r @ r) / (p @ system @ p)
            x, rest = x + step * p, r - step * (system @ p)
            p, r = rest + (rest @ rest) / (r @ r) * p, rest
        found.append(x)
    return torch.stack(found)


def propagation(**changed: float) -> Propagation:
    settings: dict[str, float] = {"alpha": 0.95, "max_iterations": 10, "tolerance": 1e-6}
    return Propagation(**(settings | {"rescale": False} | changed))  # type: ignore[arg-type]


@pytest.fixture
def graph() -> Tensor:
    """The graph of 6 x 9 patches, six neighbours each."""
    return PatchGraph(k=6, gamma=3.0, sigma=0.01).of(drawn(5, 6, 9), 16)


@pytest.mark.parametrize("k", [1, 2, 7, 400])
def test_graph_of_patches_is_that_of_a_loop(k: int) -> None:
    vectors = drawn(5, 4, 6)

    found = PatchGraph(k=k, gamma=3.0, sigma=0.01).of(vectors, 16)

    assert torch.allclose(found.double(), patch_graph(vectors, 16, k=k), atol=CLOSE)


def test_graph_is_symmetric_without_loops_and_joins_no_opposites() -> None:
    vectors = torch.tensor([[[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]])

    found = PatchGraph(k=6, gamma=3.0, sigma=0.0).of(vectors, 16)

    # Two groups of three: each has two neighbours of weight 2, so a degree of 4.
    half = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    assert torch.allclose(found[0::2, 0::2], half)
    assert torch.allclose(found[1::2, 1::2], half)
    assert not found[0::2, 1::2].any()


def test_patches_that_are_compared_in_turns_give_the_same_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule, vectors = PatchGraph(k=5, gamma=3.0, sigma=0.01), drawn(5, 4, 6)
    at_once = rule.of(vectors, 16)

    monkeypatch.setattr("spar_bench.refiners._patch_graph._ROWS", 7)

    assert torch.allclose(rule.of(vectors, 16), at_once, atol=1e-7)


def test_patches_weigh_less_the_more_pixels_they_are_apart() -> None:
    vectors = torch.ones(1, 2, 3)

    found = PatchGraph(k=6, gamma=1.0, sigma=0.1).of(vectors, 8)

    weights = [0.0, exp(-0.8), exp(-1.6), exp(-0.8), exp(-0.8 * sqrt(2)), exp(-0.8 * sqrt(5))]
    middle = 3 * exp(-0.8) + 2 * exp(-0.8 * sqrt(2))
    degrees = torch.tensor([sum(weights), middle, sum(weights)] * 2)
    assert torch.allclose(found[0], torch.tensor(weights) / (degrees[0] * degrees).sqrt())


def test_ten_steps_are_those_of_a_loop_for_each_query(graph: Tensor) -> None:
    scores = drawn(4, 54, seed=1)

    found = propagation()(lambda values: values @ graph, scores)

    assert torch.allclose(
        found.double(), conjugate_gradients(graph.double(), scores, 10), rtol=1e-4, atol=1e-4
    )


def test_many_steps_give_the_dense_solution_of_which_ten_are_short(graph: Tensor) -> None:
    scores = drawn(4, 54, seed=1).double()
    wide = (graph + graph.T).double() / 2  # symmetric to the last bit, not just to float32's
    system = torch.eye(54, dtype=torch.float64) - 0.95 * wide
    exact = torch.linalg.solve(system, scores.T).T

    many, ten = (
        propagation(max_iterations=n, tolerance=1e-12)(lambda values: values @ wide, scores)
        for n in (200, 10)
    )

    assert torch.allclose(many, exact, rtol=1e-9, atol=1e-9)
    assert (ten - exact).norm() > 1e-4 * exact.norm()


def test_query_that_is_near_enough_stays_as_it_is_while_others_go_on(graph: Tensor) -> None:
    # The eigenvector is solved for in one step; a zero has no direction at all.
    eigenvector = torch.linalg.eigh(graph.double())[1][:, -1].float()
    scores = torch.stack([eigenvector, torch.zeros(54), drawn(54)])

    together = propagation(tolerance=1e-4)(lambda values: values @ graph, scores)
    # Of the same shape: a product of other rows rounds in another way on some processors.
    once = propagation(max_iterations=1)(lambda values: values @ graph, scores)

    assert torch.equal(together[0], once[0])
    assert not torch.equal(together[2], once[2])
    assert not together[1].any()
    assert together.isfinite().all()


def test_nothing_is_multiplied_once_all_are_near_enough() -> None:
    calls = []

    def nothing(values: Tensor) -> Tensor:
        calls.append(len(values))
        return torch.zeros_like(values)

    found = propagation()(nothing, torch.ones(3, 5))

    assert torch.equal(found, torch.ones(3, 5))
    assert calls == [3]


def test_queries_may_be_propagated_in_turns(graph: Tensor) -> None:
    scores, sizes = drawn(5, 54), []

    def counted(values: Tensor) -> Tensor:
        sizes.append(len(values))
        return values @ graph

    found = propagation()(counted, scores, at_once=2)

    assert torch.allclose(found, propagation()(counted, scores), atol=1e-5)
    assert set(sizes) == {2, 1, 5}


def test_rescaled_scores_are_weighted_means_of_those_before(graph: Tensor) -> None:
    scores = torch.stack([torch.full((54,), 0.3), 0.1 * drawn(54)])
    system = torch.eye(54, dtype=torch.float64) - 0.95 * graph.double()
    weights = torch.linalg.inv(system)
    weights /= weights.sum(dim=1, keepdim=True)

    found = propagation(rescale=True, max_iterations=200)(lambda values: values @ graph, scores)

    assert (weights >= 0).all()
    assert torch.allclose(found.double(), scores.double() @ weights.T, atol=CLOSE)
    assert torch.allclose(found[0], scores[0], atol=CLOSE)


@pytest.mark.parametrize(("side", "tau"), [(3, 0.5), (5, 0.05), (13, 0.2), (1, 0.1)])
def test_graph_of_pixels_is_that_of_a_loop(side: int, tau: float) -> None:
    rgb = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    values = drawn(2, 24)

    found = PixelGraph(neighbourhood_px=side, tau=tau).of(rgb)(values)

    expected = values.double() @ pixel_graph(rgb, side, tau)
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_pixels_of_quite_different_colours_are_joined_though_weakly() -> None:
    black_beside_white = torch.tensor([0.0, 1.0]).expand(3, 1, 2)

    found = PixelGraph(neighbourhood_px=3, tau=0.01).of(black_beside_white)(torch.eye(2))

    # The weight is exp(-100), no normal number of float32; normalised, it is 1.
    assert torch.allclose(found, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((0.5, 0.5, 0.5), (53.389, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.241, 80.092, 67.203)),
        ((0.0, 1.0, 0.0), (87.735, -86.183, 83.180)),
        ((0.0, 0.0, 1.0), (32.297, 79.188, -107.860)),
        ((1.5, 0.0, -0.5), (53.241, 80.092, 67.203)),
    ],
)
def test_colours_are_those_of_the_cie(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = lab(torch.tensor(rgb, dtype=torch.float64)[:, None, None]).flatten()

    assert found.tolist() == pytest.approx(expected, abs=0.02)


def test_colours_are_scikit_images() -> None:
    rgb = torch.rand(3, 5, 7, dtype=torch.float64)
    rgb[:, 0] /= 20  # dark ones lie on the straight part of both curves

    found = lab(rgb)

    expected = torch.as_tensor(rgb2lab(rgb.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    assert torch.allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("name", ["lposs", "lposs_self"])
@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("alpha", 1.0, "at least 0 and less than 1"),
        ("max_iterations", -5, "at least 1"),
        ("tolerance", -1.0, "at least 0"),
        ("k", 0, "at least 1"),
        ("gamma", 0.0, "more than 0"),
        ("sigma", -0.1, "at least 0"),
        ("neighbourhood_px", 4, "odd and at least 1"),
        ("tau", 0.0, "more than 0"),
    ],
)
def test_setting_out_of_range_is_the_same_line_in_a_plan_and_before_any_work(
    name: str, setting: str, value: float, rule: str
) -> None:
    spec = PluginSpec.model_validate({"name": name, setting: value})
    sizes = RefinedSizes(12, 3, (4, 6), (64, 96), (64, 96))

    with pytest.raises(SparBenchError) as planning:
        refining_flops(spec, sizes)
    with pytest.raises(SparBenchError) as making:
        lposs_self.Refiner(torch.device("cpu"), None, **{setting: value})  # type: ignore[arg-type]

    line = f"evaluate.refiner.{setting}: must be {rule}, but got {value}; correct it"
    assert str(planning.value) == str(making.value) == line
