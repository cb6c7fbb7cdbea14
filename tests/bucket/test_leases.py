"""Leases over machines that share no folder: one owner at a time, and a dead one is replaced."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from spar_bench.bucket.leases import BucketLeases, _Both
from spar_bench.bucket.objects import Bucket
from spar_bench.errors import LeaseLost, StoreError
from spar_bench.leases import Host, Leases
from spar_bench.run.context import ignore
from spar_bench.stage import canonical
from tests.bucket.machines import ADDRESS, LENGTH_S, emptied, objects
from tests.bucket.s3 import s3, server

__all__ = ["emptied", "s3", "server"]

HERE, THERE = Host("here", "boot-1"), Host("there", "boot-2")


def leases(folder: Path, host: Host = HERE, bucket: Bucket | None = None) -> BucketLeases:
    """Return the leases of a machine as one process takes them."""
    (folder / host.name).mkdir(exist_ok=True)
    found = BucketLeases(folder / host.name / "leases", bucket or Bucket(ADDRESS), LENGTH_S, host)
    found._far.age_s = 0.0
    return found


def taken(own: Leases, *names: str) -> set[str]:
    """Return which of some leases are free for an owner."""
    with own.hold_free(names) as found:
        return set(found)


def pause(owner: BucketLeases) -> None:
    """Have its process renew nothing any more."""
    for held in owner._held.values():
        assert isinstance(held, _Both)
        held.far.renew = ignore  # type: ignore[method-assign]


def test_lease_is_one_machine_s_until_it_is_given_back(tmp_path: Path) -> None:
    here, there = leases(tmp_path), leases(tmp_path, THERE)

    with here.hold_free(["a", "b"]):
        assert objects("leases") == {"leases/a", "leases/b"}
        assert taken(there, "a", "b", "c") == {"c"}
        assert [there.is_held(name) for name in "abc"] == [True, True, False]
        assert there.owner_of("a") == f"process {os.getpid()} on here"
        assert there.names("a") == ["a"]
        here.require("a", "b")

    assert objects("leases") == set()
    assert taken(there, "a", "b", "c") == {"a", "b", "c"}


def test_processes_of_a_machine_are_kept_apart_without_asking_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, near = leases(tmp_path), leases(tmp_path), Leases(tmp_path / "here/leases")

    with own.hold_free(["a"]):
        with monkeypatch.context() as patch:
            for name in ("create", "read", "versions", "replace", "delete"):
                patch.setattr(other._bucket, name, lambda *_: 1 / 0)
            assert taken(other, "a") == taken(near, "a") == set()
        assert near.is_held("a")
    assert taken(other, "a") == {"a"}


def test_machine_that_renews_its_lease_keeps_it(tmp_path: Path) -> None:
    here, there = leases(tmp_path), leases(tmp_path, THERE)

    with here.hold_free(["a"]):
        until = time.monotonic() + 3 * LENGTH_S
        while time.monotonic() < until:
            assert taken(there, "a") == set()
            time.sleep(LENGTH_S / 10)
        assert there.is_alive("a")
        here.require("a")


def test_dead_machine_is_replaced_after_the_length_of_its_lease_and_finds_out(
    tmp_path: Path,
) -> None:
    here, there = leases(tmp_path), leases(tmp_path, THERE)
    with ExitStack() as ended:
        ended.enter_context(here.hold_free(["a", "b"]))
        pause(here)
        begun, waited = time.monotonic(), list[str]()

        with there.hold(["a", "b"], on_wait=waited.append, poll=ignore):
            assert LENGTH_S * 0.8 < time.monotonic() - begun < LENGTH_S * 2.5
            assert waited == ["a"]
            there.require("a", "b")
            with pytest.raises(LeaseLost):
                here.require("a")
            ended.close()  # gives back what it no longer has
            there.require("a", "b")
    assert objects("leases") == set()


def test_renewal_finds_a_lease_lost_and_does_not_take_it_back(tmp_path: Path) -> None:
    here, there = leases(tmp_path), leases(tmp_path, THERE)
    with here.hold_free(["a"]):
        Bucket(ADDRESS).delete("leases/a")
        with there.hold_free(["a"]) as own:
            assert own == {"a"}
            time.sleep(LENGTH_S)
            there.require("a")
            with pytest.raises(LeaseLost):
                here.require_unbroken()


def test_lease_outlives_a_bucket_that_does_not_answer_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(ADDRESS)
    here, there = leases(tmp_path, bucket=bucket), leases(tmp_path, THERE)

    def fail(*_: object) -> None:
        raise StoreError("no answer")

    with here.hold_free(["a"]):
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "replace", fail)
            time.sleep(LENGTH_S / 2)
        assert taken(there, "a") == set()
        time.sleep(LENGTH_S / 2)
        assert taken(there, "a") == set()
        here.require_unbroken()
        here.require("a")


def test_slow_renewal_keeps_nobody_from_taking_another_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, slow, goes_on = leases(tmp_path), threading.Event(), threading.Event()
    replace = here._bucket.replace

    def replace_slowly(name: str, content: bytes) -> None:
        slow.set()
        assert goes_on.wait(10)
        replace(name, content)

    with here.hold_free(["a"]):
        monkeypatch.setattr(here._bucket, "replace", replace_slowly)
        assert slow.wait(10)
        try:
            assert taken(here, "b") == {"b"}
        finally:
            goes_on.set()
        here.require("a")
    assert objects("leases") == set()


OWNER = """
import sys, time
from pathlib import Path
from spar_bench.bucket.leases import BucketLeases
from spar_bench.bucket.objects import Bucket
from spar_bench.leases import Host
folder, url = Path(sys.argv[1]), sys.argv[2]
with BucketLeases(folder, Bucket(url), 60.0, Host("here", "boot-1")).hold_free(["a"]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("host", [HERE, THERE])
def test_lease_of_a_killed_process_is_free_at_once_on_its_machine_alone(
    tmp_path: Path, s3: str, host: Host
) -> None:
    own = leases(tmp_path, bucket=Bucket(s3))
    command = [sys.executable, "-c", OWNER, str(tmp_path / "here/leases"), s3]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"held\n"
        assert taken(own, "a") == set()
        killed.send_signal(signal.SIGKILL)
    asking = own if host is HERE else leases(tmp_path, THERE, Bucket(s3))

    assert asking.is_held("a") == (host is THERE)
    assert taken(asking, "a") == ({"a"} if host is HERE else set())
    assert Bucket(s3).names("leases") == ([] if host is HERE else ["a"])


def test_what_a_dead_process_here_has_left_does_not_keep_others_from_polling(
    tmp_path: Path,
) -> None:
    here, there = leases(tmp_path), leases(tmp_path, THERE)
    Bucket(ADDRESS).create("leases/b", canonical({"place": here._place, "length_s": 60}).encode())

    def stop() -> None:
        raise KeyboardInterrupt

    with (
        there.hold_free(["a"]),
        pytest.raises(KeyboardInterrupt),
        here.hold(["a", "b"], on_wait=ignore, poll=stop),
    ):
        pass
    assert objects("leases") == set()


def test_one_of_many_that_ask_at_once_gets_it(tmp_path: Path, s3: str) -> None:
    owners = [leases(tmp_path, Host(f"host{n}", f"boot-{n}"), Bucket(s3)) for n in range(8)]
    for turn in range(5):
        with ThreadPoolExecutor(len(owners)) as pool, ExitStack() as held:
            got = list(pool.map(lambda own: held.enter_context(own.hold_free(["a"])), owners))
            assert sum(map(len, got)) == 1, f"turn {turn}"


def test_forked_child_renews_and_gives_back_nothing(tmp_path: Path, s3: str) -> None:
    here = leases(tmp_path, bucket=Bucket(s3))
    there = leases(tmp_path, THERE, Bucket(s3))
    with here.hold_free(["a"]):
        child = os.fork()
        if not child:
            here._held["a"].give_back()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert taken(there, "a") == set()
        here.require("a")
