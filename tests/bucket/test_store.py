"""A store that shares a bucket: what one machine has finished, every other has."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from spar_bench.bucket.store import BucketStore
from spar_bench.errors import LeaseLost, StoreError
from spar_bench.failures import Failure
from spar_bench.files import replace_text
from spar_bench.run.context import ignore
from spar_bench.stage import MANIFEST, Damaged, Finished
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.bucket.machines import (
    KEY,
    STAGE,
    emptied,
    finish,
    finish_held,
    machine,
    objects,
)
from tests.toy import toy

__all__ = ["emptied"]

OTHER = toy({"source": "ab"}, seed=1, scale=0.1)


@pytest.fixture
def one(tmp_path: Path) -> BucketStore:
    return machine(tmp_path, "one")


@pytest.fixture
def two(tmp_path: Path) -> BucketStore:
    return machine(tmp_path, "two")


def found(store: Store, stage: Stage = STAGE) -> Finished:
    """Return a stage that must be there."""
    stage_there = store.find(stage)
    assert stage_there is not None
    return stage_there


def spoil(name: str) -> None:
    """Alter the bytes of an object, but not its size."""
    system = fsspec.filesystem("memory")
    content = system.cat_file(f"/bucket/store/{name}")
    system.pipe_file(f"/bucket/store/{name}", content[:-1] + b"?")


def noting(asked: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that notes each of its calls."""

    def noted(*given: object) -> Any:
        asked.append(name)
        return call(*given)

    return noted


def file_of(made: Finished, name: str) -> str:
    """Return the object of a stage's file."""
    return f"files/{made.fingerprint}/{made.manifest['files'][name]['sha256']}"


def test_stage_of_another_machine_is_found_and_its_files_come_when_they_are_read(
    one: BucketStore, two: BucketStore
) -> None:
    assert two.find(STAGE) is None
    made = finish(one)

    there = found(two)

    assert (there.summary, there.manifest, there.n_bytes) == (made.summary, made.manifest, 11)
    assert there.fingerprint == STAGE.fingerprint
    assert two.has(STAGE)
    assert two.find_by_fingerprint(STAGE.fingerprint) == there
    assert two.opened(*KEY) == there
    assert not there.folder.exists()
    assert there.place == f"memory://bucket/store/stages/toy/{STAGE.fingerprint}"

    assert there.path("a").read_text() == "first"

    assert there.path("a").parent == two.root.joinpath("stages", *KEY)
    assert found(two) == Store(two.root).find(STAGE)
    for path in made.folder.iterdir():
        assert (there.folder / path.name).read_bytes() == path.read_bytes()
    assert list((two.root / "scratch").iterdir()) == list((two.root / "leases").iterdir()) == []


def test_stage_is_in_the_bucket_before_it_is_here(
    one: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("no answer")

    with one.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        with monkeypatch.context() as patch:
            patch.setattr(one.bucket, "create", fail)
            with pytest.raises(StoreError, match="no answer"):
                finish_held(one)
        assert one.find(STAGE) is None
        assert (one.output(STAGE) / "a").read_text() == "first"
        finish_held(one)
    assert objects("stages") == {f"stages/toy/{STAGE.fingerprint}"}
    assert objects("leases") == set()


def test_of_two_machines_that_make_a_stage_the_first_publishes_and_the_other_takes_that(
    one: BucketStore, two: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two may that took one dead lease in the same instant."""
    finish(one, a="first of one", b="same")
    monkeypatch.setattr(two.leases, "require", ignore)
    two.output(STAGE)

    mine = finish_held(two, a="other", b="same")

    assert mine.path("a").read_text() == "first of one"
    assert {path.name for path in mine.folder.iterdir()} == {"a", "b", MANIFEST}
    assert len(objects("files")) == 2
    assert list((two.root / "scratch").iterdir()) == []


def test_machine_that_was_replaced_publishes_nothing(one: BucketStore, two: BucketStore) -> None:
    with one.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        one.bucket.delete(f"leases/{STAGE.fingerprint}")
        with (
            two.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore),
            pytest.raises(LeaseLost),
        ):
            finish_held(one)
    assert objects("stages") == objects("files") == set()


def test_whoever_is_to_make_a_stage_looks_whether_it_has_just_been_made(
    one: BucketStore, two: BucketStore
) -> None:
    two._there.age_s = 3600.0
    assert two.find(STAGE) is None
    finish(one)
    assert two.find(STAGE) is None

    with two.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        assert found(two).summary == {"n": 3}
    assert found(two).summary == {"n": 3}


def test_bucket_is_asked_once_for_many_stages(
    one: BucketStore, two: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(10):
        finish(one, toy({"source": "ab"}, seed=seed, scale=0.1))
    two._there.age_s = two.leases._far.age_s = two.failures._there.age_s = 3600.0
    asked = list[str]()
    for name in ("versions", "read", "names", "has", "manifests"):
        monkeypatch.setattr(two.bucket, name, noting(asked, name, getattr(two.bucket, name)))
    for name in ("versions", "read", "names", "has", "manifests"):
        call = getattr(two.leases._bucket, name)
        monkeypatch.setattr(two.leases._bucket, name, noting(asked, name, call))
    for seed in range(20):
        stage = toy({"source": "ab"}, seed=seed, scale=0.1)
        two.find(stage), two.has(stage), two.failure(stage), two.is_being_made(stage.fingerprint)

    assert sorted(asked) == ["manifests", "versions", "versions", "versions"]


@pytest.mark.parametrize("spoiled", [b"FIRST", b"", None])
def test_damaged_copy_is_replaced_by_what_is_in_the_bucket(
    one: BucketStore, two: BucketStore, spoiled: bytes | None
) -> None:
    finish(one)
    path = found(two).path("a")
    path.unlink()
    if spoiled is not None:
        path.write_bytes(spoiled)

    again = machine(two.root.parent, "two")

    assert found(again).path("a").read_text() == "first"
    assert list((two.root / "scratch").iterdir()) == []


@pytest.mark.parametrize("name", ["a", MANIFEST])
def test_stage_that_is_damaged_in_the_bucket_is_made_again(
    one: BucketStore, two: BucketStore, name: str
) -> None:
    made = finish(one)
    shutil.rmtree(one.root)
    spoil(f"stages/toy/{STAGE.fingerprint}" if name == MANIFEST else file_of(made, name))
    assert len(list(two.unreadable())) == (name == MANIFEST)

    with pytest.raises(Damaged, match=r"differs from its checksum|is no JSON") as caught:
        found(two).path("a")
    assert caught.value.fingerprint == STAGE.fingerprint
    with pytest.raises(LeaseLost):
        two.reopen(STAGE)
    with two.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        assert str(caught.value) == two.reopen(STAGE)
        assert two.find(STAGE) is None
        finish_held(two)

    back = machine(one.root.parent, "three")
    assert found(back).path("a").read_text() == "first"


@pytest.mark.parametrize("most", [1, 4])
def test_many_stages_of_many_files_are_found_though_few_fit_into_memory(
    one: BucketStore, two: BucketStore, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("spar_bench.shelf._MOST_FILES_OPEN", most)
    stages = [toy({"source": "ab"}, seed=seed, scale=0.1) for seed in range(6)]
    for stage in stages:
        finish(one, stage)

    assert [two.has(stage) for stage in stages * 2] == [True] * 12


def test_copy_that_another_machine_has_deleted_from_the_bucket_is_put_back_by_a_sweep(
    one: BucketStore, two: BucketStore
) -> None:
    made = finish(one)
    two.discard(STAGE.fingerprint)
    assert found(one).manifest == made.manifest
    assert objects("stages") == set()

    with one.in_use(on_wait=ignore, poll=ignore):
        assert found(one).manifest == made.manifest

    assert found(two).path("a").read_text() == "first"


def test_stage_that_is_intact_is_not_made_again(one: BucketStore, two: BucketStore) -> None:
    made = finish(one)
    with two.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        assert two.reopen(STAGE) == ""
    assert found(two).manifest == made.manifest
    with two.lock([OTHER.fingerprint], on_wait=ignore, poll=ignore):
        assert two.reopen(OTHER) == ""


def test_all_finished_stages_are_listed_and_checked_without_copying_them(
    one: BucketStore, two: BucketStore
) -> None:
    made = finish(one)
    finish(two, OTHER)

    stages = {stage.fingerprint: stage for stage in two.finished("toy")}

    assert set(stages) == {STAGE.fingerprint, OTHER.fingerprint}
    assert list(two.finished("other")) == []
    stages[STAGE.fingerprint].check(hashed=True)
    spoil(file_of(made, "b"))
    with pytest.raises(Damaged, match="differs from its checksum"):
        stages[STAGE.fingerprint].check(hashed=True)
    assert not stages[STAGE.fingerprint].folder.exists()


def test_stage_is_discarded_here_and_there_unless_it_is_being_made(
    one: BucketStore, two: BucketStore
) -> None:
    finish(one)
    found(two).path("a")
    with one.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        two.discard(STAGE.fingerprint)
        assert two.has(STAGE)

    two.discard(STAGE.fingerprint)

    assert not two.has(STAGE)
    assert objects("stages") == objects("files") == objects("leases") == set()
    two.discard(STAGE.fingerprint)


def test_failure_is_known_on_every_machine_until_the_stage_is_made(
    one: BucketStore, two: BucketStore
) -> None:
    with one.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        one.failures.say(STAGE.fingerprint, "cpu", "loss is nan")
        one.fail(STAGE, "no luck", outcome="failed", final=True, where="cpu (one)")

    failure = two.failure(STAGE)

    assert isinstance(failure, Failure)
    assert (failure.reason, failure.final, failure.where) == ("no luck", True, "cpu (one)")
    assert "loss is nan" in two.failures.said(STAGE.fingerprint)[-1]
    finish(two)
    assert objects("failures") == set()
    assert one.failure(STAGE) is None  # though its record lies here
    assert machine(one.root.parent, "three").failure(STAGE) is None


def test_failure_that_is_final_elsewhere_counts_more_than_one_here_that_is_not(
    one: BucketStore, two: BucketStore
) -> None:
    for store, final in ((one, False), (two, True)):
        with store.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
            store.fail(STAGE, f"by {store.root.name}", outcome="failed", final=final)
        failure = one.failure(STAGE)
        assert failure is not None
        assert (failure.reason, failure.final) == (f"by {store.root.name}", final)


def test_results_are_in_the_bucket_once_a_sweep_has_ended(
    one: BucketStore, two: BucketStore, tmp_path: Path
) -> None:
    assert not two.results.exists()
    with one.in_use(on_wait=ignore, poll=ignore):
        replace_text(one.results / "paper/table/results.json", "1")
        replace_text(one.results / "tiny/results.json", "2")
        assert objects("results") == set()
        one.share_results()
        assert objects("results") == {
            "results/paper/table/results.json",
            "results/tiny/results.json",
        }
    with one.in_use(on_wait=ignore, poll=ignore):
        replace_text(one.results / "tiny/results.json", "3")

    three = machine(tmp_path, "three")

    assert (three.results / "paper/table/results.json").read_text() == "1"
    assert (three.results / "tiny/results.json").read_text() == "3"
    replace_text(three.root / "results/tiny/results.json", "kept")
    assert (machine(tmp_path, "three").results / "tiny/results.json").read_text() == "kept"
    with one.in_use(on_wait=ignore, poll=ignore):
        replace_text(one.results / "tiny/results.json", "4")
    assert (machine(tmp_path, "three").results / "tiny/results.json").read_text() == "4"


def test_results_outside_of_their_folder_are_refused(
    one: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one.bucket, "versions", lambda _: {"../../x.json": ""})

    with pytest.raises(StoreError, match=r"results/../../x.json: must be inside of results/"):
        _ = one.results


def test_notes_are_those_of_all(one: BucketStore, two: BucketStore) -> None:
    assert two.note("studies/x.json") is None
    one.write_note("studies/x.json", {"name": "study"})
    assert two.note("studies/x.json") == {"name": "study"}


def test_finished_work_is_not_deleted_while_another_machine_sweeps(
    one: BucketStore, two: BucketStore
) -> None:
    with (
        one.in_use(on_wait=ignore, poll=ignore),
        pytest.raises(StoreError, match=r"on one runs a sweep on it; wait until it has ended"),
        two.unused(),
    ):
        pass
    with two.unused():
        pass
    assert objects("leases") == set()


def test_reader_writes_nothing_into_the_bucket(tmp_path: Path) -> None:
    reader = machine(tmp_path, "reader", make=False)
    assert objects() == set()
    assert reader.find(STAGE) is None
    assert list(reader.finished()) == []
    assert reader.failure(STAGE) is None
    assert not reader.is_being_made(STAGE.fingerprint)
    assert objects() == set()


def test_parts_are_those_of_a_machine(one: BucketStore, two: BucketStore) -> None:
    with one.lock([STAGE.fingerprint], on_wait=ignore, poll=ignore):
        assert [store.is_being_made(STAGE.fingerprint) for store in (one, two)] == [True, True]
        assert [store.is_made_here(STAGE.fingerprint) for store in (one, two)] == [True, False]
        with one.here.hold_free(["part"]) as own:
            assert own == {"part"}
            assert objects("leases") == {f"leases/{STAGE.fingerprint}"}


def test_copy_that_another_process_has_brought_meanwhile_is_used(
    one: BucketStore, two: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(one)
    first, second = found(two), found(machine(two.root.parent, "two"))
    first.path("a")
    monkeypatch.setattr(two.bucket, "fetch", lambda *_: 1 / 0)

    assert second.path("b").read_text() == "second"


def test_what_was_begun_here_and_finished_elsewhere_is_deleted_at_the_end_of_a_sweep(
    one: BucketStore, two: BucketStore
) -> None:
    for stage in (STAGE, OTHER):
        replace_text(two.output(stage) / "a", "first")
    finish(one)

    with two.in_use(on_wait=ignore, poll=ignore):
        pass

    assert [path.name for path in (two.root / "scratch").iterdir()] == [OTHER.fingerprint]


def test_copying_goes_on_after_it_was_killed(
    one: BucketStore, two: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(one)
    monkeypatch.setattr("spar_bench.elsewhere._FILES_AT_ONCE", 1)
    read, get = list[str](), two.bucket._fs.get

    def counted(places: list[str], paths: list[str]) -> None:
        [name] = [Path(path).name for path in paths]
        read.append(name)
        if read.count("b") == 1:
            raise PermissionError("cut off")
        get(places, paths)

    monkeypatch.setattr(two.bucket._fs, "get", counted)
    with pytest.raises(StoreError, match="cut off"):
        found(two).path("a")
    assert not found(two).folder.exists()

    assert found(two).path("a").read_text() == "first"

    assert read == ["a", "b", "b"]
    assert list((two.root / "scratch").iterdir()) == []


def test_stage_that_is_gone_is_told_by_whoever_reads_it(one: BucketStore, two: BucketStore) -> None:
    finish(one)
    there = found(two)
    one.discard(STAGE.fingerprint)

    with pytest.raises(Damaged, match="is missing"):
        there.path("a")
    assert not machine(two.root.parent, "two").has(STAGE)
