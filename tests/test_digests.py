"""Digests of files: right, remembered, and never a stale one."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from spar_bench import digests
from spar_bench.digests import remembered_sha256, remembered_sha256s


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that the test uses; files just written are cached in it."""
    monkeypatch.setattr(digests, "_TICK_NS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spar-bench" / "digests.sqlite3"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with three bytes."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"abc")
    return path


# FIPS 180-2, appendix B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def forge(cache: Path) -> None:
    """Make every cached digest recognisable."""
    with closing(sqlite3.connect(cache)) as connection, connection:
        assert connection.execute("UPDATE digest SET sha256 = 'remembered'").rowcount


def count(cache: Path) -> int:
    """Count the cached files."""
    with closing(sqlite3.connect(cache)) as connection:
        return int(connection.execute("SELECT count(*) FROM digest").fetchone()[0])


def test_digest_is_sha256(file: Path) -> None:
    assert remembered_sha256(file) == ABC


def test_digests_come_in_the_order_asked_for(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "a.bin"
    other.write_bytes(b"")

    assert remembered_sha256s([file, other, file]) == [ABC, hashlib.sha256().hexdigest(), ABC]


def test_digest_is_remembered(file: Path, cache: Path) -> None:
    remembered_sha256(file)
    forge(cache)

    assert remembered_sha256(file) == "remembered"


@pytest.mark.usefixtures("cache")
def test_file_of_the_same_size_and_time_is_read_again_when_it_was_replaced(file: Path) -> None:
    remembered_sha256(file)
    stat = file.stat()
    while file.stat().st_ctime_ns == stat.st_ctime_ns:  # until the file system's clock ticks
        file.write_bytes(b"xyz")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert remembered_sha256(file) == hashlib.sha256(b"xyz").hexdigest()


def test_file_that_changes_while_it_is_read_is_not_remembered(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter([(str(file), 3, 0, 0), (str(file), 3, 1, 1)])
    monkeypatch.setattr(digests, "_stamp", lambda path: next(stamps))

    assert remembered_sha256(file) == ABC
    assert count(cache) == 0


def test_file_written_this_moment_is_not_remembered(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_TICK_NS", 10**18)

    assert remembered_sha256(file) == ABC
    assert count(cache) == 0


@pytest.mark.parametrize("spoiled", ["file in the way", "not a database"])
def test_memory_that_cannot_be_used_only_costs_time(file: Path, cache: Path, spoiled: str) -> None:
    if spoiled == "file in the way":
        cache.parent.parent.write_text("I am a file")
    else:
        cache.parent.mkdir(parents=True)
        cache.write_bytes(b"not a database, though long enough to be taken for one" * 20)

    assert remembered_sha256(file) == ABC


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remembered_sha256(tmp_path / "nothing")


def test_six_processes_share_one_fresh_memory(tmp_path: Path, cache: Path) -> None:
    files = [tmp_path / f"{index}.bin" for index in range(40)]
    for index, path in enumerate(files):
        path.write_bytes(bytes([index]))
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from pathlib import Path; from spar_bench import digests; digests._TICK_NS = 0\n"
        "print(*digests.remembered_sha256s([Path(name) for name in sys.argv[1:]]))"
    )

    command = [sys.executable, "-c", code, *map(str, files)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(6)]
    results = [process.communicate() for process in processes]

    expected = [hashlib.sha256(bytes([index])).hexdigest() for index in range(40)]
    assert [out.split() for out, _ in results] == [expected] * 6
    assert [err for _, err in results] == [""] * 6
    assert count(cache) == 40
