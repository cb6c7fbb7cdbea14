"""The benchmarks: plain ways give what ours give, and a figure keeps to its bar or not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import benchmarks.__main__ as program
import spar_bench as sb
from benchmarks import growth, plain
from benchmarks.figures import Figure, in_turns
from benchmarks.training import LOSSES, PARTS
from spar_bench.backbones.base import Backbone
from spar_bench.registry import names
from spar_bench.values import parse_trainable

Way = Callable[[Backbone, torch.Tensor, int, int], torch.Tensor]


@pytest.mark.parametrize("way", [plain.window_by_window, plain.ten_at_once])
@pytest.mark.parametrize("stride_px", [12, 24, 64])
def test_plain_ways_give_what_ours_gives(way: Way, stride_px: int) -> None:
    backbone, image = sb.load_backbone("patchwork"), torch.rand(3, 104, 128)

    with torch.inference_mode():
        found = way(backbone, image, 64, stride_px)

    expected = sb.sliding_window(backbone, image[None], window_px=64, stride_px=stride_px)[0]
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [(2.0, False, "ok"), (2.1, False, "off"), (2.0, True, "ok"), (1.9, True, "off")],
)
def test_figure_keeps_to_its_bar_or_not(value: float, at_least: bool, verdict: str) -> None:
    figure = Figure(name="x", value=value, how="so", bar=2.0, at_least=at_least)

    assert figure.verdict == verdict
    assert f"{'>=' if at_least else '<='} 2" in str(figure)
    assert Figure(name="x", value=value, how="so").verdict == ""


def test_ways_take_turns_and_the_first_time_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, calls = [0.0], list[str]()
    monkeypatch.setattr("benchmarks.figures.time.perf_counter", lambda: now[0])

    def way(name: str, seconds: float) -> Callable[[], None]:
        def take() -> None:
            now[0] += seconds * (100 if name not in calls else 1)
            calls.append(name)

        return take

    found = in_turns({"a": way("a", 1.0), "b": way("b", 2.0)}, rounds=3)

    assert found == {"a": 1.0, "b": 2.0}
    assert calls == ["a", "b"] * 4


def test_figures_are_printed_and_saved_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "_RESULTS", tmp_path)
    one = Figure(name="it", value=0.5, how="so", bar=1.0)
    monkeypatch.setitem(program.GROUPS, "reading", lambda: iter([one]))

    result = CliRunner().invoke(program.main, ["reading", "--save", "here"], catch_exceptions=False)

    assert result.exit_code == 0
    assert str(one) in result.output
    document = json.loads((tmp_path / "here.json").read_text())
    assert document["figures"][0]["verdict"] == "ok"
    assert document["machine"]["device"].startswith("cpu ")
    assert document["roof"] > 0


def test_students_that_are_measured_are_known() -> None:
    assert set(LOSSES) <= set(names("losses"))
    assert [parse_trainable(part).part for part in PARTS][-1] == "all"


def test_curve_is_relative_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "in_turns", lambda ways, rounds: {"0": 1.0, "1": 4.0})

    curve = growth._curve("More", "number", [1, 2], [print, print], [10.0, 20.0])

    assert (curve.x, curve.measured, curve.counted) == ([1.0, 2.0], [0.25, 1.0], [0.5, 1.0])


def test_saved_curves_can_be_drawn(tmp_path: Path) -> None:
    for saved in (Path(program.__file__).parent / "results").glob("*.growth.json"):
        curves = [growth.Curve(**one) for one in json.loads(saved.read_text())["curves"]]
        growth.draw(curves, tmp_path / "performance.png")

        assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")
        assert all(one.measured[-1] == one.counted[-1] == 1.0 for one in curves)
