"""One worker process a device, or several on the CPU: JSON lines in and out by pipes."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress

from spar_bench.backends._link import Link, Together
from spar_bench.backends._pool import Pool

VERSION = 1
LOOPBACK = {
    variable: name
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for _, name in socket.if_nameindex()
    if name == "lo"
}
"""By which processes of one machine that train together listen on 127.0.0.1 alone."""


class Backend(Pool):
    """Makes batches in worker processes of this machine, one batch each at a time."""

    def n_slots(self) -> int:
        """Return how many devices are named."""
        return len(self.setup.devices)

    def launch(
        self, slots: Sequence[int], command: list[str], places: Sequence[Mapping[str, str]]
    ) -> Link:
        """Launch a worker on the devices of its slots."""
        if self.setup.threads is not None:
            command = [*command, "--threads", str(self.setup.threads)]
        with ExitStack() as on_failure:
            started = list[Link]()
            for slot, place in zip(slots, places, strict=True):
                environment = {**LOOPBACK, **os.environ, **place} if place else None
                named = [*command, "--device", self.setup.devices[slot]]
                started.append(Process(named, environment=environment))
                on_failure.callback(started[-1].kill)
            on_failure.pop_all()
        return Together(started) if started[1:] else started[0]


class Process:
    """A child process; its pipes end with it, and it ends soon after this process."""

    def __init__(
        self,
        command: list[str],
        *,
        folder: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a command, by default in this process's folder and environment."""
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
        )

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None, "it is started with a pipe"
        with suppress(BrokenPipeError, ValueError):  # it has died, which its reader reports
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def lines(self) -> Iterator[str]:
        """Yield the lines of its output, until it ends."""
        assert self._process.stdout is not None, "it is started with a pipe"
        with self._process.stdout as lines:
            yield from lines

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end."""
        try:
            self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close its input."""
        assert self._process.stdin is not None, "it is started with a pipe"
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    @property
    def ending(self) -> str:
        """How it ended."""
        return f"its worker ended with code {self._process.returncode}"
