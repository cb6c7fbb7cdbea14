"""Fingerprints: what must change one, and what must not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spar_bench.errors import DataError
from spar_bench.inference import resized_hw
from spar_bench.plan.trials import Plan
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import DatasetSpec, Settings
from spar_bench.stage import digest
from spar_bench.stages import targets
from spar_bench.stages.base import Stage
from tests.run.tiny import of_kind, plan_of, settings, write_clip, write_photographs

KINDS = ["images", "targets", "student", "text", "cost"]
Build = Callable[..., Settings]


@pytest.fixture
def build(clip: Path, photographs: Path) -> Build:
    """Build settings on the small model and the photographs."""
    return lambda **changes: settings(clip, photographs, **changes)


def fingerprints(one: Settings, *, seed: int = 0) -> dict[str, set[str]]:
    """Return fingerprints by kind of stage; evaluations by method, as `of teacher`."""
    plan = plan_of(one, seeds=(seed,))
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for fingerprint, stage in plan.stages.items():
        if stage.kind in KINDS:
            found[stage.kind].add(fingerprint)
    for row in plan.trials[0].rows:
        found.setdefault(f"of {row.method}", set()).add(row.evaluate)
    return found


def changed(a: dict[str, set[str]], b: dict[str, set[str]]) -> set[str]:
    assert a.keys() == b.keys()
    return {kind for kind in a if a[kind] != b[kind]}


STUDENT = {"student", "of student"}
DISTILLED = {"targets", *STUDENT}
EVALUATED = {"of pretrained", "of teacher", "of student"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"student__loss": "cosine"}, STUDENT),
        ({"student__epochs": 3}, STUDENT),
        ({"student__trainable": "all"}, STUDENT),
        ({"student__precision": "bfloat16"}, STUDENT),
        ({"teacher__stride_px": 16}, {*DISTILLED, "of teacher", "cost"}),
        ({"teacher__window_px": 24}, {*DISTILLED, "of teacher", "cost"}),
        ({"teacher__upsample": 4}, DISTILLED),  # windows that vote on logits know no r
        ({"teacher__precision": "bfloat16"}, DISTILLED),
        ({"teacher__precision": "float32"}, set()),
        ({"teacher__normalise": True}, DISTILLED),
        ({"images__count": 4}, {"images", *DISTILLED}),
        ({"images__flip": 0.0}, {"images", *DISTILLED}),
        ({"images__short_side_px": [32, 40]}, {"images", *DISTILLED}),
        ({"images__long_side_ratio": 2.0}, {"images", *DISTILLED}),
        ({"images__smallest_side_px": 24}, {"images", *DISTILLED}),
        ({"images__smallest_side_px": 32}, set()),  # the backbone's native side anyway
        ({"images__long_side_ratio": None}, set()),
        ({"evaluate__short_side_px": [48]}, {*EVALUATED, "cost"}),
        ({"evaluate__average": "features"}, {"of teacher", "cost"}),
        ({"evaluate__logit_scale": 50.0}, EVALUATED),
        ({"evaluate__precision": "bfloat16"}, {*EVALUATED, "cost"}),
        ({"evaluate__methods": ["teacher", "student", "pretrained"]}, set()),
        ({"measure__seconds": 5.0}, set()),
    ],
)
def test_a_setting_changes_what_it_decides_and_nothing_else(
    build: Build, changes: dict[str, Any], expected: set[str]
) -> None:
    assert changed(fingerprints(build()), fingerprints(build(**changes))) == expected


def test_position_embedding_rule_leaves_images_text_and_cost(build: Build, clip: Path) -> None:
    sized = {"name": "openclip", "path": str(clip), "position_embedding": "size"}

    found = changed(fingerprints(build()), fingerprints(build(backbone=sized)))

    assert found == {*DISTILLED, *EVALUATED}


def test_other_weights_change_what_prompts_are_embedded_to(
    build: Build, photographs: Path, tmp_path: Path
) -> None:
    other = write_clip(tmp_path / "other", seed=1)

    found = changed(fingerprints(build()), fingerprints(settings(other, photographs)))

    assert "text" in found


def student_stage(one: Settings, seed: int = 0) -> Stage:
    [stage] = of_kind(plan_of(one, seeds=(seed,)), "student")
    return stage


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluate__short_side_px": [48]},
        {"evaluate__average": "features"},
        {"evaluate__logit_scale": 50.0},
        {"evaluate__precision": "bfloat16"},
        {"evaluate__refiner": "none"},
        {"measure__image_hw": [[64, 80]]},
    ],
)
def test_evaluation_shares_the_student(build: Build, changes: dict[str, Any]) -> None:
    assert student_stage(build()).fingerprint == student_stage(build(**changes)).fingerprint


def test_targets_of_before_precision_could_be_chosen_keep_their_fingerprint(build: Build) -> None:
    plan = plan_of(build())
    [taught], [listed] = of_kind(plan, "targets"), of_kind(plan, "images")
    assert isinstance(taught, targets.Stage)
    teacher = {
        "kind": "sliding_window", "window_px": 32, "stride_px": 12, "average": "features",
        "upsample": 2,
    }  # fmt: skip
    settings = {"backbone": taught.settings.backbone, "teacher": teacher, "dtype": "float16"}

    assert taught.fingerprint == digest(["targets", 1, settings, {"images": listed.fingerprint}])


def test_losses_share_targets_and_not_students(build: Build) -> None:
    plan = plan_of(build(), build(student__loss="l1"), build(student__loss="cosine"))

    kinds = [stage.kind for stage in plan.stages.values()]
    assert (kinds.count("targets"), kinds.count("student")) == (1, 3)
    assert kinds.count("images") == 1


def test_templates_change_text_and_evaluations_alone(build: Build, photographs: Path) -> None:
    dataset = {"name": "folder", "path": str(photographs), "templates": ["the {}."]}

    found = changed(fingerprints(build()), fingerprints(build(evaluate__datasets=[dataset])))

    assert found == {"text", *EVALUATED}


def test_seed_draws_other_images_and_leaves_teacher_and_pretrained(build: Build) -> None:
    found = changed(fingerprints(build()), fingerprints(build(), seed=1))

    assert found == {"images", *DISTILLED}


def test_number_as_a_whole_or_with_a_point_is_the_same(build: Build) -> None:
    assert fingerprints(build(evaluate__logit_scale=40)) == fingerprints(
        build(evaluate__logit_scale=40.0)
    )


def test_where_a_folder_lies_does_not_matter_but_what_is_in_it(
    clip: Path, photographs: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(photographs, tmp_path / "moved" / photographs.name)
    moved_clip = shutil.copytree(clip, tmp_path / "other" / clip.name)
    other = write_photographs(tmp_path / "changed" / photographs.name, seed=1)
    other_clip = write_clip(tmp_path / "weights" / clip.name, seed=1)
    original = fingerprints(settings(clip, photographs))

    assert fingerprints(settings(moved_clip, moved)) == original
    assert changed(original, fingerprints(settings(clip, other))) == set(original) - {
        "text",
        "cost",
    }
    assert changed(original, fingerprints(settings(other_clip, photographs))) == set(original) - {
        "images",
        "cost",
    }


def test_cost_depends_on_shapes_not_on_weights(
    clip: Path, photographs: Path, tmp_path: Path
) -> None:
    wide = write_clip(tmp_path / "wide", width=32)
    same = write_clip(tmp_path / "same", seed=3)

    original = fingerprints(settings(clip, photographs))["cost"]

    assert fingerprints(settings(same, photographs))["cost"] == original
    assert fingerprints(settings(wide, photographs))["cost"] != original


def evaluations(plan: Plan) -> list[Stage]:
    return of_kind(plan, "evaluate")


def test_more_classes_than_a_label_can_tell_apart_are_refused(photographs: Path) -> None:
    names = [[f"class {i}"] for i in range(256)]
    spec = DatasetSpec(name="folder", path=str(photographs), classes=names[:255])

    assert len(Resolver().dataset(spec).classes) == 255
    with pytest.raises(DataError, match=r"must have at most 255 classes, .* but has 256"):
        Resolver().dataset(spec.model_copy(update={"classes": names}))


def test_batch_is_of_one_window_average_model_and_protocol(build: Build) -> None:
    only: dict[str, Any] = {"evaluate__methods": ["teacher"]}
    together = plan_of(build(**only), build(teacher__stride_px=16, **only))
    apart = plan_of(
        build(evaluate__methods=["teacher", "pretrained", "student"]),
        build(teacher__window_px=24, **only),
        build(evaluate__average="features", **only),
        build(evaluate__short_side_px=[48], **only),
        build(evaluate__logit_scale=50.0, **only),
    )

    assert len({stage.batch_key for stage in evaluations(together)}) == 1
    assert len({stage.batch_key for stage in evaluations(apart)}) == len(evaluations(apart)) == 7


@pytest.mark.parametrize(
    ("image_hw", "short_side_px", "expected"),
    [
        ((256, 320), 128, (128, 160)),
        ((30, 40), 45, (45, 60)),
        ((7, 3), 4, (9, 4)),
        ((1, 1), 9, (9, 9)),
    ],
)
def test_short_side_is_resized_and_the_ratio_kept(
    image_hw: tuple[int, int], short_side_px: int, expected: tuple[int, int]
) -> None:
    assert resized_hw(image_hw, short_side_px) == expected


@pytest.mark.parametrize(
    ("image_hw", "sides", "expected"),
    [
        ((375, 500), (672, 2048), (672, 896)),
        ((1024, 2048), (1024, 2048), (1024, 2048)),
        ((300, 2000), (672, 2048), (307, 2048)),  # 300 * 1.024 = 307.2
        ((2000, 300), (672, 2048), (2048, 307)),
        ((400, 500), (130, 2048), (130, 163)),  # 162.5, half a pixel up
        ((800, 1000), (800, 500), (400, 500)),
    ],
)
def test_long_side_is_capped_and_half_a_pixel_rounded_up_in_evaluation(
    image_hw: tuple[int, int], sides: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_hw(image_hw, *sides, half_up=True) == expected
