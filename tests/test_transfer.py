"""Finished stages between stores: whole, verified, once, and nothing outside of the store."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from spar_bench.bucket.objects import Bucket, reached
from spar_bench.errors import NotReady, StoreError
from spar_bench.stage import digest
from spar_bench.store import Store
from spar_bench.transfer import pull, push
from tests.bucket.s3 import S3, s3, server
from tests.small import copy_store, one_line, spar_bench

__all__ = ["s3", "server"]

BUCKET = "memory://bucket/store"


@pytest.fixture
def own(here: Path, swept: Path) -> Store:
    """The store of a sweep."""
    copy_store(swept)
    return Store(Path(".spar_bench"))


@pytest.fixture(autouse=True)
def _empty_bucket() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=[BUCKET, "other", S3])
def url(request: pytest.FixtureRequest, here: Path) -> str:
    """A bucket, in memory or of a server, or a folder."""
    if request.param == S3:
        request.getfixturevalue("s3")
    return str(request.param)


def files(store: Store) -> dict[str, bytes]:
    """Return all finished files."""
    folder = store.root / "stages"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_stages_go_there_and_back_and_are_copied_once(own: Store, url: str) -> None:
    n_stages, back = len(list(own.finished())), Store(Path("back"))

    there, again = push(own, reached(url)), push(own, reached(url))
    here, once_more = pull(back, reached(url)), pull(back, reached(url))

    assert (there.n_stages, there.n_there) == (here.n_stages, here.n_there) == (n_stages, 0)
    assert (again.n_stages, again.n_there) == (once_more.n_stages, once_more.n_there)
    assert (again.n_stages, again.n_there) == (0, n_stages)
    assert there.n_bytes == here.n_bytes == sum(stage.n_bytes for stage in own.finished())
    assert files(back) == files(own)
    assert list((back.root / "scratch").iterdir()) == list((back.root / "leases").iterdir()) == []


def test_experiment_comes_with_its_results_and_can_be_reported(own: Store, url: str) -> None:
    spar_bench("push", url, "tiny")
    shutil.rmtree(own.root)

    result = spar_bench("pull", url, "tiny")
    spar_bench("report", "tiny")

    counts = Counter(stage.kind for stage in Store(Path(".spar_bench")).finished())
    kinds = set(counts)
    assert "student" in kinds
    assert "targets" not in kinds  # which no number of a row is read from
    assert result.stdout.startswith(f"copied {len(list(Store(Path('.spar_bench')).finished()))} ")
    assert Path("reports/tiny/table.md").exists()
    spar_bench("sweep", "experiments/tiny.yaml")
    later = [stage.kind for stage in Store(Path(".spar_bench")).finished()]
    assert {kind for kind in kinds if later.count(kind) > counts[kind]} <= {"cost"}


def test_damaged_file_is_not_taken_and_told(own: Store, url: str) -> None:
    push(own, reached(url))
    [student] = [stage for stage in own.finished() if stage.kind == "student"]
    name, entry = next(iter(student.manifest["files"].items()))
    system, root = fsspec.core.url_to_fs(url)
    in_folder = f"stages/student/{student.fingerprint}/{name}"
    in_bucket = f"files/{student.fingerprint}/{entry['sha256']}"
    place = in_folder if url == "other" else in_bucket
    at = f"{root}/{place}"
    system.pipe_file(at, system.cat_file(at)[:-1] + b"?")

    result = spar_bench("pull", url, "--store", "back", exits=1)

    assert one_line(result).endswith(
        f"{place}: must be as it was written, but differs from its checksum; a sweep makes it again"
    )
    back = Store(Path("back"))
    assert student.fingerprint not in {stage.fingerprint for stage in back.finished()}
    assert list((back.root / "scratch").iterdir()) == []


def test_damaged_stage_here_is_replaced_by_an_intact_one(own: Store, url: str) -> None:
    push(own, reached(url))
    before = files(own)
    [student] = [stage for stage in own.finished() if stage.kind == "student"]
    (student.folder / next(iter(student.manifest["files"]))).write_bytes(b"")

    moved = pull(own, reached(url))

    assert moved.n_stages == 1
    assert files(own) == before
    damaged = next(iter(student.manifest["files"]))
    (student.folder / damaged).write_bytes(b"")
    if url == BUCKET:
        told = push(own, reached("memory://other")).damaged
        assert [line.split(": ")[0].endswith(damaged) for line in told] == [True]


def test_upload_that_was_cut_off_is_no_stage_yet(own: Store) -> None:
    push(own, reached(BUCKET))
    system, root = fsspec.core.url_to_fs(BUCKET)
    [student] = [stage for stage in own.finished() if stage.kind == "student"]
    system.rm_file(f"{root}/stages/student/{student.fingerprint}")

    moved = pull(Store(Path("back")), reached(BUCKET))
    again = push(own, reached(BUCKET))

    assert moved.n_stages == len(list(own.finished())) - 1
    assert moved.damaged == []
    assert again.n_stages == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from spar_bench.store import Store
from spar_bench.bucket.objects import Bucket
from spar_bench.transfer import push
url, last = sys.argv[1:]
create = Bucket.create
def create_or_die(self, name, content):
    if name == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, name, content)
Bucket.create = create_or_die
push(Store(Path(".spar_bench")), Bucket(url))
"""


def test_stage_whose_push_was_killed_is_not_there_until_it_is_pushed_again(
    own: Store, s3: str
) -> None:
    [student] = [stage for stage in own.finished() if stage.kind == "student"]
    at = f"stages/student/{student.fingerprint}"
    back = Store(Path("back"))

    killed = subprocess.run([sys.executable, "-c", KILLED, s3, at])
    written = reached(s3).names(f"files/{student.fingerprint}")
    some = pull(back, reached(s3))
    finished = [stage.fingerprint for stage in back.finished()]
    rest = subprocess.run([sys.executable, "-m", "spar_bench", "push", s3], stdout=subprocess.PIPE)
    others = pull(back, reached(s3))

    assert killed.returncode == -signal.SIGKILL
    assert set(written) == {entry["sha256"] for entry in student.manifest["files"].values()}
    assert some.damaged == []
    assert student.fingerprint not in finished
    assert len(finished) == some.n_stages > 0
    assert rest.returncode == 0
    assert others.n_stages == len(list(own.finished())) - some.n_stages > 0
    assert files(back) == files(own)


def test_server_that_is_down_is_one_line(
    own: Store, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    told = one_line(spar_bench("push", s3, exits=2))

    assert told.startswith(f"{s3}: must be a store that can be read and written, but got ")
    assert "127.0.0.1:9" in told
    assert "s3cret" not in told


@pytest.mark.parametrize("name", ["../../../outside", "/outside"])
def test_file_outside_of_its_stage_is_refused(own: Store, name: str) -> None:
    push(own, reached(BUCKET))
    system, root = fsspec.core.url_to_fs(BUCKET)
    [student] = [stage for stage in own.finished() if stage.kind == "student"]
    manifest = dict(student.manifest)
    manifest["files"] = {name: next(iter(manifest["files"].values()))}
    del manifest["sha256"]
    manifest["sha256"] = digest(manifest)
    at = f"{root}/stages/student/{student.fingerprint}"
    system.pipe_file(at, json.dumps(manifest).encode())

    [told] = pull(Store(Path("back")), reached(BUCKET)).damaged

    assert f"names a file {name!r} outside of it" in told
    assert not Path("outside").exists()


def test_stage_under_the_name_of_another_is_refused(own: Store) -> None:
    push(own, reached(BUCKET))
    system, root = fsspec.core.url_to_fs(BUCKET)
    cost, other = [stage for stage in own.finished() if stage.kind == "cost"][:2]
    at = f"{root}/stages/cost/{cost.fingerprint}"
    system.pipe_file(at, json.dumps(other.manifest).encode())

    [told] = pull(Store(Path("back")), reached(BUCKET)).damaged

    assert "is of another stage" in told


@pytest.mark.parametrize("name", ["../stages", "cost/../../results", "cost/x", "cost"])
def test_names_that_are_no_stages_are_not_looked_at(
    own: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(own, reached(BUCKET))
    n_stages = len(list(own.finished()))
    bucket = reached(BUCKET)
    assert isinstance(bucket, Bucket)
    found = bucket.versions
    monkeypatch.setattr(bucket, "versions", lambda folder: {**found(folder), name: "{}"})

    assert len(bucket.stages()) == n_stages


def test_store_of_a_folder_can_be_read_by_its_address_but_not_written(own: Store) -> None:
    system = fsspec.filesystem("memory")
    system.put(f"{own.root}/", "/folder/", recursive=True)

    back = pull(Store(Path("back")), reached("memory://folder"))

    assert back.n_stages == len(list(own.finished()))
    with pytest.raises(NotReady, match="is the store of a folder elsewhere; pull from this one"):
        push(own, reached("memory://folder"))


def test_folder_with_brackets_in_its_name_is_read(own: Store) -> None:
    n_stages = len(list(own.finished()))

    there = push(own, reached("run[1]/store"))
    back = pull(Store(Path("back")), reached("run[1]/store"))

    assert (there.n_stages, back.n_stages) == (n_stages, n_stages)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "nowhere"], "nowhere: must be a store of format 2, but is none"),
        (["pull", "memory://b"], "memory://b: must be a store of format bucket 1, but is none"),
        (["pull", "ftp://a:s3cret@h/x"], "ftp://a:***@h/x: must have no password in it, but has"),
        (["pull", "foo://x"], "foo://x: must be a folder, or an address that fsspec knows"),
        (["push", "other", "none"], "must have results of none, but has none"),
        (["push", "memory://b", "none"], "must have results of none, but has none"),
        (["push", "memory://b", "../x"], "../x: must be the name of an experiment, but is a path"),
    ],
)
def test_what_cannot_be_copied_is_one_line(own: Store, arguments: list[str], said: str) -> None:
    assert said in one_line(spar_bench(*arguments, exits=2))


def test_store_that_fails_is_one_line(own: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("the key has expired")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", fail)

    with pytest.raises(StoreError, match=r"^memory://.*but got the key has expired; what is"):
        push(own, reached(BUCKET))
