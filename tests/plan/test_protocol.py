"""The protocol: what the spec says, else the data file, else the default; one name for all rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from spar_bench.conflicts import Conflicts
from spar_bench.datasets import facts
from spar_bench.datasets._facts import Facts, ReadOutThresholds
from spar_bench.inference import Resize
from spar_bench.protocol import DeclaredProtocol, declare, resizes
from spar_bench.spec.schema import DatasetSpec, EvaluateSpec, Settings
from spar_bench.stages import evaluate
from tests.datasets import trees
from tests.run.tiny import of_type, plan_of, settings, write_clip

READ_OUTS = ["maskclip", "attention_pool_values", "patch_tokens"]
OWN = Facts(
    short_side_px=672,
    long_side_px=2048,
    logit_scale=65,
    by_read_out={"maskclip": ReadOutThresholds(background_threshold=0.1, area_threshold=0.2)},
)


def declared(
    spec: dict[str, Any] | None = None, own: Facts = OWN, **evaluate: Any
) -> DeclaredProtocol:
    dataset = DatasetSpec.model_validate({"name": "patchwork", **(spec or {})})
    asked = EvaluateSpec.model_validate(evaluate)
    return declare(asked, dataset, own, classes=[["sky"], ["road"]], resize=Resize(672, 2048))


@pytest.mark.parametrize("read_out", READ_OUTS)
@pytest.mark.parametrize(
    ("name", "sides", "scale", "thresholds", "of_maskclip"),
    [
        # Typed by hand from the paper's configs: background, then area.
        ("voc21", (672, 2048), 65, (0, 0), (0.1, 0.1)),
        ("voc20", (672, 2048), 40, (0, 0), (0, 0)),
        ("cityscapes", (1024, 2048), 40, (0, 0), (0, 0)),
        ("ade20k", (672, 2048), 40, (0, 0), (0, 0)),
        ("context60", (672, 2048), 50, (0.1, 0), (0.1, 0)),
        ("context59", (672, 2048), 40, (0, 0), (0, 0)),
    ],
)
def test_papers_settings_hold_by_default(
    name: str,
    sides: tuple[int, int],
    scale: float,
    thresholds: tuple[float, float],
    of_maskclip: tuple[float, float],
    read_out: str,
) -> None:
    spec, own = DatasetSpec(name=name), facts(DatasetSpec(name=name))

    [resize] = resizes(EvaluateSpec(), own)
    stated = declare(EvaluateSpec(), spec, own, classes=own.classes or [], resize=resize)
    found = stated.resolved(read_out)

    background, area = of_maskclip if read_out == "maskclip" else thresholds
    assert resize == sides
    assert found.model_dump() == {
        "templates": "openclip_80",
        "logit_scale": scale,
        "background_threshold": background,
        "area_threshold": area,
        "resize": "bilinear",
        "long_side_px": 2048,
        "precision": "float32",
        "unreadable": "error",
    }


def test_data_set_without_a_data_file_has_the_defaults() -> None:
    own = facts(DatasetSpec(name="patchwork"))

    assert resizes(EvaluateSpec(), own) == [(256, None)]
    found = declared(own=own).resolved("maskclip")
    assert found.logit_scale == 40
    assert (found.background_threshold, found.area_threshold) == (0, 0)


@pytest.mark.parametrize(
    ("spec", "evaluate", "own", "expected"),
    [
        ({}, {}, None, 40),
        ({}, {}, 65, 65),
        ({}, {"logit_scale": 50}, 65, 50),
        ({"logit_scale": 30}, {"logit_scale": 50}, 65, 30),
    ],
)
def test_logit_scale_is_the_first_that_is_stated(
    spec: dict[str, Any], evaluate: dict[str, Any], own: float | None, expected: float
) -> None:
    assert declared(spec, Facts(logit_scale=own), **evaluate).logit_scale == expected


def test_threshold_of_the_spec_goes_before_that_of_the_read_out() -> None:
    usual, given = declared(), declared({"area_threshold": 0.0})
    other = declared({"background_threshold": 0.3, "area_threshold": 0.4})

    def thresholds(protocol: DeclaredProtocol, read_out: str) -> tuple[float, float]:
        found = protocol.resolved(read_out)
        return found.background_threshold, found.area_threshold

    assert [thresholds(usual, r) for r in READ_OUTS] == [(0.1, 0.2), (0, 0), (0, 0)]
    assert [thresholds(given, r) for r in READ_OUTS] == [(0.1, 0), (0, 0), (0, 0)]
    assert [thresholds(other, r) for r in READ_OUTS] == [(0.3, 0.4)] * 3
    assert other.by_read_out == {}


def test_rows_of_all_read_outs_are_of_one_protocol_and_others_of_another() -> None:
    name = declared().name

    assert declared().name == name
    for spec, asked in (
        ({"area_threshold": 0.3}, {}),
        ({"templates": ["a {}."]}, {}),
        ({}, {"logit_scale": 40}),
        ({}, {"precision": "bfloat16"}),
        ({}, {"unreadable": "skip"}),
    ):
        assert declared(spec, **asked).name != name


def test_number_is_the_short_side_without_a_cap_and_own_the_data_sets_rule() -> None:
    asked = EvaluateSpec(short_side_px=["own", 336, 1024])

    assert resizes(asked, OWN) == [(672, 2048), (336, None), (1024, None)]
    assert resizes(EvaluateSpec(short_side_px=[256, "own"]), Facts()) == [(256, None)]
    assert Resize(672, 2048).of((300, 2000, 3)) == (307, 2048)
    assert Resize(672).of((300, 2000, 3)) == (672, 4480)


def test_number_that_would_be_one_column_with_the_own_rule_is_a_mistake() -> None:
    def told(*short_side_px: int | str) -> list[str]:
        evaluate = {"datasets": ["patchwork", "voc21"], "short_side_px": list(short_side_px)}
        asked = Settings.model_validate({"evaluate": evaluate})
        return [conflict.text for conflict in Conflicts()(asked)]

    assert told("own", 256, 672) == [
        "must differ from the short side of voc21's own rule where own is also given, but got "
        "672, which has no cap of 2048 px; drop one"
    ]
    assert told("own", 256) == told(256, 672) == []


def test_plan_of_a_published_data_set_reads_it_at_its_own_resolution(
    clip: Path, photographs: Path, tmp_path: Path
) -> None:
    root = trees.make("voc21", tmp_path, n=2, hw=(24, 96))
    one = settings(
        clip,
        photographs,
        evaluate={"datasets": [{"name": "voc21", "path": str(root)}], "methods": ["pretrained"]},
    )

    plan = plan_of(one)

    [row] = plan.trials[0].rows
    stage = plan.stages[row.evaluate]
    assert (row.short_side_px, row.image_hw) == (672, (512, 2048))  # 24 x 96 by 21.33
    assert isinstance(stage, evaluate.Stage)
    assert stage.settings.short_side_px == 672
    assert stage.settings.protocol == row.protocol.resolved("maskclip")
    assert stage.settings.protocol.area_threshold == 0.1


@pytest.mark.parametrize(
    ("asked", "stated", "found"),
    [
        ("bilinear", "bicubic", "bilinear"),
        ("bicubic", "bilinear", "bicubic"),
        ("model", "bilinear", "bilinear"),
        ("model", None, "bicubic"),
    ],
)
def test_images_are_resampled_as_asked_or_as_the_backbones_config_says(
    tmp_path: Path, photographs: Path, asked: str, stated: str | None, found: str
) -> None:
    folder = write_clip(tmp_path / "clip")
    if stated is not None:
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["preprocess_cfg"] = {"interpolation": stated}
        (folder / "open_clip_config.json").write_text(json.dumps(config))

    plan = plan_of(settings(folder, photographs, evaluate__resize=asked))

    evaluations = of_type(plan, evaluate.Stage)
    assert {stage.settings.protocol.resize for stage in evaluations} == {found}


def test_class_names_leave_no_trace_of_a_classifier_in_a_protocol() -> None:
    dumped = declared().model_dump(mode="json")

    assert "classifier" not in dumped
    assert declared(classifier="text").name == declared().name
    # As before there was a choice: names in tables stay those of older reports.
    assert declared().name == "8ba86cc8"


def test_recipe_of_a_probe_is_part_of_its_protocol_and_prompts_are_not() -> None:
    plain = declared(classifier="linear")
    others = [
        declared(classifier={"name": "linear", "epochs": 3}),
        declared(classifier="linear", precision="bfloat16"),
    ]
    same = declared({"logit_scale": 7}, classifier="linear", templates=["a {}."], logit_scale=3)

    assert len({one.name for one in (plain, declared(), *others)}) == 4
    assert same.name == plain.name
    assert (plain.templates, plain.logit_scale) == (None, 1.0)


def test_thresholds_of_a_data_file_are_for_class_names_and_those_of_a_spec_for_a_probe_too() -> (
    None
):
    plain = declared(classifier="linear")
    stated = declared({"background_threshold": 0.3}, classifier="linear").resolved("maskclip")

    assert plain.by_read_out == {}
    assert plain.resolved("maskclip").area_threshold == 0
    assert (stated.background_threshold, stated.area_threshold) == (0.3, 0)
