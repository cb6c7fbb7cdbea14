"""What a plan counts: windows that strides share are encoded once."""

from itertools import product
from pathlib import Path
from time import process_time

import pytest

from spar_bench.components.backbone import known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.plan.devices import STAGE_S, STARTUP_S, probed_speed
from spar_bench.session.planning import PlanView, plan_sweep
from spar_bench.spec.schema import BackboneSpec
from tests.small import UNTIMED, write_spec

STRIDES = """\
evaluate: {datasets: [{name: patchwork, count: 10}], short_side_px: [256], methods: [teacher]}
teacher: {window_px: 64}
measure: {latency: false}
sweep: [{grid: {teacher.stride_px: %s}}]
"""


def planned(strides: list[int]) -> PlanView:
    """Return the plan of teachers at these strides, on ten scenes of 256x320 px."""
    return plan_sweep(write_spec(STRIDES % strides))


def corners(length_px: int, stride_px: int) -> list[int]:
    """Return where windows of 64 px begin on a side; the last one ends with it."""
    starts, end = [0], length_px - 64
    while starts[-1] < end:
        starts.append(min(starts[-1] + stride_px, end))
    return starts


@pytest.mark.parametrize("strides", [[28, 24, 20], [64, 32, 16], [64, 32, 28, 16, 12, 8]])
def test_sweep_of_strides_costs_the_union_of_their_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strides: list[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    a_window = encoder_flops(known_sizes(BackboneSpec(name="patchwork")), (64, 64)) / 1e9

    view = planned(strides)

    alone = [set(product(corners(256, s), corners(320, s))) for s in strides]
    evaluated = [one for one in view.stages if one.stage.kind == "evaluate"]
    apart = sum(one.estimate.gflops for one in evaluated)
    others = sum(one.estimate.gflops for one in view.stages if one.stage.kind != "evaluate")
    saved = sum(map(len, alone)) - len(set().union(*alone))
    assert [one.estimate.n_windows for one in evaluated] == [len(each) for each in alone]
    assert view.gflops - others == pytest.approx(apart - 10 * saved * a_window)


def test_time_is_the_work_at_the_assumed_speed_with_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    view = planned([28, 24, 20])

    assert view.seconds == pytest.approx(
        view.gflops / probed_speed().float32 + STARTUP_S + STAGE_S * len(view.stages)
    )


def test_time_to_plan_is_linear_in_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seconds = dict[int, float]()
    for n_points in (200, 200, 800):
        epochs = list(range(1, n_points // 10 + 1))
        accumulate = list(range(1, 11))
        spec = UNTIMED + (
            f"seeds: [0]\nsweep: [{{grid: {{student.epochs: {epochs}, "
            f"student.accumulate: {accumulate}}}, set: {{evaluate.methods: [student]}}}}]\n"
        )
        begun = process_time()
        view = plan_sweep(write_spec(spec))
        took = process_time() - begun
        seconds[n_points] = min(took, seconds.get(n_points, took))
        assert len(view.plan.trials) == n_points

    # Four times the points; what compares each with all others takes sixteen times as long.
    assert seconds[800] < 8 * seconds[200]
