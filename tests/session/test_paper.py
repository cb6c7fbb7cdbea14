"""Which rows of a sweep the paper's numbers are about, and what keeps them from being compared."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from spar_bench.conflicts import read_spec
from spar_bench.plan.making import make_plan
from spar_bench.published import published
from spar_bench.resolve import Resolver
from spar_bench.results import Matched
from spar_bench.session.paper import matched

PAPER = Path(__file__).parents[2] / "experiments" / "paper"


def matches(name: str, **changes: Any) -> list[Matched]:
    """Plan one of the paper's specs with changes of its settings; return what its rows match."""
    Path("experiments").mkdir(exist_ok=True)
    path = Path(shutil.copy(PAPER / f"{name}.yaml", "experiments"))
    yaml = YAML()
    stated = yaml.load(path.read_text())
    for key, value in changes.items():
        part, name_of_setting = key.split("__")
        stated[part][name_of_setting] = value
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


def student_of(one: Matched) -> tuple[str | None, str | None]:
    number = published("resolution_figure")[one.number]
    return number.trainable, number.images


def test_a_checkpoint_counts_as_what_the_spec_says_of_its_training(bare: Path) -> None:
    Path("spar.ckpt").touch()

    found = [
        one
        for one in matches("resolution_figure", student__checkpoint="spar.ckpt")
        if one.method == "student"
    ]

    of_groups: dict[str, set[tuple[str | None, str | None]]] = {}
    for one in found:
        of_groups.setdefault(one.group, set()).add(student_of(one))
    assert sorted(of_groups.values(), key=str) == [
        {("all", "sa1b_25k")}, {("all", "sa1b_25k_extended")}, {("last_2_blocks", "sa1b_25k")},
    ]  # fmt: skip
    assert [one.departures for one in found if one.departures] == []


def test_a_checkpoint_of_another_stride_is_about_no_number(bare: Path) -> None:
    Path("spar.ckpt").touch()

    found = matches("stride_figure", student__checkpoint="spar.ckpt", teacher__stride_px=32)

    assert [one for one in found if one.method == "student"] == []


@pytest.mark.parametrize(
    ("changes", "departure"),
    [
        ({"teacher__window_px": 384}, "windows of 384 px, not 512"),
        ({"images__count": 100}, "distilled on 100 images of sa1b, not 25,000 of sa1b"),
        ({"student__loss": "cosine"}, "the loss cosine, not mse"),
        ({"student__epochs": 3}, "another epochs of the student"),
        ({"evaluate__templates": ["a {}."]}, "another templates on cityscapes"),
        (
            {"evaluate__datasets": [{"name": "cityscapes", "count": 5}]},
            "5 of 500 images of cityscapes",
        ),
    ],
)
def test_what_departs_from_the_paper_is_named(
    bare: Path, changes: dict[str, Any], departure: str
) -> None:
    found = matches("stride_figure", **changes)

    about = [
        one for one in found if published("stride_figure")[one.number].quantity == "miou_percent"
    ]
    assert any(departure in one.departures for one in about)
    assert all(one.departures == [] for one in found if one not in about)
