"""Leases: one owner at a time, a dead one is replaced, and a replaced one finds out."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from spar_bench.errors import LeaseLost, StoreError
from spar_bench.leases import Host, Leases

HERE, THERE = Host("here", "boot-1"), Host("there", "boot-2")
LENGTH_S = 0.6
MOST_POLLS = 13
"""A lease's length takes at most 12 polls: a pause is at least a twelfth of it."""
OWNER = """
import os, sys, time
from pathlib import Path
from spar_bench.leases import Host, Leases
folder, name, length_s, more = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
own = Leases(folder, length_s, Host(name, "boot of " + name))
def quietly(*names): return own.hold(names, on_wait=lambda _: None, poll=lambda: None)
"""


class Owner:
    """A process that runs code with its own `own: Leases`, and is talked to line by line."""

    def __init__(
        self, folder: Path, host: Host, code: str, *, length_s: float = LENGTH_S, more: str = ""
    ) -> None:
        arguments = [str(folder), host.name, str(length_s), more]
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Wait for its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it read a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it, as a power cut would."""
        self.process.kill()
        self.ends()

    def ends(self) -> int:
        """Wait for its exit code."""
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return code


HOLDING = """
from spar_bench.errors import LeaseLost
with quietly("a"):
    print("held", flush=True)
    sys.stdin.readline()
    try: own.require("a"); print("published", flush=True)
    except LeaseLost: print("lost", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holding(
    folder: Path, host: Host, code: str = HOLDING, length_s: float = LENGTH_S
) -> Iterator[Owner]:
    """Have another process on a host hold lease `a`."""
    owner = Owner(folder, host, code, length_s=length_s)
    assert owner.line() == "held"
    try:
        yield owner
    finally:
        owner.kill()


def boot_of(host: Host) -> Host:
    return Host(host.name, f"boot of {host.name}")


class Waiter:
    """An owner in this process, with what its waiting has called."""

    def __init__(self, folder: Path, host: Host, length_s: float = LENGTH_S) -> None:
        self.leases = Leases(folder, length_s, boot_of(host))
        self.waited, self.n_polls = list[str](), 0

    def hold(self, *names: str) -> AbstractContextManager[None]:
        def poll() -> None:
            self.n_polls += 1

        return self.leases.hold(names, on_wait=self.waited.append, poll=poll)


def test_lease_is_held_by_one_at_a_time_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second, ended = Waiter(tmp_path, HERE), Waiter(tmp_path, HERE), list[str]()

    def take() -> None:
        with second.hold("b", "a"):
            ended.append("second")

    with first.hold("a"):
        thread = threading.Thread(target=take)
        thread.start()
        while second.n_polls < 3:
            thread.join(0.01)
        assert first.leases.is_own("a")
        assert second.leases.is_held("a")
        ended.append("first")
    thread.join(20)

    assert (second.waited, ended) == (["a"], ["first", "second"])
    assert list(tmp_path.iterdir()) == []


def test_leases_that_are_not_free_are_not_waited_for_if_so_asked(tmp_path: Path) -> None:
    first, second = Waiter(tmp_path, HERE), Waiter(tmp_path, THERE)

    with first.hold("b"), second.leases.hold_free(["b", "a"]) as own:
        assert own == {"a"}
        assert first.leases.is_held("a")
    with second.leases.hold_free(["b", "a"]) as own:
        assert own == {"a", "b"}

    assert list(tmp_path.iterdir()) == []


def test_error_while_waiting_gives_back_what_is_held(tmp_path: Path) -> None:
    def stop() -> NoReturn:
        raise KeyboardInterrupt

    first, second = Waiter(tmp_path, HERE), Leases(tmp_path, LENGTH_S, HERE)
    with first.hold("b"):
        waiting = second.hold(["a", "b"], on_wait=lambda _: None, poll=stop)
        with pytest.raises(KeyboardInterrupt), waiting:
            pytest.fail("b is held elsewhere")
        assert not second.is_held("a")


def test_owner_that_was_killed_on_this_host_is_not_waited_for(tmp_path: Path) -> None:
    waiter = Waiter(tmp_path, HERE, length_s=60)

    with holding(tmp_path, HERE, length_s=60) as owner:
        assert waiter.leases.is_held("a")
        owner.kill()
        with waiter.hold("a"):
            pass

    assert (waiter.waited, waiter.n_polls) == ([], 0)


def test_children_of_a_killed_owner_do_not_hold_its_lease(tmp_path: Path) -> None:
    code = """
with quietly("a"):
    if os.fork() == 0:
        print("held", os.getpid(), sep="\\n", flush=True)
        time.sleep(600)
    sys.stdin.readline()
"""
    waiter = Waiter(tmp_path, HERE, length_s=60)

    with holding(tmp_path, HERE, code, length_s=60) as owner:
        child = int(owner.line())
        owner.kill()
        with waiter.hold("a"):
            os.kill(child, signal.SIGKILL)  # it lived until now

    assert waiter.n_polls == 0


def test_child_of_an_owner_has_no_lease_and_leaves_the_parents_alone(tmp_path: Path) -> None:
    code = """
from spar_bench.errors import LeaseLost
with quietly("a"):
    if os.fork() == 0:
        own.require_unbroken()
    os.wait()
    print("held", flush=True)
    own.require("a")
    print("own", flush=True)
"""
    with holding(tmp_path, HERE, code) as owner:
        assert owner.line() == "own"


@pytest.mark.parametrize("n_names", [1, 4])
def test_owner_that_died_on_another_host_is_waited_for_as_long_as_its_lease(
    tmp_path: Path, n_names: int
) -> None:
    names = "abcd"[:n_names]
    waiter = Waiter(tmp_path, HERE, length_s=60)
    with holding(tmp_path, THERE, HOLDING.replace('"a"', "*'abcd'")) as owner:
        owner.kill()

        with waiter.hold(*names):
            pass

    assert waiter.waited == ["a"]
    assert 1 <= waiter.n_polls <= MOST_POLLS


def test_owner_that_died_before_it_wrote_its_name_is_waited_for_as_long(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    waiter = Waiter(tmp_path, HERE)

    with waiter.hold("a"):
        pass

    assert 1 <= waiter.n_polls <= MOST_POLLS


def test_owner_that_lives_on_another_host_is_not_replaced(tmp_path: Path) -> None:
    length_s, got = 2.0, list[bool]()
    waiter = Waiter(tmp_path, HERE, length_s)

    def take() -> None:
        with waiter.hold("a"):
            got.append(waiter.leases.is_own("a"))

    with holding(tmp_path, THERE, length_s=length_s) as owner:
        thread = threading.Thread(target=take)
        thread.start()
        while waiter.n_polls <= MOST_POLLS:
            thread.join(0.05)
        owner.go_on()

        assert owner.line() == "published"
        owner.go_on()
        thread.join(20)
    assert got == [True]


@pytest.mark.parametrize("host", [HERE, THERE])
def test_paused_owner_is_replaced_and_finds_out_when_it_wakes(tmp_path: Path, host: Host) -> None:
    waiter = Waiter(tmp_path, HERE)
    with holding(tmp_path, host) as owner:
        owner.process.send_signal(signal.SIGSTOP)
        with waiter.hold("a"):
            owner.process.send_signal(signal.SIGCONT)
            owner.go_on()

            assert owner.line() == "lost"
            owner.go_on()
            owner.process.wait()
            waiter.leases.require("a")


def test_owner_that_was_replaced_learns_it_from_the_next_renewal(tmp_path: Path) -> None:
    own = Waiter(tmp_path, HERE)

    def work() -> NoReturn:
        (tmp_path / "a").write_text("another's")
        while True:
            own.leases.require_unbroken()

    with pytest.raises(LeaseLost, match=r"a: must be held by whoever publishes"), own.hold("a"):
        work()

    assert (tmp_path / "a").read_text() == "another's"


def test_error_of_an_owner_that_was_replaced_is_that_its_lease_is_lost(tmp_path: Path) -> None:
    own = Waiter(tmp_path, HERE)

    def fail() -> NoReturn:
        (tmp_path / "a").unlink()
        raise ZeroDivisionError

    with pytest.raises(LeaseLost), own.hold("a"):
        fail()


def test_lease_that_was_never_taken_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(LeaseLost):
        Leases(tmp_path).require("a")


COUNTING = """
for _ in range(int(more)):
    with quietly("a"):
        os.close(os.open(folder / "one.inside", os.O_CREAT | os.O_EXCL))
        count = int((folder / "count").read_text() or 0)
        (folder / "count").write_text(str(count + 1))
        (folder / "one.inside").unlink()
"""


@pytest.mark.parametrize("is_held_by_the_dead", [False, True])
def test_eight_processes_on_two_hosts_take_turns(tmp_path: Path, is_held_by_the_dead: bool) -> None:
    (tmp_path / "count").touch()
    if is_held_by_the_dead:
        with holding(tmp_path, Host("gone", "")) as dead:
            dead.kill()
    length_s = 30.0 if not is_held_by_the_dead else LENGTH_S

    owners = [
        Owner(tmp_path, host, COUNTING, length_s=length_s, more="4") for host in [HERE, THERE] * 4
    ]

    assert [owner.ends() for owner in owners] == [0] * 8
    assert (tmp_path / "count").read_text() == "32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["count"]


def test_whether_an_owner_lives_is_seen(tmp_path: Path) -> None:
    watcher = Leases(tmp_path, LENGTH_S, boot_of(HERE))
    for host in (HERE, THERE):
        with holding(tmp_path, host) as owner:
            assert watcher.names("") == ["a"]
            assert watcher.is_alive("a")
            assert watcher.owner_of("a") == f"process {owner.process.pid} on {host.name}"
            owner.kill()
            assert not watcher.is_alive("a")


def test_name_of_an_owner_is_that_of_a_file_and_its_own(tmp_path: Path) -> None:
    odd = Host("a/../b ä", "")

    first, second = Leases(tmp_path, 1.0, odd).owner, Leases(tmp_path, 1.0, odd).owner

    assert first != second
    assert first.startswith("a----b---")
    assert not set("/. ä") & set(first)


def test_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "leases").touch()

    with pytest.raises(StoreError, match="leases: must be a writable folder"):
        Waiter(tmp_path / "leases", HERE).hold("a").__enter__()
