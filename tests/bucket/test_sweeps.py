"""Sweeps of machines that share nothing but a bucket, of a server that speaks S3."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spar_bench.opening import open_store
from spar_bench.results import Results
from spar_bench.session.study import DATABASE_VARIABLE
from spar_bench.store import Store
from tests.bucket.s3 import s3, server
from tests.session.searches import TEACHERS
from tests.small import DIVERGING, TINY, lasting, one_line, spar_bench, write_spec

__all__ = ["s3", "server"]

SHORT = """
import sys
from spar_bench.bucket.store import BucketStore
BucketStore.__init__.__kwdefaults__["lease_s"] = 2.0
from spar_bench.cli import main
main(sys.argv[1:])
"""
"""The command, with leases that last two seconds."""


class Machine:
    """A machine: a working folder and a cache of its own."""

    def __init__(self, folder: Path, spec: str = TINY) -> None:
        self.folder = folder
        (folder / "experiments").mkdir(parents=True)
        (folder / "experiments/tiny.yaml").write_text(spec, encoding="utf-8")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command there; its leases are short."""
        return subprocess.Popen(
            [sys.executable, "-c", SHORT, *arguments],
            cwd=self.folder,
            env=os.environ | {"XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, exits: int = 0) -> str:
        """Run a command there, in this process; return what it says."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            result = spar_bench(*arguments, exits=exits)
        return result.stdout + result.stderr

    @property
    def store(self) -> Path:
        """The folder of its copies."""
        [folder] = (self.folder / "cache/spar-bench/stores").iterdir()
        return folder


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "two")


@pytest.fixture
def alone(here: Path) -> dict[str, Any]:
    """What an undisturbed sweep makes in a folder, but for times, by fingerprint."""
    write_spec(TINY)
    spar_bench("sweep", "tiny")
    return contents(Store(here / ".spar_bench"))


def contents(store: Store) -> dict[str, Any]:
    """Return what a store's stages hold but times, by fingerprint."""
    return {
        stage.fingerprint: lasting(stage)
        for stage in store.finished()
        if stage.kind not in ("cost", "latency")  # which are of a machine
    }


def made(said: str) -> Counter[str]:
    """Return how often a command says that it has made each stage."""
    return Counter(re.findall(r"^made \w+ ([0-9a-f]{12})", said, re.MULTILINE))


def numbers(store: Path) -> list[tuple[str, float | None, str]]:
    """Return the accuracy of each row of the experiment, or why there is none."""
    rows = Results.load(store / "results/tiny").rows
    return [(f"{row.trial} {row.method}", row.miou, row.reason) for row in rows]


def test_two_machines_share_the_work_and_have_equal_results(
    one: Machine, two: Machine, s3: str, alone: dict[str, Any]
) -> None:
    sweeps = [machine.start("sweep", "tiny", "--store", s3) for machine in (one, two)]
    said = ["".join(sweep.communicate()) for sweep in sweeps]

    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    by_any = made(said[0]) + made(said[1])
    assert set(by_any.values()) == {1}
    assert {key[:12] for key in alone} <= set(by_any)
    assert contents(open_store(s3, make=False)) == alone
    assert numbers(one.store) == numbers(two.store) == numbers(Path(".spar_bench"))
    for machine in (one, two):
        assert list((machine.store / "scratch").iterdir()) == []
        assert list((machine.store / "leases").iterdir()) == []


@pytest.mark.slow
def test_sweep_that_was_killed_is_finished_by_another_machine(
    one: Machine, two: Machine, s3: str, alone: dict[str, Any]
) -> None:
    killed, said = one.start("sweep", "tiny", "--store", s3), ""
    assert killed.stderr is not None
    for line in killed.stderr:
        said += line
        if line.startswith("started student"):
            killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert made(said)

    finishing = two.start("sweep", "tiny", "--store", s3)
    finished = "".join(finishing.communicate())

    assert finishing.returncode == 0, finished
    assert set((made(said) + made(finished)).values()) == {1}
    assert contents(open_store(s3, make=False)) == alone
    assert numbers(two.store) == numbers(Path(".spar_bench"))
    again = one.run("sweep", "tiny", "--store", s3)
    assert made(again) == Counter()
    assert numbers(one.store) == numbers(two.store)
    assert list((one.store / "scratch").iterdir()) == []


def test_workers_of_a_machine_make_what_another_times(one: Machine, two: Machine, s3: str) -> None:
    worked = one.run("work", "--any", "experiments/tiny.yaml", "--store", s3)

    swept = two.run("sweep", "tiny", "--store", s3, "--jobs", "2")

    assert "student" not in re.findall(r"^made (\w+)", swept, re.MULTILINE)
    assert set((made(worked) + made(swept)).values()) == {1}


def test_other_machine_reports_explains_exports_and_checks_what_it_has_not_made(
    one: Machine, two: Machine, s3: str
) -> None:
    one.run("sweep", "tiny", "--store", s3)

    two.run("report", "tiny", "--store", s3)
    status = two.run("status", "tiny", "--store", s3)
    explained = two.run("explain", "learning_rate=0.001,seed=0", "--store", s3)
    listed = two.run("cache", "ls", "--store", s3)
    verified = two.run("cache", "verify", "--store", s3)
    exporting = ("export", "learning_rate=0.001,seed=0", "--format", "timm", "--to", "student")
    two.run(*exporting, "--store", s3)
    planned = two.run("plan", "tiny", "--store", s3)

    assert (two.folder / "reports/tiny/table.md").is_file()
    assert re.search(r"^tiny +3 +3 +0 +0 +0", status, re.MULTILINE)
    assert re.search(rf"^ +{s3}/stages/targets/[0-9a-f]{{64}}$", explained, re.MULTILINE)
    assert re.search(r"^student +1 ", listed, re.MULTILINE)
    assert re.fullmatch(r"\d+ stages intact, 0 damaged\n", verified)
    assert (two.folder / "student").is_dir()
    assert " 0 to do." in planned
    assert "targets" not in {path.name for path in (two.store / "stages").iterdir()}  # not read
    assert "0 stages made now" in two.run("sweep", "tiny", "--store", s3)


def test_what_no_spec_needs_is_deleted_from_the_bucket(one: Machine, two: Machine, s3: str) -> None:
    one.run("sweep", "tiny", "--store", s3)
    kept = {stage.fingerprint for stage in open_store(s3, make=False).finished()}
    (two.folder / "experiments/tiny.yaml").write_text(TINY.replace("1.0e-3", "2.0e-3"))
    two.run("sweep", "tiny", "--store", s3)
    assert len(list(open_store(s3, make=False).finished())) > len(kept)

    one.run("cache", "gc", "--store", s3, "--yes")

    assert {stage.fingerprint for stage in open_store(s3, make=False).finished()} == kept


def test_student_that_diverged_is_not_trained_again_elsewhere(here: Path, s3: str) -> None:
    one, two = (Machine(here / name, DIVERGING) for name in ("one", "two"))
    one.run("sweep", "tiny", "--store", s3, exits=1)

    said = two.run("sweep", "tiny", "--store", s3, exits=1)

    assert made(said) == Counter()
    assert "started" not in said
    assert "the loss must stay finite" in said


def test_search_needs_a_database_which_machines_share(
    here: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (Machine(here / name, TEACHERS) for name in ("one", "two"))
    refused = one.run("sweep", "tiny", "--store", s3, exits=2)
    assert f"{DATABASE_VARIABLE}: must name a database for a search on {s3}" in refused
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{here}/studies.db")

    first, second = (machine.run("sweep", "tiny", "--store", s3) for machine in (one, two))

    assert "trial 4 of 5" in first  # one draw is impossible
    assert made(second) == Counter()
    assert "trial " not in second
    assert numbers(one.store) == numbers(two.store)
    monkeypatch.delenv(DATABASE_VARIABLE)
    told = one.run("status", "tiny", "--store", s3, exits=2)
    assert f"{s3}/studies/" in told
    assert "the study of this search is in a database" in told


def test_bucket_that_is_down_is_one_line(
    here: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(TINY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    told = one_line(spar_bench("sweep", "tiny", "--store", s3, exits=2))

    assert told.startswith(f"{s3}: must be a store that can be read and written, but got ")
    assert "s3cret" not in told


def test_cluster_whose_nodes_share_no_folder_is_refused(here: Path, s3: str) -> None:
    write_spec(TINY)

    told = one_line(spar_bench("sweep", "tiny", "--store", s3, "--on", "10.0.0.1:6379", exits=2))

    assert told.startswith(f"--on: must be ray, this machine alone, with {s3}")


def test_folder_of_a_bucket_is_no_place_to_copy_to(here: Path, s3: str) -> None:
    write_spec(TINY)
    spar_bench("status", "tiny", "--store", s3)

    for command in ("push", "pull"):
        told = one_line(spar_bench(command, s3, "--store", s3, exits=2))
        assert told.startswith("--store: must be a folder of its own to copy stages to and from")
    assert json.loads((open_store(s3, make=False).root / "store.json").read_text())["bucket"] == s3
