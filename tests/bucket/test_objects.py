"""A bucket: a stage is there whole or not at all, whoever else publishes it meanwhile."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from spar_bench.bucket.objects import Bucket
from spar_bench.errors import NotReady, StoreError
from spar_bench.stage import Damaged, digest
from tests.bucket.machines import ADDRESS, KEY, STAGE, emptied, machine, objects
from tests.bucket.s3 import s3, server

__all__ = ["emptied", "s3", "server"]


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A bucket in memory, or of a server."""
    url = ADDRESS if request.param == "memory" else request.getfixturevalue("s3")
    found = Bucket(url)
    found.begin()
    return found


class Answer(Exception):
    """What a service answers, as its library raises it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def made(folder: Path, **texts: str) -> tuple[dict[str, Any], Callable[[str], Path]]:
    """Write files; return the manifest of a stage that has them, and where they are."""
    folder.mkdir(exist_ok=True)
    files = {}
    for name, text in texts.items():
        (folder / name).write_text(text)
        files[name] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    about = {"kind": STAGE.kind, "settings": {}, "inputs": {}, "files": files, "summary": {}}
    return {**about, "sha256": digest(about)}, folder.joinpath


def fetched(bucket: Bucket, folder: Path) -> dict[str, str]:
    """Return the files of the stage, checked."""
    bucket.fetch(KEY, bucket.manifest(KEY), folder)
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".json"}


def test_object_is_created_once_and_replaced_and_deleted(bucket: Bucket) -> None:
    assert [bucket.create("leases/a", b"1"), bucket.create("leases/a", b"2")] == [True, False]
    assert bucket.read("leases/a") == b"1"
    before = bucket.versions("leases")

    bucket.replace("leases/a", b"22")

    assert bucket.read("leases/a") == b"22"
    assert bucket.names("leases") == list(bucket.versions("leases")) == ["a"]
    assert bucket.versions("leases") == bucket.versions("leases") != before
    for _ in range(2):
        bucket.delete("leases/a")
    assert bucket.names("leases") == []
    assert bucket.versions("leases") == {}


def test_first_of_two_makers_publishes_and_nothing_of_the_other_stays(
    bucket: Bucket, tmp_path: Path
) -> None:
    first, second = made(tmp_path / "1", a="one", b="same"), made(tmp_path / "2", a="two", b="same")

    assert [bucket.publish(KEY, *one) for one in (first, second)] == [first[0], first[0]]

    assert fetched(bucket, tmp_path / "3") == {"a": "one", "b": "same"}
    kept = {entry["sha256"] for entry in first[0]["files"].values()}
    assert set(bucket.names(f"files/{KEY[1]}")) == kept
    assert bucket.stages() == {KEY}


@pytest.mark.parametrize("before", ["put", "create"])
def test_maker_that_was_paused_in_the_middle_does_not_mix_its_files_with_another_s(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    other = made(tmp_path / "2", a="two", b="due")
    paused = bucket._fs if before == "put" else bucket
    go_on = getattr(paused, before)

    def after_the_other(*given: Any) -> Any:
        monkeypatch.setattr(paused, before, go_on)
        assert bucket.publish(KEY, *other) == other[0]
        return go_on(*given)

    monkeypatch.setattr(paused, before, after_the_other)

    assert bucket.publish(KEY, *made(tmp_path / "1", a="one", b="uno")) == other[0]

    assert fetched(bucket, tmp_path / "3") == {"a": "two", "b": "due"}


def test_what_a_push_that_was_cut_off_has_left_is_no_stage_and_not_sent_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, path = made(tmp_path / "1", a="one", b="two")
    bucket.replace(f"files/{KEY[1]}/{manifest['files']['a']['sha256']}", b"one")
    bucket.replace(f"files/{KEY[1]}/{manifest['files']['b']['sha256']}", b"tw")  # cut off
    assert (bucket.stages(), bucket.has(KEY)) == (set(), False)
    sent = list[str]()

    def path_of(name: str) -> Path:
        sent.append(name)
        return path(name)

    assert bucket.publish(KEY, manifest, path_of) is manifest

    assert sent == ["b"]
    assert fetched(bucket, tmp_path / "3") == {"a": "one", "b": "two"}
    assert (bucket.stages(), bucket.has(KEY)) == ({KEY}, True)


def test_fetch_goes_on_where_it_was_cut_off(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.publish(KEY, *made(tmp_path / "1", a="one", b="two"))
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "a").write_text("one")
    (tmp_path / "3" / "b").write_text("t")
    read, get = list[str](), bucket._fs.get

    def noting(places: list[str], paths: list[str]) -> None:
        read.extend(Path(path).name for path in paths)
        get(places, paths)

    monkeypatch.setattr(bucket._fs, "get", noting)

    assert fetched(bucket, tmp_path / "3") == {"a": "one", "b": "two"}
    assert read == ["b"]


@pytest.mark.parametrize("lost", ["a", "c"])
def test_file_that_is_missing_is_named(bucket: Bucket, tmp_path: Path, lost: str) -> None:
    manifest, path = made(tmp_path / "1", a="one", b="two", c="three")
    bucket.publish(KEY, manifest, path)
    name = f"files/{KEY[1]}/{manifest['files'][lost]['sha256']}"
    bucket.delete(name)

    with pytest.raises(Damaged, match=f"{name}: must be as it was written, but is missing"):
        fetched(bucket, tmp_path / "3")


def test_disk_here_that_is_full_is_not_blamed_on_the_bucket(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.publish(KEY, *made(tmp_path / "1", a="one"))

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bucket._fs, "get", fill)

    with pytest.raises(StoreError, match=r"^/.*/3: must have free space, but the disk is full"):
        fetched(bucket, tmp_path / "3")


def test_stage_whose_deletion_was_cut_off_is_none(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.publish(KEY, *made(tmp_path / "1", a="one"))
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "names", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bucket.discard(KEY)
    assert bucket.stages() == set()

    bucket.discard(KEY)

    assert bucket.names(f"files/{KEY[1]}") == []


def test_manifests_of_many_stages_are_read_at_once(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.bucket.objects._AT_ONCE", 2)
    keys = [("toy", f"{n:064x}") for n in range(5)]
    for key in keys:
        bucket.publish(key, *made(tmp_path / "1", a=key[1]))
    bucket.replace(f"stages/toy/{keys[1][1]}", b"[]")
    gone = ("toy", "f" * 64)

    found = dict(bucket.manifests([*keys, gone]))

    assert set(found) == set(keys)
    assert [key for key in keys if not isinstance(found[key], dict)] == [keys[1]]
    assert bucket.stages() == set(keys)


def test_manifest_that_cannot_be_read_now_is_not_taken_for_one_that_is_gone(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(s3)
    bucket.publish(KEY, *made(tmp_path / "1", a="one"))
    monkeypatch.setattr("s3fs.S3FileSystem._cat_file", _refuse)

    with pytest.raises(StoreError, match="but got the key has expired"):
        list(bucket.manifests([KEY]))


async def _refuse(*_: object, **__: object) -> bytes:
    raise PermissionError("the key has expired")


def test_service_that_replaces_what_it_is_told_to_create_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = "fsspec.implementations.memory.MemoryFileSystem.pipe_file"
    write = fsspec.filesystem("memory").pipe_file
    monkeypatch.setattr(pipe, lambda self, path, value, mode="": write(path, value))

    with pytest.raises(NotReady, match=r"must refuse to create what is there, .* but replaced it"):
        Bucket(ADDRESS).begin()


@pytest.mark.parametrize(
    ("codes", "created"),
    [
        (["PreconditionFailed"], False),
        (["412"], False),
        (["ConditionalRequestConflict", "409"], True),
        (["409", "412"], False),
    ],
)
def test_services_say_in_several_ways_that_an_object_is_there(
    monkeypatch: pytest.MonkeyPatch, codes: list[str], created: bool
) -> None:
    bucket, left = Bucket(ADDRESS), list(codes)
    write = bucket._fs.pipe_file

    def answer(path: str, value: bytes, mode: str = "") -> None:
        if left:
            raise OSError(errno.EINVAL, "not done") from Answer(left.pop(0))
        write(path, value, mode=mode)

    monkeypatch.setattr(bucket._fs, "pipe_file", answer)

    assert bucket.create("leases/a", b"1") == created
    assert objects("leases") == ({"leases/a"} if created else set())


def test_service_that_is_always_in_conflict_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spar_bench.bucket.objects._PAUSE_S", 0.0)
    bucket = Bucket(ADDRESS)

    def answer(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "in conflict") from Answer("409")

    monkeypatch.setattr(bucket._fs, "pipe_file", answer)

    with pytest.raises(StoreError, match=r"but got .*in conflict"):
        bucket.create("leases/a", b"1")


def test_bucket_that_does_not_exist_is_refused_and_not_created(s3: str) -> None:
    missing = Bucket("s3://other/store")

    with pytest.raises(NotReady, match=r"^s3://other/store: must be in a bucket that exists"):
        missing.begin()

    assert (missing.stages(), missing.names("leases"), missing.format()) == (set(), [], None)
    with pytest.raises(FileNotFoundError):
        missing.create("x", b"")


@pytest.mark.parametrize("url", ["memory://b/run[1]", "memory://b/*", "memory://b/a?"])
def test_address_that_would_be_a_pattern_is_refused(url: str) -> None:
    with pytest.raises(NotReady, match=r"must have no \[, \], \* or \? in it"):
        Bucket(url)


@pytest.mark.parametrize("content", [b'{"format": 2}', b'{"format": "bucket 9"}', b"[]", b"?"])
def test_other_store_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/store/store.json", content)

    with pytest.raises(NotReady, match="must be a store of format bucket 1, but is"):
        Bucket(ADDRESS).begin()
    if content.startswith(b"{"):
        with pytest.raises(NotReady, match="must be a store of format bucket 1, but is"):
            machine(tmp_path, make=False)

    assert objects() == {"store.json"}
    assert fsspec.filesystem("memory").cat_file("/bucket/store/store.json") == content
