"""The store: there when complete, found damaged when not, held by one at a time."""

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from pathlib import Path
from subprocess import Popen
from time import monotonic, process_time, sleep
from typing import Any, ClassVar

import pytest

import tests.toy as toys
from spar_bench.errors import LeaseLost, StoreError
from spar_bench.failures import Failure
from spar_bench.files import replace_text
from spar_bench.leases import Host
from spar_bench.run.context import ignore
from spar_bench.stage import MANIFEST, Damaged, Finished, canonical, digest, manifest_of
from spar_bench.stages.base import Stage
from spar_bench.store import FORMAT, Store
from tests.small import printed
from tests.toy import Stage as Toy
from tests.toy import Summary, toy

STAGE = toy({"source": "ab"}, seed=0, scale=0.1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def locked(store: Store, stage: Stage = STAGE) -> AbstractContextManager[None]:
    return store.lock([stage.fingerprint], on_wait=ignore, poll=ignore)


def make(store: Store, stage: Stage = STAGE, **files: str) -> Finished:
    with locked(store, stage):
        for name, text in (files or {"a": "first", "b": "second"}).items():
            replace_text(store.output(stage) / name, text)
        return store.finish(stage, summary=Summary(n=3), made={"device": "cpu"})


def reopen(store: Store, stage: Stage = STAGE) -> str:
    with locked(store, stage):
        return store.reopen(stage)


def fail(store: Store) -> None:
    with locked(store):
        store.fail(STAGE, "no luck", outcome="failed", final=True)


def alter_manifest(folder: Path, key: str, value: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def test_fingerprint_is_the_digest_of_all_that_decides_a_stage() -> None:
    class Raised(Toy):
        version: ClassVar[int] = 2

    source = hashlib.sha256(Path(toys.__file__).read_bytes()).hexdigest()
    assert STAGE.fingerprint == digest(
        ["toy", 1, {"scale": 0.1, "seed": 0}, {"source": "ab"}, {"tests.toy": source}]
    )
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
    f"manifest.json: {WRITTEN} is missing or no JSON": lambda f: (f / MANIFEST).write_text(
        '{"kind"'
    ),
    f"manifest.json: {WRITTEN} differs from its checksum": lambda f: alter_manifest(
        f, "summary", {"n": 4}
    ),
    f"manifest.json: {WRITTEN} differs": lambda folder: (folder / MANIFEST).write_text("{}"),
    f"manifest.json: {WRITTEN} is missing or no": lambda f: alter_manifest(
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

    assert words in reopen(store)
    assert store.find(STAGE) is None
    assert make(store).path("a").read_text() == "first"
    assert store.find(STAGE) is not None


def test_whole_files_of_a_damaged_stage_are_kept_as_work_under_way(store: Store) -> None:
    (make(store).folder / "a").write_text("FIRST")

    assert f"a: {WRITTEN} differs" in reopen(store)

    output = store.output(STAGE)
    assert [path.name for path in output.iterdir()] == ["b"]


def test_without_its_manifest_no_file_of_a_stage_is_trusted(store: Store) -> None:
    (make(store).folder / MANIFEST).unlink()

    reopen(store)

    assert list(store.output(STAGE).iterdir()) == []


def test_reopening_looks_at_every_checksum_again_and_leaves_a_whole_stage_alone(
    store: Store,
) -> None:
    folder = make(store).folder
    assert store.find(STAGE) is not None
    assert reopen(store) == ""
    (folder / "b").write_text("SECOND")

    assert store.find(STAGE) is not None  # of equal size, and verified before
    assert f"b: {WRITTEN} differs" in reopen(store)
    assert reopen(store, toy()) == ""


def test_large_stage_is_hashed_file_by_file_as_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.shelf.HASH_WHOLE_BYTES", 4)
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
    [error] = store.unreadable()
    assert f"{other.fingerprint}/manifest.json: {WRITTEN} is missing or no JSON" in str(error)


def test_discarded_stage_is_gone_and_can_be_made_again(store: Store) -> None:
    make(store)

    store.discard(STAGE.fingerprint)

    assert store.find(STAGE) is None
    assert make(store, a="other").path("a").read_text() == "other"


def test_failure_is_kept_until_the_stage_is_made(store: Store) -> None:
    fail(store)
    failure = Store(store.root).failure(STAGE)
    assert failure is not None
    assert failure.at_ms > 0
    assert replace(failure, at_ms=0) == Failure("no luck", "failed", final=True, at_ms=0)

    make(store)

    assert store.failure(STAGE) is None


@pytest.mark.parametrize("text", ["", "{}"])
def test_failure_that_cannot_be_read_is_reported_and_not_taken_for_none(
    store: Store, text: str
) -> None:
    fail(store)
    path = store.root / "failures" / f"{STAGE.fingerprint}.json"
    path.write_text(text)

    with pytest.raises(StoreError, match=r"json: must be .*; delete it"):
        store.failure(STAGE)


def test_store_of_another_format_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text(canonical({"format": FORMAT + 1}))

    with pytest.raises(StoreError, match=f"format {FORMAT}, but is of format {FORMAT + 1}; keep"):
        Store(store.root)


def test_file_in_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError, match="must be a writable folder"):
        Store(tmp_path / "store")


HERE, THERE = Host("here", "1"), Host("there", "2")
MAKER = """
import os, random, signal, sys, time
from pathlib import Path
from spar_bench.errors import LeaseLost
from spar_bench.files import replace_text
from spar_bench.leases import Host
from spar_bench.store import Store
from tests.toy import Summary, toy

root, name, n_stages, lease_s = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
stops_after = int(sys.argv[5])
store = Store(root, lease_s=lease_s, host=Host(name, "boot of " + name))

def make(stage):
    with store.lock([stage.fingerprint], on_wait=lambda _: None, poll=lambda: None):
        if store.find(stage) is None:
            for part in range(4):
                path = store.output(stage) / str(part)
                if not path.exists():
                    replace_text(path, f"{part} of {stage.settings.seed}")
                    print("part", stage.settings.seed, part, flush=True)
                if part == stops_after:
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(random.random() * 0.05)
            made = {"by": os.getpid()}
            if store.finish(stage, summary=Summary(), made=made).manifest["made"] == made:
                print("published", stage.settings.seed, flush=True)

for n in range(n_stages):
    while True:
        try:
            make(toy(seed=n))
            break
        except LeaseLost:
            print("lost", n, flush=True)
"""


def maker(
    store: Store, host: Host, said: Path, *, n_stages: int, lease_s: float, stops_after: int = -1
) -> Popen[bytes]:
    """Have a process make stages 0, 1, ... of a store, as if on a host; it prints to a file.

    It stops itself, until it is sent SIGCONT, after a part of a stage.
    """
    arguments = [str(store.root), host.name, str(n_stages), str(lease_s), str(stops_after)]
    with said.open("ab") as file:
        root = Path(__file__).parents[1]  # where `tests` is found
        return Popen([sys.executable, "-c", MAKER, *arguments], stdout=file, cwd=root)


def lines(folder: Path) -> list[str]:
    """Return what all makers have printed."""
    return [line for path in folder.glob("said_*") for line in path.read_text().splitlines()]


def wait_for(path: Path, line: str) -> None:
    """Wait until a maker has printed a line."""
    deadline = monotonic() + 60
    while not path.exists() or line not in path.read_text():
        assert monotonic() < deadline, f"{line} was not printed"
        sleep(0.01)


@pytest.mark.slow
def test_makers_on_two_hosts_killed_and_paused_at_random_publish_each_stage_once(
    store: Store, tmp_path: Path
) -> None:
    moments, n_stages = random.Random(0), 12
    hosts = [HERE, THERE, HERE, THERE]
    running: dict[int, Popen[bytes]] = {}
    for kill in range(20):
        for index, host in enumerate(hosts):
            if index not in running or running[index].poll() is not None:
                said = tmp_path / f"said_{index}"
                running[index] = maker(store, host, said, n_stages=n_stages, lease_s=0.4)
        victim = running[moments.randrange(len(hosts))]
        sleep(moments.random() * 0.8)
        if kill % 3 == 2:
            victim.send_signal(signal.SIGSTOP)
            sleep(1.0)  # longer than its lease
            victim.send_signal(signal.SIGCONT)
        else:
            victim.kill()
            victim.wait()
    last = maker(store, THERE, tmp_path / "said_last", n_stages=n_stages, lease_s=0.4)
    codes = [process.wait() for process in (last, *running.values())]

    assert [code for code in codes if code not in (0, -signal.SIGKILL)] == []
    published = [line for line in lines(tmp_path) if line.startswith("published")]
    assert len(published) == len(set(published))
    made = list(store.finished())
    assert sorted(stage.manifest["settings"]["seed"] for stage in made) == list(range(n_stages))
    for stage in made:
        stage.check(hashed=True)
        assert list(stage.manifest["files"]) == ["0", "1", "2", "3"]
    assert list((store.root / "leases").iterdir()) == []


def test_work_that_was_killed_on_another_host_is_adopted_and_ended(
    store: Store, tmp_path: Path
) -> None:
    said = tmp_path / "said_dead"
    dead = maker(store, THERE, said, n_stages=1, lease_s=0.4, stops_after=1)
    wait_for(said, "part 0 1")
    dead.kill()
    dead.wait()
    folder = store.root / "scratch" / toy(seed=0).fingerprint
    older = folder / "an-older-owner" / "output"
    replace_text(older / "3", "a part that must not be used")
    os.utime(older, (0, 0))
    os.utime(older.parent, (0, 0))

    assert maker(store, HERE, tmp_path / "said_next", n_stages=1, lease_s=0.4).wait() == 0

    made = [line for line in lines(tmp_path) if line.startswith("part")]
    assert sorted(made) == [f"part 0 {part}" for part in range(4)]
    [stage] = store.finished()
    assert stage.path("3").read_text() == "3 of 0"
    assert not folder.exists()


def test_paused_maker_that_wakes_after_another_took_over_publishes_nothing(
    store: Store, tmp_path: Path
) -> None:
    said = tmp_path / "said_paused"
    paused = maker(store, THERE, said, n_stages=1, lease_s=0.4, stops_after=1)
    wait_for(said, "part 0 1")
    other = maker(store, HERE, tmp_path / "said_other", n_stages=1, lease_s=0.4)
    wait_for(tmp_path / "said_other", "part 0 2")
    paused.send_signal(signal.SIGCONT)

    assert (paused.wait(), other.wait()) == (0, 0)
    assert "published 0" in (tmp_path / "said_other").read_text()
    assert "published" not in said.read_text()
    assert [stage.manifest["made"]["by"] for stage in store.finished()] == [other.pid]
    assert not list((store.root / "scratch").iterdir())


def test_of_two_that_hold_one_stage_the_second_to_publish_uses_the_firsts(store: Store) -> None:
    other = Store(store.root, host=THERE)
    with locked(store):
        (store.output(STAGE) / "a").write_text("ours")
        (store.root / "leases" / STAGE.fingerprint).rename(store.root / "aside")
        with locked(other):  # as after a take-over that both have survived
            (other.root / "scratch" / STAGE.fingerprint / other.leases.owner).mkdir()
            (other.output(STAGE) / "a").write_text("theirs")
            first = other.finish(STAGE, summary=Summary(), made={"by": "other"})
        (store.root / "aside").rename(store.root / "leases" / STAGE.fingerprint)
        (store.output(STAGE) / "a").write_text("ours")

        found = store.finish(STAGE, summary=Summary(), made={"by": "own"})

    assert found == first == store.find(STAGE)
    assert found.path("a").read_text() == "theirs"


def test_nothing_is_published_or_given_up_without_the_lock(store: Store) -> None:
    (store.output(STAGE) / "a").write_text("first")

    with pytest.raises(LeaseLost):
        store.finish(STAGE, summary=Summary(), made={})
    with pytest.raises(LeaseLost):
        store.fail(STAGE, "no luck", outcome="failed", final=False)

    assert store.find(STAGE) is None
    assert store.failure(STAGE) is None


def test_store_is_unused_only_while_nobody_uses_it(store: Store) -> None:
    other = Store(store.root, lease_s=0.6, host=THERE)
    with store.in_use(on_wait=ignore, poll=ignore):
        with other.in_use(on_wait=ignore, poll=ignore):
            pass
        with pytest.raises(StoreError, match=r"but process .* runs a sweep on it"), other.unused():
            pytest.fail("it is in use")
    waited = list[str]()

    def stop() -> None:
        raise KeyboardInterrupt

    with other.unused():
        entering = store.in_use(on_wait=waited.append, poll=stop)
        with pytest.raises(KeyboardInterrupt), entering:
            pytest.fail("it is being cleaned up")

    assert waited == ["gate"]
    assert list((store.root / "leases").iterdir()) == []


def test_opened_stage_is_read_again_only_when_it_was_written_again(store: Store) -> None:
    make(store)
    first = store.find(STAGE)
    assert store.find(STAGE) is first
    assert store.find_by_fingerprint(STAGE.fingerprint) is first

    other = Store(store.root)
    other.discard(STAGE.fingerprint)
    assert store.find(STAGE) is None
    make(other, a="changed")

    found = store.find(STAGE)
    assert found is not None
    assert found.path("a").read_text() == "changed"


@pytest.mark.parametrize(
    "look",
    [
        lambda store, stage: store.find(stage),
        lambda store, stage: store.discard(stage.fingerprint),
    ],
    ids=["find", "discard"],
)
def test_time_is_linear_in_the_stages(
    tmp_path: Path, look: Callable[[Store, Stage], object]
) -> None:
    seconds = dict[int, float]()
    for attempt, n_stages in product(range(2), (300, 1200)):
        store = Store(tmp_path / f"{attempt}-{n_stages}")
        stages = [toy(seed=seed) for seed in range(n_stages)]
        for one in stages:
            folder = store.root / "stages" / one.kind / one.fingerprint
            folder.mkdir(parents=True)
            manifest = manifest_of(one, folder, summary=Summary(), made={})
            (folder / MANIFEST).write_text(canonical(manifest))
        begun = process_time()
        for one in stages:
            look(store, one)
        took = process_time() - begun
        seconds[n_stages] = min(took, seconds.get(n_stages, took))

    # Four times the stages; what looks at all of them for each takes sixteen times as long.
    assert seconds[1200] < 7 * seconds[300]


def test_file_larger_than_the_process_may_write_is_one_line(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from spar_bench.errors import StoreError
from spar_bench.files import replace_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: replace_bytes(Path(sys.argv[1]) / "large", bytes(1001))
except StoreError as error: print(error)
"""
    line = printed(code, str(tmp_path))

    assert line.startswith(f"{tmp_path}: must take files of any size, but this process's limit is")
    assert list(tmp_path.iterdir()) == []
