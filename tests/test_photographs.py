"""Real photographs from spec to report: labelled street scenes, and those that libraries carry."""

import csv
import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from shutil import copy

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from spar_bench.cli import main

SPEC = Path(__file__).parent / "specs" / "camvid.yaml"
CAMVID = os.environ.get("SPAR_BENCH_CAMVID")
"""A folder that is not ours to distribute: CamVid as a `folder` data set, and `clip/`, an open_clip
model of its classes."""

LIBRARIES = {
    "skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}

DISTIL = """\
question: Can photographs without labels teach?
images: {{source: {{path: {photographs}}}, count: 12, short_side_px: [96, 160]}}
teacher: {{window_px: 64, stride_px: 28}}
student: {{epochs: 6, learning_rate: 1.0e-3, schedule: one_cycle, trainable: all}}
evaluate:
  datasets: [{{name: patchwork, count: 2}}]
  methods: [pretrained, student]
measure: {{latency: false}}
"""


def run(*arguments: str) -> str:
    """Run a command that must succeed, and return what it printed."""
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID, reason="needs CamVid: SPAR_BENCH_CAMVID=/data/camvid")
def test_finer_strides_read_street_photographs_better_and_students_catch_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAR_BENCH_CAMVID", os.path.abspath(str(CAMVID)))
    monkeypatch.chdir(tmp_path)

    n_threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else os.cpu_count()
    run("sweep", str(SPEC), "--threads", str(n_threads))
    run("report", "camvid")

    with (tmp_path / "reports" / "camvid" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    teacher = {int(r["stride_px"]): float(r["miou"]) for r in rows if r["method"] == "teacher"}
    student = {r["trainable"]: float(r["miou"]) for r in rows if r["method"] == "student"}
    [pretrained] = {float(row["miou"]) for row in rows if row["method"] == "pretrained"}
    assert all(teacher[128] < teacher[stride] for stride in (64, 56, 40, 32, 24, 16))
    assert teacher[40] > teacher[32]
    assert teacher[24] > teacher[16]
    assert pretrained < 0.5 * teacher[128]
    assert pretrained + 0.1 < student["last_2_blocks"] < student["all"] < teacher[24]
    assert exported_and_imported(n_threads) == student["all"]


def exported_and_imported(n_threads: int | None) -> float:
    """Return the mIoU of the student of all weights, out as open_clip's and in as the authors'."""
    run("datasets", "check", "folder", "--path", os.environ["SPAR_BENCH_CAMVID"], "--all")
    run("export", "camvid/trainable=all,seed=0", "--format", "timm", "--to", "as_timm")
    run("export", "camvid/trainable=all,seed=0", "--format", "open_clip", "--to", "as_open_clip")
    state = load_file("as_open_clip/open_clip_model.safetensors")
    named = {f"segmentor.net.model.{name}": value for name, value in state.items()}
    torch.save({"state_dict": named, "epoch": 8}, "spar.ckpt")
    clip = os.environ["SPAR_BENCH_CAMVID"] + "/clip"
    run("import", "spar.ckpt", "--backbone", "openclip", "--path", clip)
    settings = SPEC.read_text().partition("\nsweep:")[0]
    settings = re.sub("student: .*", "student: {checkpoint: spar.ckpt}", settings)
    Path("imported.yaml").write_text(settings + "\n  methods: [student]\n")

    run("sweep", "imported.yaml", "--threads", str(n_threads))
    run("report", "imported")

    with Path("reports/imported/results.csv").open() as file:
        [row] = csv.DictReader(file)
    return float(row["miou"])


@pytest.mark.slow
def test_photographs_that_libraries_carry_teach_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for library, names in LIBRARIES.items():
        found = find_spec(library)
        assert found is not None
        assert found.origin is not None
        for name in names:
            copy(Path(found.origin).parent / name, photographs)
    spec = tmp_path / "photographs.yaml"
    spec.write_text(DISTIL.format(photographs=photographs))

    run("sweep", str(spec))
    run("report")

    [curve] = (tmp_path / ".spar_bench" / "stages" / "student").glob("*/curve.json")
    losses = [loss for _, loss, _ in json.loads(curve.read_text())]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert (tmp_path / "reports" / "photographs" / "table.md").is_file()
