"""The store: there when complete, found damaged when not, held by one at a time."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from spar_bench.errors import StoreError
from spar_bench.files import replace_text
from spar_bench.run.context import Interrupted, ignore
from spar_bench.stage import MANIFEST, Damaged, Finished, canonical, digest
from spar_bench.stages.base import Stage
from spar_bench.store import FORMAT, Store
from tests.toy import Stage as Toy
from tests.toy import Summary, toy

STAGE = toy({"source": "ab"}, seed=0, scale=0.1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, stage: Stage = STAGE, **files: str) -> Finished:
    for name, text in (files or {"a": "first", "b": "second"}).items():
        replace_text(store.output(stage) / name, text)
    return store.finish(stage, summary=Summary(n=3), made={"device": "cpu"})


def alter_manifest(folder: Path, key: str, value: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_fingerprint_is_the_digest_of_all_that_decides_a_stage() -> None:
    class Raised(Toy):
        version: ClassVar[int] = 2

    assert STAGE.fingerprint == digest(["toy", 1, {"scale": 0.1, "seed": 0}, {"source": "ab"}])
    assert STAGE.fingerprint != Raised(settings=STAGE.settings, inputs=STAGE.inputs).fingerprint
    assert STAGE.fingerprint != toy({"source": "ab"}, seed=1).fingerprint
    assert STAGE.fingerprint != toy().fingerprint


def test_canonical_json_does_not_depend_on_order_and_has_no_nan() -> None:
    assert canonical({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_finished_stage_is_found_with_its_files_and_summary(store: Store) -> None:
    assert store.find(STAGE) is None
    made = make(store)

    found = Store(store.root).find(STAGE)

    assert found == made
    assert found is not None
    assert found.path("a").read_text() == "first"
    assert (found.summary, found.n_bytes) == ({"n": 3}, len("first") + len("second"))
    assert [one.fingerprint for one in store.finished()] == [STAGE.fingerprint]
    assert not (store.root / "scratch" / STAGE.fingerprint).exists()


def test_work_under_way_is_not_found(store: Store) -> None:
    replace_text(store.output(STAGE) / "a", "first")

    assert store.find(STAGE) is None
    assert (store.output(STAGE) / "a").read_text() == "first"


def test_leftovers_of_a_killed_writer_do_not_become_part_of_a_stage(store: Store) -> None:
    (store.output(STAGE) / ".a.123.tmp").write_text("half")

    made = make(store)

    assert sorted(made.manifest["files"]) == ["a", "b"]
    assert sorted(path.name for path in made.folder.iterdir()) == ["a", "b", MANIFEST]


WRITTEN = "must be as it was written, but"
DAMAGES: dict[str, Callable[[Path], object]] = {
    f"a: {WRITTEN} is missing": lambda folder: (folder / "a").unlink(),
    f"a: {WRITTEN} has 2 bytes instead of 5": lambda folder: (folder / "a").write_text("fi"),
    f"a: {WRITTEN} differs from its checksum": lambda folder: (folder / "a").write_text("FIRST"),
    f"manifest.json: {WRITTEN} is missing": lambda folder: (folder / MANIFEST).unlink(),
    f"manifest.json: {WRITTEN} is missing or cannot be read": lambda f: (f / MANIFEST).write_text(
        '{"kind"'
    ),
    f"manifest.json: {WRITTEN} differs from its checksum": lambda f: alter_manifest(
        f, "summary", {"n": 4}
    ),
    f"manifest.json: {WRITTEN} differs": lambda folder: (folder / MANIFEST).write_text("{}"),
    f"manifest.json: {WRITTEN} is missing or": lambda f: alter_manifest(
        f, "summary", {"n": float("nan")}
    ),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_damage_is_found_and_undone(store: Store, words: str) -> None:
    folder = make(store).folder
    DAMAGES[words](folder)

    with pytest.raises(Damaged, match=words) as caught:
        store.find(STAGE)
    assert caught.value.fingerprint == STAGE.fingerprint

    assert words in store.reopen(STAGE)
    assert store.find(STAGE) is None
    assert make(store).path("a").read_text() == "first"
    assert store.find(STAGE) is not None


def test_whole_files_of_a_damaged_stage_are_kept_as_work_under_way(store: Store) -> None:
    (make(store).folder / "a").write_text("FIRST")

    assert f"a: {WRITTEN} differs" in store.reopen(STAGE)

    output = store.output(STAGE)
    assert [path.name for path in output.iterdir()] == ["b"]


def test_without_its_manifest_no_file_of_a_stage_is_trusted(store: Store) -> None:
    (make(store).folder / MANIFEST).unlink()

    store.reopen(STAGE)

    assert list(store.output(STAGE).iterdir()) == []


def test_reopening_looks_at_every_checksum_again_and_leaves_a_whole_stage_alone(
    store: Store,
) -> None:
    folder = make(store).folder
    assert store.find(STAGE) is not None
    assert store.reopen(STAGE) == ""
    (folder / "b").write_text("SECOND")

    assert store.find(STAGE) is not None  # of equal size, and verified before
    assert f"b: {WRITTEN} differs" in store.reopen(STAGE)
    assert store.reopen(toy()) == ""


def test_large_stage_is_hashed_file_by_file_as_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.store.HASH_WHOLE_BYTES", 4)
    folder = make(store).folder
    (folder / "b").write_text("SECOND")

    found = store.find(STAGE)

    assert found is not None
    assert found.path("a").read_text() == "first"
    with pytest.raises(Damaged, match=f"b: {WRITTEN} differs"):
        found.path("b")


def test_listing_passes_over_a_damaged_manifest_and_tells_of_it(store: Store) -> None:
    whole, other = make(store), toy(seed=1)
    (make(store, other).folder / MANIFEST).write_text("{")

    assert [one.fingerprint for one in store.finished()] == [whole.fingerprint]
    assert [damage.fingerprint for damage in store.unreadable()] == [other.fingerprint]


def test_discarded_stage_is_gone_and_can_be_made_again(store: Store) -> None:
    make(store)

    store.discard(STAGE.fingerprint)

    assert store.find(STAGE) is None
    assert make(store, a="other").path("a").read_text() == "other"


def test_failure_is_kept_until_the_stage_is_made(store: Store) -> None:
    store.fail(STAGE, "no luck", outcome="failed", final=True)
    failure = Store(store.root).failure(STAGE)
    assert failure is not None
    assert failure["at_ms"] > 0
    assert {**failure, "at_ms": 0} == {
        "reason": "no luck", "outcome": "failed", "final": True, "at_ms": 0,
    }  # fmt: skip

    make(store)

    assert store.failure(STAGE) is None


def test_failure_that_cannot_be_read_is_none(store: Store) -> None:
    store.fail(STAGE, "no luck", outcome="failed", final=True)
    (store.root / "failures" / f"{STAGE.fingerprint}.json").write_text("")

    assert store.failure(STAGE) is None


def test_store_of_another_format_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text(canonical({"format": FORMAT + 1}))

    with pytest.raises(StoreError, match=f"format {FORMAT}, but is of format {FORMAT + 1}; keep"):
        Store(store.root)


def test_file_in_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError, match="must be a writable folder"):
        Store(tmp_path / "store")


def test_one_lock_is_held_by_one_at_a_time_and_the_other_is_told(store: Store) -> None:
    waited, begun, ended = list[str](), threading.Event(), list[str]()

    def second() -> None:
        with store.lock(["b", "a"], on_wait=waited.append, poll=begun.set):
            ended.append("second")

    with store.lock(["a"], on_wait=waited.append, poll=ignore):
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(10)
        ended.append("first")
    thread.join(10)

    assert (waited, ended) == (["a"], ["first", "second"])


def test_interrupt_ends_a_wait_and_lets_go_of_what_is_held(store: Store) -> None:
    def stop() -> None:
        raise Interrupted

    failures = list[BaseException]()

    def second() -> None:
        try:
            with store.lock(["a", "b"], on_wait=ignore, poll=stop):
                raise AssertionError("b is held elsewhere")
        except Interrupted as error:
            failures.append(error)

    with store.lock(["b"], on_wait=ignore, poll=ignore):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(10)
        with store.lock(["a"], on_wait=lambda _: pytest.fail("a is free"), poll=ignore):
            pass

    assert len(failures) == 1
