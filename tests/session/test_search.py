"""A search suggests its points in one order, whatever kills it, and records their scores."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import StoreError
from spar_bench.lease_files import Lease
from spar_bench.leases import Host
from spar_bench.session.search import Asked, Searcher, past_points
from spar_bench.session.study import DATABASE_VARIABLE
from spar_bench.store import Store
from tests.session.searches import STUDENTS
from tests.small import write_spec


class Killed(BaseException):
    """Ends a search in a test as kill -9 would: nothing is reported."""


@pytest.fixture(params=["tpe", "random"])
def spec(request: pytest.FixtureRequest, here: Path) -> Path:
    """Return a search over students, by either sampler."""
    return Path(write_spec(STUDENTS.replace("SAMPLER", request.param)))


def lead(spec: Path, store: Path, *, until: int = 99) -> list[str]:
    """Search with made-up scores, killed after `until` points were asked for; return all groups."""
    searcher = Searcher(read_spec(spec), Store(store))
    for n_asked, asked in enumerate(searcher, 1):
        if n_asked == until:
            break  # the point is suggested, but nothing is reported
        asked.record([asked.trial.params["student.learning_rate"] * 50])
    return [point.group for point in past_points(read_spec(spec), Store(store))]


@pytest.mark.parametrize("until", range(1, 8))
def test_search_killed_after_any_point_asks_for_the_same_points(
    spec: Path, tmp_path: Path, until: int
) -> None:
    undisturbed = lead(spec, tmp_path / "a")

    lead(spec, tmp_path / "b", until=until)
    resumed = lead(spec, tmp_path / "b")

    assert resumed == undisturbed
    assert len(set(undisturbed)) == 7
    assert undisturbed[0] == "learning_rate=0.001,epochs=4,optimiser=adamw"


@pytest.mark.parametrize("n_drawn", [0, 1, 2])
def test_search_killed_between_two_values_of_a_point_draws_the_same(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_drawn: int
) -> None:
    undisturbed = lead(spec, tmp_path / "a")
    real, left = Searcher._suggest, iter(range(3 * 3 + n_drawn))

    def suggest(self: Searcher, trial: object, key: str) -> object:
        if next(left, None) is None:
            raise Killed
        return real(self, trial, key)

    with monkeypatch.context() as patch:
        patch.setattr(Searcher, "_suggest", suggest)
        with pytest.raises(Killed):
            lead(spec, tmp_path / "b")
    resumed = lead(spec, tmp_path / "b")

    assert resumed == undisturbed


def test_journal_cut_in_the_middle_of_a_line_is_mended(spec: Path, tmp_path: Path) -> None:
    undisturbed = lead(spec, tmp_path / "a")
    lead(spec, tmp_path / "b", until=4)
    [journal] = (tmp_path / "b" / "studies").iterdir()
    with journal.open("ab") as file:
        file.write(b'{"op_code":6,"work')

    known = past_points(read_spec(spec), Store(tmp_path / "b"))
    resumed = lead(spec, tmp_path / "b")

    assert [point.group for point in known] == undisturbed[:4]
    assert resumed == undisturbed
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_looking_at_a_search_writes_nothing(spec: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    assert past_points(read_spec(spec), store) == []
    assert not (store.root / "studies").exists()


def test_finished_search_asks_for_nothing(spec: Path, tmp_path: Path) -> None:
    lead(spec, tmp_path)

    assert list(Searcher(read_spec(spec), Store(tmp_path))) == []


def test_searches_at_once_share_the_trials(spec: Path, tmp_path: Path) -> None:
    both = [iter(Searcher(read_spec(spec), Store(tmp_path))) for _ in range(2)]
    open_ = [next(one) for one in both]
    for _ in range(2):
        for index, asking in enumerate(both):
            open_[index].record([0.1 * open_[index].trial.number])
            open_[index] = next(asking)
    last = open_[1]
    open_[0].record([0.4])
    final = next(both[0])
    final.record([0.6])

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, both[0], None)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        last.record([0.5])
        assert waiting.result(timeout=20) is None

    assert next(both[1], None) is None
    assert (last.trial.number, final.trial.number) == (5, 6)
    study = Searcher(read_spec(spec), Store(tmp_path)).study
    assert [trial.value for trial in study.trials] == pytest.approx([i / 10 for i in range(7)])
    assert len({point.group for point in past_points(read_spec(spec), Store(tmp_path))}) == 7
    assert list((tmp_path / "leases").iterdir()) == []


def test_trial_of_a_search_that_was_paused_is_taken_over_and_told_once(
    spec: Path, tmp_path: Path
) -> None:
    paused = iter(Searcher(read_spec(spec), Store(tmp_path)))
    late = next(paused)
    [lease] = (tmp_path / "leases").iterdir()
    lease.unlink()

    taken = next(iter(Searcher(read_spec(spec), Store(tmp_path))))
    taken.record([0.2])
    assert late.prune_reason(2, 9.0) == ""
    late.record([0.9])

    assert (late.trial.number, taken.trial.number) == (0, 0)
    assert taken.searcher.study.trials[0].value == 0.2


def test_search_that_goes_on_on_another_host_draws_the_same_points(
    spec: Path, tmp_path: Path
) -> None:
    undisturbed = lead(spec, tmp_path / "a")
    there = Store(tmp_path / "b", lease_s=1.0, host=Host("there", "boot"))
    killed = iter(Searcher(read_spec(spec), there))
    next(killed)
    for lease in there.leases._held.values():
        assert isinstance(lease, Lease)
        lease.renew = lambda: None  # type: ignore[method-assign]

    assert lead(spec, tmp_path / "b") == undisturbed
    killed.close()


def test_database_without_its_driver_is_one_line_that_says_how_to_install_it(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv(DATABASE_VARIABLE, "postgresql+psycopg2://u:s3cret@127.0.0.1:9/x")

    with pytest.raises(StoreError, match="must be a database whose driver is installed") as caught:
        Searcher(read_spec(spec), Store(tmp_path))

    assert "u:***@127.0.0.1" in str(caught.value)
    assert "pip install -e '.[postgres]'" in str(caught.value)


def test_study_in_a_database_belongs_to_one_store(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_journal = lead(spec, tmp_path / "journal")
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path}/studies.db")

    found = [lead(spec, tmp_path / name, until=4) for name in ("a", "b")]
    assert [len(one) for one in found] == [4, 4]
    assert lead(spec, tmp_path / "a") == in_journal
    assert [path.suffix for path in (tmp_path / "a" / "studies").iterdir()] == [".json"]
    assert lead(spec, tmp_path / "journal") == in_journal
    assert [path.suffix for path in (tmp_path / "journal" / "studies").iterdir()] == [".journal"]
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path}/another.db")
    for look in (lead, lambda *_: past_points(read_spec(spec), Store(tmp_path / "a"))):
        with pytest.raises(StoreError, match="must be the database in which this search has begun"):
            look(spec, tmp_path / "a")
    monkeypatch.delenv(DATABASE_VARIABLE)
    with pytest.raises(StoreError, match=r"is in a database, sqlite:.*; set that"):
        past_points(read_spec(spec), Store(tmp_path / "a"))


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("postgresql+nodriver://a:s3cret@h/d", "must be a database that"),
        ("sqlite:////no/no.db", "must be a database that"),
        ("no", "must be a URI as"),
        ("postgresql://u:s3cret@ret@h:port/d", "must be a URI as"),
        ("x://s3cret:p@h:a/", "must be a URI as"),
    ],
)
def test_database_that_cannot_be_used_is_one_line_without_its_password(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, rule: str
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, uri)

    with pytest.raises(StoreError, match=f"^SPAR_BENCH_STUDIES: {rule}") as caught:
        Searcher(read_spec(spec), Store(tmp_path))

    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def why_pruned(asked: Asked, losses: list[float]) -> str:
    """Return why a student with these losses is pruned, or nothing."""
    reasons = (asked.prune_reason(epoch, loss) for epoch, loss in enumerate(losses, 1))
    return next(filter(None, reasons), "")


def after_three_good(spec: Path, store: Path) -> Iterator[Asked]:
    """Yield the points suggested after three points with low losses."""
    for asked in Searcher(read_spec(spec), Store(store)):
        if asked.trial.number >= 3:
            yield asked
        else:
            assert why_pruned(asked, [0.3, 0.2, 0.1]) == ""
            asked.record([0.5])


def test_student_whose_loss_lags_behind_the_median_is_pruned(spec: Path, tmp_path: Path) -> None:
    lagging = next(after_three_good(spec, tmp_path / "a"))
    leading = next(after_three_good(spec, tmp_path / "b"))

    assert "after epoch 1: its loss lags" in why_pruned(lagging, [0.9, 0.8, 0.7])
    assert why_pruned(leading, [0.2, 0.1, 0.05]) == ""


def test_kill_between_pruning_and_its_record_prunes_again(spec: Path, tmp_path: Path) -> None:
    first = why_pruned(next(after_three_good(spec, tmp_path)), [0.9])

    again = next(after_three_good(spec, tmp_path))

    assert again.trial.number == 3
    assert why_pruned(again, [0.9]) == first != ""
