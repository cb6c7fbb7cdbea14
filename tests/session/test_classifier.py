"""`evaluate.classifier` in an experiment: a probe beside class names, from check to MLflow."""

from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import SpecError
from spar_bench.session.sweep import Options, sweep
from tests.backbones.dinov3 import tiny as dinov3
from tests.run.tiny import write_photographs
from tests.session.test_run_records import records_of
from tests.small import UNTIMED, one_line, spar_bench, write_spec

CLASSIFIERS = """\
sweep:
  - grid: {evaluate.classifier: [text, {name: linear, count: 12, batch: 4, learning_rate: 0.02}]}
    set: {evaluate.methods: [pretrained, teacher]}
"""
LINEAR = "sweep:\n  - set: {evaluate.classifier: linear, evaluate.methods: [pretrained]}\n"
CHANCE = 1 / 14
"""What equally likely labels reach on patchwork's 14 classes is less than this."""


def test_probe_and_class_names_share_a_table_and_the_probe_is_far_above_chance(
    here: Path,
) -> None:
    larger = UNTIMED.replace("short_side_px: [72]", "short_side_px: [160]")
    spec = write_spec(larger + CLASSIFIERS)

    found = sweep(Path(spec), Options(device="cpu"))
    spar_bench("report", "tiny")

    assert [(row.classifier, row.method) for row in found.rows] == [
        (classifier, method)
        for classifier in ("text", "linear")
        for method in ("pretrained", "teacher")
    ]
    assert min(row.miou or 0 for row in found.rows) > 5 * CHANCE
    table = (here / "reports" / "tiny" / "table.md").read_text()
    assert "| Method | Classifier |" in table
    assert table.count("| linear |") == table.count("| text |") == 2
    assert "a linear probe of count 12, flip 0.5, optimiser adamw" in table
    assert spar_bench("explain", f"tiny/{found.rows[-1].trial}").stdout.count("linear_probe ") == 4


@pytest.mark.usefixtures("here")
def test_runs_in_mlflow_have_the_settings_of_their_own_classifier() -> None:
    spec = write_spec(UNTIMED + CLASSIFIERS)
    sweep(Path(spec), Options(device="cpu"))

    records = records_of(spec)

    params = {record.rows[0].classifier: record.params for record in records}
    named = {key for key in params["linear"] if key.startswith("evaluate.classifier")}
    assert {"evaluate.classifier.name", "evaluate.classifier.epochs"} < named
    assert "evaluate.templates" not in params["linear"]
    assert not any(key.startswith("evaluate.classifier") for key in params["text"])
    assert "evaluate.templates" in params["text"]


def test_data_set_without_training_masks_is_refused_in_one_line(here: Path) -> None:
    write_photographs(here / "noise")
    text = UNTIMED.replace("[{name: patchwork, count: 2}]", "[{path: noise}]") + LINEAR
    spec = write_spec(text)

    checked = spar_bench("check", "--ready", spec, exits=2)
    swept = spar_bench("sweep", spec, "--device", "cpu", exits=2)

    line = (
        "evaluate.classifier: a linear probe must have labelled training images, but data set "
        "folder has no train_masks/ in noise; add what lacks, or use text"
    )
    assert line in checked.stdout
    assert line in one_line(swept)


def test_backbone_without_a_text_tower_is_scored_by_a_probe(here: Path) -> None:
    dinov3.write(here / "small")
    card = here / "small" / "small.yaml"
    card.write_text(card.read_text() + "has_text: false\n")
    backbone = "backbone: {name: small/small.yaml, path: small/weights}"
    text = UNTIMED.replace("backbone: patchwork", backbone)
    recipe = "{name: linear, count: 4, epochs: 2}"
    methods = "evaluate.methods: [pretrained, teacher]"

    refused = spar_bench("check", "--ready", write_spec(text), exits=2)
    block = f"sweep:\n  - set: {{evaluate.classifier: {recipe}, {methods}}}\n"
    found = sweep(Path(write_spec(text + block)), Options(device="cpu"))

    assert "must have a text tower to be scored against class names" in refused.output
    assert [row.status for row in found.rows] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{name: text, epochs: 3}", "epochs: must be left out with text, which learns nothing, but "
         "got 3; drop it, or use linear"),
        ("knn", "name: must be one of text, linear, but got 'knn'; use one of them"),
        ("{name: linear, rate: 1}", "must be a known key, but got 'rate'"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("here")
def test_what_no_classifier_has_is_refused_in_one_line(written: str, said: str) -> None:
    text = UNTIMED.replace("evaluate:\n", f"evaluate:\n  classifier: {written}\n")

    with pytest.raises(SpecError) as told:
        read_spec(write_spec(text))

    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("here")
def test_settings_of_a_probe_can_be_swept() -> None:
    block = (
        "sweep:\n  - grid: {evaluate.classifier.learning_rate: [1.0e-3, 1.0e-2]}\n"
        "    set: {evaluate.classifier: linear}\n"
    )

    points = read_spec(write_spec(UNTIMED + block)).points

    rates = [point.settings.evaluate.classifier.learning_rate for point in points]
    assert rates == [1e-3, 1e-2]
    assert [point.group for point in points] == ["learning_rate=0.001", "learning_rate=0.01"]
