"""Plug-ins of a user's own, named by the path of their file, swept from a spec to its rows."""

import csv
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import SpecError
from spar_bench.session.sweep import Options, sweep
from tests.small import UNTIMED, spar_bench, write_spec

LOSS = '''"""The mean of a power of the difference."""

VERSION = 1


def loss(student, teacher, *, power: int = 2):
    return (student - teacher).abs().pow(power).mean()
'''

DATASET = '''"""Grey boards."""

import numpy as np

from spar_bench.datasets.base import Sample
from spar_bench.patchwork.classes import CLASSES as PATCHWORK

VERSION = 1


class Dataset:
    def __init__(self, split, settings):
        self.classes = settings.classes or PATCHWORK[:2]
        self.image_hw = (64, 80)
        self._split, self._count = split, settings.count or 4

    def __len__(self):
        return self._count

    def identity(self):
        return {"split": self._split, "count": self._count}

    def image(self, index):
        return self.sample(index).image

    def sample(self, index):
        generator = np.random.default_rng([index, self._split == "train"])
        image = generator.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        return Sample(str(index), image, image[:, :, 0] // 128)
'''

REFINER = '''"""A sharper step between scores."""

VERSION = 1


class Refiner:
    def __init__(self, device, weights, *, shift: int = 0):
        self.shift = shift

    def scores(self, scores, features, guidance, out_hw):
        return scores.roll(self.shift, dims=0)
'''

BACKBONE = '''"""Of no use but its name."""

VERSION = 1


class Backbone:
    pass
'''

STUDENT = "sweep: [{grid: {%s}, set: {evaluate.methods: [student]}}]\n"


@pytest.fixture
def own(here: Path) -> Path:
    """A folder beside the spec with plug-ins in it."""
    own = here / "my"
    own.mkdir()
    for name, text in (("power", LOSS), ("boards", DATASET), ("shifted", REFINER)):
        (own / f"{name}.py").write_text(text, encoding="utf-8")
    return own


def test_loss_by_path_is_swept_with_its_settings_and_shown_by_its_stem(own: Path) -> None:
    losses = "student.loss: [mse, my/power.py, {name: my/power.py, power: 4}]"

    rows = sweep(Path(write_spec(UNTIMED + STUDENT % losses))).rows

    assert [(row.group, row.loss, row.swept["student.loss.power"]) for row in rows] == [
        ("loss=mse", "mse", None),
        ("loss=power,power=2", "power", 2),
        ("loss=power,power=4", "power", 4),
    ]
    assert rows[0].miou == rows[1].miou  # a power of 2 is the mean squared error
    assert rows[0].miou != rows[2].miou


def test_swept_setting_is_a_column_of_results_csv(own: Path) -> None:
    text = UNTIMED.replace("student: {", "student: {loss: my/power.py, ")

    spar_bench("sweep", write_spec(text + STUDENT % "student.loss.power: [2, 4]"))
    spar_bench("report", "tiny")

    with Path("reports/tiny/results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["loss"], row["student.loss.power"]) for row in rows] == [
        ("power", "2"),
        ("power", "4"),
    ]


def test_setting_that_is_written_out_is_the_same_trial_as_its_default(own: Path) -> None:
    left_out = UNTIMED + STUDENT % "student.loss: [my/power.py]"
    written_out = UNTIMED + STUDENT % "student.loss: [{name: my/power.py, power: 2}]"
    sweep(Path(write_spec(left_out)))

    outcome = sweep(Path(write_spec(written_out)))

    assert outcome.n_made == 0


def test_loss_edited_under_its_old_version_makes_its_student_again(own: Path) -> None:
    path = Path(write_spec(UNTIMED + STUDENT % "student.loss: [mse, my/power.py]"))
    before = sweep(path).rows
    (own / "power.py").write_text(LOSS.replace("= 2", "= 4"), encoding="utf-8")

    again = sweep(path)
    undisturbed = sweep(path)

    assert (again.rows[0], undisturbed.n_made) == (before[0], 0)
    assert again.rows[1].miou != before[1].miou
    assert again.n_made == 2  # the student and its evaluation


def test_data_set_and_refiner_by_path_are_used_in_worker_processes_too(own: Path) -> None:
    text = UNTIMED.replace("source: patchwork", "source: {name: my/boards.py}").replace(
        "{name: patchwork, count: 2}", "{name: my/boards.py, count: 2}"
    )
    refiners = "evaluate.refiner: [none, my/shifted.py, {name: my/shifted.py, shift: 1}]"

    rows = sweep(Path(write_spec(text + STUDENT % refiners)), Options(workers=1)).rows

    assert [(row.dataset, row.refiner, row.swept["evaluate.refiner.shift"]) for row in rows] == [
        ("boards", "none", None),
        ("boards", "shifted", 0),
        ("boards", "shifted", 1),
    ]
    assert [row.reason for row in rows] == [""] * 3
    assert rows[0].miou == rows[1].miou != rows[2].miou
    assert [row.cost.gflops is None for row in rows] == [False, True, True]  # it states no cost
    assert [row.cost.params_m is None for row in rows] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def loss(:\n", "a plug-in must be a Python file, but cannot be read: invalid syntax"),
        (LOSS.replace("VERSION = 1", ""), "a plug-in must state VERSION = <integer>"),
        (LOSS.replace("def loss", "def lose"), "a loss must define 'loss', but has none; add it"),
    ],
)
def test_file_that_is_no_plug_in_is_one_line_before_anything_runs(
    own: Path, text: str, problem: str
) -> None:
    (own / "power.py").write_text(text, encoding="utf-8")
    spec = write_spec(UNTIMED + "sweep: [{set: {student.loss: my/power.py}}]\n")

    with pytest.raises(SpecError) as caught:
        sweep(Path(spec))

    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{spec}:11:30: student.loss: my/power.py: {problem}")


@pytest.mark.parametrize(
    ("key", "value", "place", "other"),
    [
        ("student.loss", "my/power.py, other/power.py", "11:45", "my/power.py"),
        ("student.loss", "{name: my/power.py}, ./my/power.py", "11:53", "my/power.py"),
        ("student.loss", "my/mse.py", "11:32", "mse"),
        ("evaluate.refiner", "my/shifted.py, {name: other/shifted.py}", "11:58", "my/shifted.py"),
        ("backbone.name", "my/tiny.py, other/tiny.py", "11:45", "my/tiny.py"),
    ],
)
def test_two_plug_ins_that_tables_show_by_one_name_are_refused(
    own: Path, key: str, value: str, place: str, other: str
) -> None:
    (own.parent / "other").mkdir()
    for name, text in (("power", LOSS), ("mse", LOSS), ("shifted", REFINER), ("tiny", BACKBONE)):
        for folder in ("my", "other"):
            Path(folder, f"{name}.py").write_text(text, encoding="utf-8")
    path = write_spec(UNTIMED + f"sweep: [{{grid: {{{key}: [{value}]}}}}]\n")

    with pytest.raises(SpecError) as caught:
        read_spec(path)

    got = value.rpartition(", ")[2].removeprefix("{name: ").removesuffix("}")
    at = f"{key}.name" if value.endswith("}") else key
    assert str(caught.value) == (
        f"{path}:{place}: {at}: must be shown by a name of its own, but got {got!r} beside "
        f"{other!r}, which tables show alike; rename one"
    )


def test_two_data_sets_of_one_file_name_are_refused_unless_one_has_a_label(own: Path) -> None:
    Path("other").mkdir()
    Path("other/boards.py").write_text(DATASET.replace("128", "64"), encoding="utf-8")
    sweep = (
        "sweep: [{grid: {evaluate.datasets: [[{name: my/boards.py}], [{name: other/boards.py%s}]]},"
        " set: {evaluate.methods: [pretrained]}}]\n"
    )

    with pytest.raises(SpecError, match="same images in every point, but got 'boards' with others"):
        read_spec(write_spec(UNTIMED + sweep % ""))
    labelled = read_spec(write_spec(UNTIMED + sweep % ", label: finer"))

    assert [point.group for point in labelled.points] == ["datasets=boards", "datasets=finer"]
