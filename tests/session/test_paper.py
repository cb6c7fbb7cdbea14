"""Which rows of a sweep the paper's numbers are about, and what keeps them from being compared."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from spar_bench.conflicts import read_spec
from spar_bench.plan.making import make_plan
from spar_bench.published import published
from spar_bench.resolve import Resolver
from spar_bench.results import Matched
from spar_bench.session.paper import matched
from tests.datasets import trees

Points = list[dict[str, Any]]
PAPER = Path(__file__).parents[2] / "experiments" / "paper"


def matches(name: str, points: Points | None = None, **changes: Any) -> list[Matched]:
    """Plan one of the paper's specs, with changes of its settings or its last points.

    Returns:
        What its rows match.
    """
    Path("experiments").mkdir(exist_ok=True)
    path = Path(shutil.copy(PAPER / f"{name}.yaml", "experiments"))
    yaml = YAML()
    stated = yaml.load(path.read_text())
    for key, value in changes.items():
        part, name_of_setting = key.split("__")
        stated[part][name_of_setting] = value
    if points is not None:
        del stated["sweep"][-1]["grid" if "grid" in stated["sweep"][-1] else "cases"]
        stated["sweep"][-1]["cases"] = points
    with path.open("w") as file:
        yaml.dump(stated, file)
    loaded = read_spec(path)
    assert loaded.spec.reproduces is not None
    plan = make_plan(loaded.points, [0], None, resolver=Resolver(provisional=True))
    return matched(plan.trials, loaded.spec.reproduces)


@pytest.mark.parametrize("name", ["main_table", "stride_figure", "resolution_figure"])
def test_the_papers_own_specs_have_each_number_once_and_do_not_depart(
    bare: Path, name: str
) -> None:
    found = matches(name)

    assert {one.number for one in found} == set(range(len(published(name))))
    assert [one.departures for one in found if one.departures] == []


SPARS: Points = [
    {"student.trainable": "last_2_blocks", "student.checkpoint": "spar.ckpt"},
    {"student.trainable": "all", "student.checkpoint": "all.ckpt"},
    {
        "student.trainable": "all", "student.checkpoint": "wider.ckpt",
        "images.short_side_px": [512, 2560], "images.long_side_ratio": 1.0,
    },
]  # fmt: skip


def write_checkpoints() -> None:
    """Write files of weights of which a plan reads no more than that they are whole."""
    for point in SPARS:
        torch.save({"state_dict": {"model.x": torch.zeros(1)}}, point["student.checkpoint"])


def student_of(one: Matched) -> tuple[str | None, str | None]:
    number = published("resolution_figure")[one.number]
    return number.trainable, number.images


def test_a_checkpoint_counts_as_what_the_spec_says_of_its_training(bare: Path) -> None:
    write_checkpoints()

    found = [one for one in matches("resolution_figure", SPARS) if one.method == "student"]

    of_groups: dict[str, set[tuple[str | None, str | None]]] = {}
    for one in found:
        of_groups.setdefault(one.group, set()).add(student_of(one))
    assert sorted(of_groups.values(), key=str) == [
        {("all", "sa1b_25k")}, {("all", "sa1b_25k_extended")}, {("last_2_blocks", "sa1b_25k")},
    ]  # fmt: skip
    assert [one.departures for one in found if one.departures] == []


def test_a_checkpoint_of_another_stride_is_about_no_number(bare: Path) -> None:
    write_checkpoints()

    found = matches("stride_figure", [{"student.checkpoint": "spar.ckpt"}], teacher__stride_px=32)

    assert [one for one in found if one.method == "student"] == []


@pytest.mark.parametrize(
    ("changes", "departure"),
    [
        ({"teacher__normalise": True}, "another normalise of the teacher"),
        ({"images__crop": 0.0, "images__flip": 0.0}, "another crop, flip of the images"),
        ({"images__short_side_px": [512, 800]}, "another short_side_px of the images"),
        ({"images__count": 100}, "distilled on 100 images of sa1b, not 25,000 of sa1b"),
        ({"student__loss": "cosine"}, "the loss cosine, not mse"),
        ({"student__epochs": 3}, "another epochs of the student"),
        ({"evaluate__templates": ["a {}."]}, "another templates on cityscapes"),
    ],
)
def test_what_departs_from_the_paper_is_named(
    bare: Path, changes: dict[str, Any], departure: str
) -> None:
    found = matches("stride_figure", **changes)

    numbers = published("stride_figure")
    about = [one for one in found if numbers[one.number].quantity == "miou_percent"]
    assert any(departure in one.departures for one in about)
    assert all(one.departures == [] for one in found if one not in about)


def test_a_part_of_a_data_set_departs_by_its_number_of_images(bare: Path) -> None:
    trees.make("voc21", Path("data"), n=2)

    found = matches("main_table")

    numbers = published("main_table")
    departs = {numbers[one.number].dataset: one.departures for one in found if one.departures}
    reasons = [f"2 of 1449 images of {name}" for name in ("voc21", "voc20")]  # the same images
    assert departs == {"voc21": reasons[:1], "voc20": reasons[1:], "mean6": reasons}


@pytest.mark.parametrize("points", [None, SPARS])
def test_windows_of_another_size_are_not_the_papers_teacher(
    bare: Path, points: Points | None
) -> None:
    write_checkpoints()

    found = matches("resolution_figure", points, teacher__window_px=384)

    departs = {one.method for one in found if "windows of 384 px, not 512" in one.departures}
    assert departs == ({"teacher", "student"} if points is None else {"teacher"})
