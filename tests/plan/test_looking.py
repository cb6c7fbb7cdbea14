"""A plan reads each data set once, however many arms, seeds and points need it."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spar_bench.datasets.folder import Dataset
from spar_bench.errors import SparBenchError
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import DatasetSpec
from tests.plan.test_stages import fingerprints
from tests.run.tiny import of_kind, plan_of, settings, write_photographs
from tests.small import GRID, UNTIMED, spar_bench, write_spec


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often a folder is listed or stamped, and an image of it read."""
    counts: Counter[str] = Counter()

    def counted(name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Dataset, *args: Any) -> Any:
            split = args[0] if name == "list" else ""
            counts[f"{name} {split}".strip()] += 1
            return of(self, *args)

        return call

    for name, method in (("list", "_find"), ("identity", "identity"), ("read", "image")):
        monkeypatch.setattr(Dataset, method, counted(name, getattr(Dataset, method)))
    return counts


ONCE = {"list train": 1, "list val": 1, "identity": 2}


def test_plan_of_several_points_and_seeds_looks_once(
    clip: Path, photographs: Path, looks: Counter[str]
) -> None:
    points = [settings(clip, photographs, student__loss=loss) for loss in ("mse", "l1")]

    plan = plan_of(*points, seeds=(0, 1, 2))

    assert len(plan.trials) == 6
    assert looks == {**ONCE, "read": 2}


@pytest.mark.parametrize(
    ("command", "once"), [("plan", ONCE), ("check", {"list train": 1, "list val": 1})]
)
def test_command_that_plans_or_checks_looks_once(
    here: Path, looks: Counter[str], command: str, once: dict[str, int]
) -> None:
    write_photographs(here / "noise")
    text = UNTIMED.replace("source: patchwork", "source: {path: noise}")
    text = text.replace("{name: patchwork, count: 2}", "{path: noise}") + GRID

    spar_bench(command, write_spec(text))

    assert looks == {**once, "read": 2}


def test_what_is_seen_is_forgotten_with_the_plan(
    clip: Path, photographs: Path, tmp_path: Path
) -> None:
    one = settings(clip, shutil.copytree(photographs, tmp_path / "noise"))
    before = fingerprints(one)

    write_photographs(tmp_path / "noise", seed=9)

    assert fingerprints(one)["images"] != before["images"]


@pytest.mark.parametrize("kind", ["images", "evaluate"])
def test_whether_files_are_unchanged_is_looked_at_afresh(
    clip: Path, photographs: Path, tmp_path: Path, kind: str
) -> None:
    one = settings(clip, shutil.copytree(photographs, tmp_path / "noise"))
    [stage, *_] = of_kind(plan_of(one), kind)
    stage.require_unchanged(Resolver())

    write_photographs(tmp_path / "noise", seed=9)

    with pytest.raises(SparBenchError, match="must not change while a sweep runs"):
        stage.require_unchanged(Resolver())


def test_splits_and_settings_are_distinguished(photographs: Path) -> None:
    spec = DatasetSpec(name="folder", path=str(photographs))
    resolver = Resolver()
    whole, train = resolver.opened(spec, "val"), resolver.opened(spec, "train")
    first = resolver.opened(spec.model_copy(update={"count": 1}), "val")

    assert resolver.opened(spec, "val") is whole
    assert train is not whole
    assert (len(first), len(whole)) == (1, 3)
    assert Resolver().opened(spec, "val") is not whole
