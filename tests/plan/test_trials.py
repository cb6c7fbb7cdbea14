"""Trials and their arms: which rows each has, and which timings share a session."""

from pathlib import Path
from typing import Any

import pytest

from spar_bench.components.backbone import known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.drawing import draw
from spar_bench.plan.making import make_plan
from spar_bench.plan.trials import Plan
from spar_bench.resolve import Resolver, open_dataset
from spar_bench.run.images import render, to_tensor
from spar_bench.spec import Point
from spar_bench.spec.schema import Settings
from spar_bench.stages import images as images_stage
from spar_bench.stages import latency
from spar_bench.windows import n_windows
from tests.run.tiny import MACHINE, of_kind, of_type, plan_of, settings


def arms(plan: Plan) -> list[list[tuple[str, int]]]:
    return [[(row.method, row.short_side_px) for row in trial.rows] for trial in plan.trials]


def test_each_seed_is_a_trial_and_what_no_seed_moves_is_in_the_first(
    clip: Path, photographs: Path
) -> None:
    plan = plan_of(settings(clip, photographs, evaluate__short_side_px=[40, 48]), seeds=(0, 5))

    assert [(t.name, t.group, t.seed) for t in plan.trials] == [
        ("g0,seed=0", "g0", 0),
        ("g0,seed=5", "g0", 5),
    ]
    assert arms(plan) == [
        [("pretrained", 40), ("teacher", 40), ("student", 40),
         ("pretrained", 48), ("teacher", 48), ("student", 48)],
        [("student", 40), ("student", 48)],
    ]  # fmt: skip


def test_group_without_a_student_has_one_trial_and_no_seed(clip: Path, photographs: Path) -> None:
    plan = plan_of(settings(clip, photographs, evaluate__methods=["teacher"]), seeds=(0, 1, 2))

    assert [(t.name, t.seed) for t in plan.trials] == [("g0", None)]
    assert {stage.kind for stage in plan.stages.values()} == {"text", "evaluate", "cost"}


def test_stages_come_after_what_they_are_made_from(clip: Path, photographs: Path) -> None:
    plan = plan_of(settings(clip, photographs), settings(clip, photographs, student__loss="l1"))

    seen: set[str] = set()
    for fingerprint, stage in plan.stages.items():
        assert set(stage.inputs.values()) <= seen
        seen.add(fingerprint)


def test_what_a_trial_needs_reaches_down_to_its_images(clip: Path, photographs: Path) -> None:
    plan = plan_of(
        settings(clip, photographs, evaluate__methods=["student"]),
        settings(clip, photographs, evaluate__methods=["teacher"]),
    )

    kinds = [sorted(plan.stages[f].kind for f in plan.of_trial(trial)) for trial in plan.trials]

    evaluated = ["cost", "evaluate", "text"]
    assert kinds == [sorted([*evaluated, "images", "student", "targets"]), evaluated]


def test_same_work_of_two_points_is_one_stage(clip: Path, photographs: Path) -> None:
    plan = plan_of(settings(clip, photographs), settings(clip, photographs, student__loss="l1"))

    kinds = [stage.kind for stage in plan.stages.values()]

    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "images": 1, "targets": 1, "student": 2, "text": 1, "evaluate": 2 + 2,
        "cost": 2,
    }  # fmt: skip


def test_all_readings_are_timed_in_one_session_each_once(clip: Path, photographs: Path) -> None:
    timed: dict[str, Any] = {"measure": {"latency": True, "seconds": 1.0}}
    longer: dict[str, Any] = {"measure": {"seconds": 3.0, "image_hw": [[64, 80]]}}
    plan = plan_of(
        settings(clip, photographs, **timed),
        settings(clip, photographs, teacher__stride_px=16, **longer),
        settings(clip, photographs, evaluate__average="features"),
    )

    assert plan.latency is not None
    session = plan.stages[plan.latency]
    assert isinstance(session, latency.Stage)
    # Single pass and two teachers at 48 x 62 or so; single pass and a teacher at 64 x 80.
    assert len(session.settings.timed) == 5
    assert session.settings.seconds == 3.0
    assert {line.timed for line in plan.costs} <= set(session.settings.timed)
    rows = {row.timed for trial in plan.trials[:2] for row in trial.rows}
    assert rows <= set(session.settings.timed)
    assert [line.image_hw for line in plan.costs] == [(64, 80)] * 3


def test_further_sizes_cost_what_each_data_sets_classes_and_thresholds_ask(
    clip: Path, photographs: Path
) -> None:
    folder = {"name": "folder", "path": str(photographs)}
    plan = plan_of(
        settings(
            clip,
            photographs,
            evaluate__datasets=[
                folder | {"label": "plain"},
                folder | {"label": "same", "background_threshold": 0.0},
                folder | {"label": "strict", "background_threshold": 0.2},
                folder | {"label": "synonyms", "classes": [["sky", "air"], ["road"], ["tree"]]},
            ],
            evaluate__methods=["pretrained"],
            measure={"latency": True, "image_hw": [[64, 80]]},
        )
    )
    [session] = of_type(plan, latency.Stage)

    lines = {line.data.display_name: line for line in plan.costs}
    plain, same, strict, synonyms = lines.values()

    assert [*lines] == ["plain", "same", "strict", "synonyms"]
    asked = [session.settings.timed[line.timed] for line in (plain, strict, synonyms)]
    assert [one.reading.n_queries for one in asked] == [3, 3, 4]
    assert [one.n_classes for one in asked] == [3, 3, 3]
    assert [one.has_background_threshold for one in asked] == [False, True, False]
    assert not any(one.has_area_threshold for one in asked)
    # A threshold takes time, but no FLOPs.
    assert (same.cost, same.timed) == (plain.cost, plain.timed)
    assert strict.cost == plain.cost != synonyms.cost


def test_thresholds_of_a_read_out_are_timed_for_its_backbones_alone(clip: Path) -> None:
    found = []
    for backbone in ("openclip-b16-laion2b", "siglip2-b16-512"):
        one = Settings.model_validate({
            "backbone": backbone,
            "evaluate": {"datasets": ["voc21"], "methods": ["pretrained"]},
            "measure": {"latency": True},
        })  # fmt: skip
        resolver = Resolver(provisional=True)
        plan = make_plan([Point(group="g", settings=one, swept={})], [0], None, resolver=resolver)
        [session] = of_type(plan, latency.Stage)
        [timed] = session.settings.timed.values()
        found.append((timed.has_background_threshold, timed.has_area_threshold))
        # 26 names of the background, 7 of a person, 5 of a monitor, and 18 classes with one.
        assert (timed.reading.n_queries, timed.n_classes) == (26 + 7 + 5 + 18, 21)

    assert found == [(True, True), (False, False)]


def test_another_machine_or_reading_is_another_session(clip: Path, photographs: Path) -> None:
    timed: dict[str, Any] = {"measure": {"latency": True}}
    one = settings(clip, photographs, **timed)
    other = settings(clip, photographs, teacher__stride_px=16, **timed)

    here, there = plan_of(one), plan_of(one, machine=MACHINE.model_copy(update={"threads": 2}))

    assert here.latency == plan_of(one).latency
    assert len({here.latency, there.latency, plan_of(other).latency}) == 3
    assert here.stages.keys() - {here.latency} == there.stages.keys() - {there.latency}


def test_estimates_are_of_the_declared_image_and_all_it_is_read_by(
    clip: Path, photographs: Path
) -> None:
    plan = plan_of(settings(clip, photographs, measure={"latency": True}))
    by_kind: dict[str, list[Any]] = {}
    for stage in plan.stages.values():
        by_kind.setdefault(stage.kind, []).append(stage.estimate(plan.stages))

    assert [one.n_windows for one in by_kind["evaluate"]] == [1, 2 * 5, 1]
    assert by_kind["evaluate"][1].gflops > 3 * by_kind["evaluate"][0].gflops
    assert all(one.n_bytes > 0 for several in by_kind.values() for one in several)
    assert by_kind["student"][0].gflops > 0
    assert by_kind["targets"][0].gflops > 0
    assert by_kind["latency"][0].gflops > 0


def test_targets_are_planned_to_the_byte_where_the_source_has_images_of_one_size() -> None:
    images = {"source": "patchwork", "count": 30, "short_side_px": [64, 200]}
    one = Settings.model_validate({"images": images, "teacher": {"window_px": 64, "stride_px": 24}})
    plan = plan_of(one, seeds=(3,))
    [targets] = of_kind(plan, "targets")
    [listed] = of_type(plan, images_stage.Stage)
    source = open_dataset(one.images.source, "train")

    planned = targets.estimate(plan.stages)

    sizes = known_sizes(one.backbone)
    n_bytes = n_passes = 0
    for drawn in draw(listed.settings.drawing, len(source)):
        rendered = render(to_tensor(source.image(drawn.index)), drawn, listed.settings.drawing)
        height, width = rendered.shape[1:]
        n_bytes += (height // 8) * (width // 8) * sizes.channels * 2
        n_passes += n_windows((height, width), 64, 24)
    assert planned.n_bytes == n_bytes
    assert planned.n_windows == round(n_passes / 30)
    assert planned.gflops == pytest.approx(n_passes * encoder_flops(sizes, (64, 64)) / 1e9)


def test_targets_that_are_not_kept_are_no_stage_and_cost_the_student_each_epoch(
    clip: Path, photographs: Path
) -> None:
    kept = plan_of(settings(clip, photographs, student__epochs=3))
    computed = plan_of(settings(clip, photographs, student__epochs=3, teacher__keep=False))

    found = [{stage.kind: stage for stage in plan.stages.values()} for plan in (kept, computed)]

    assert set(found[0]) - set(found[1]) == {"targets"}
    assert kept.stages.keys() - computed.stages.keys() == {found[0]["targets"].fingerprint}
    targets, student = (found[0][kind].estimate(kept.stages) for kind in ("targets", "student"))
    assert found[1]["student"].estimate(computed.stages).gflops == pytest.approx(
        student.gflops + 3 * targets.gflops
    )


def test_estimates_contain_the_refiner(clip: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "sharper.py"
    path.write_text(
        'VERSION = 1\nFLOPS = "H * W * 10**6 + T * U * 10**4 + Q"\n\n\nclass Refiner:\n'
        "    def __init__(self, device, weights): ...\n"
    )
    found = []
    for refiner in ("none", str(path)):
        plan = plan_of(
            settings(
                clip,
                photographs,
                evaluate__methods=["pretrained"],
                evaluate__refiner=refiner,
                measure={"latency": True},
            )
        )
        [evaluated] = of_kind(plan, "evaluate")
        [timed] = of_kind(plan, "latency")
        found.append([one.estimate(plan.stages).gflops for one in (evaluated, timed)])
    (evaluating, timing), (evaluating_refined, timing_refined) = found

    # Three images of 40 x 70 px, as the first is, read at 40 px: 40 x 64 in whole patches of 8.
    each = 40 * 64 * 10**6 + 40 * 70 * 10**4 + 3
    assert evaluating_refined - evaluating == pytest.approx(3 * each / 1e9)
    assert timing_refined - timing == pytest.approx(5 * each / 1e9)  # five passes
