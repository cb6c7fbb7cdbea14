"""A trial's files say what its spec says now; its pictures are drawn once."""

import csv
from pathlib import Path

import pytest

from spar_bench import report
from spar_bench.conflicts import read_spec
from spar_bench.resolve import Resolver
from spar_bench.session.collect import Collector
from spar_bench.session.planning import lay_out
from spar_bench.session.records import results, trial_record
from spar_bench.store import Store
from tests.datasets.trees import make
from tests.small import UNTIMED, copy_store, write_spec


def artifacts(path: str) -> dict[str, Path]:
    """Return the files of the first trial of a spec that has been swept."""
    loaded, store = read_spec(Path(path)), Store(Path(".spar_bench"))
    plan = lay_out(loaded, store, [0], Resolver())
    return trial_record(Collector(loaded.experiment, plan, store), plan.trials[0]).artifacts


def datasets(table: Path) -> set[str]:
    """Return the data sets that a per-class table has lines of."""
    return {line["dataset"] for line in csv.DictReader(table.read_text().splitlines())}


def test_table_has_the_label_that_the_spec_has_now(here: Path, swept: Path) -> None:
    path = Path(copy_store(swept))
    before = artifacts(str(path))
    path.write_text(path.read_text().replace("name: patchwork,", "name: patchwork, label: scenes,"))

    after = artifacts(str(path))

    assert datasets(before["per_class.csv"]) == {"patchwork"}
    assert datasets(after["per_class.csv"]) == {"scenes"}
    assert before["panel.png"] != after["panel.png"]


def test_pictures_are_drawn_once_and_anew_where_the_drawing_was_cut_short(
    here: Path, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, drawn = copy_store(swept), []
    first = artifacts(path)
    monkeypatch.setattr(report, "draw_panel", lambda *_: drawn.append("panel"))

    again = artifacts(path)
    n_drawn = len(drawn)
    first["panel.png"].unlink()
    artifacts(path)

    assert (again, n_drawn, drawn) == (first, 0, ["panel"])


def test_background_is_called_so_and_not_by_the_first_thing_seen_in_it(here: Path) -> None:
    make("voc21", here / "data", n=1)
    spec = write_spec(UNTIMED.replace("{name: patchwork, count: 2}", "voc21"))
    loaded, store = read_spec(Path(spec)), Store(Path(".spar_bench"))
    collector = Collector(loaded.experiment, lay_out(loaded, store, [0], Resolver()), store)

    found = results(collector, question="", spec_hash="", seeds=[0], objectives={})

    names = found.classes[found.rows[0].classes]
    assert names[:3] == ["background", "aeroplane", "bicycle"]
