"""Two nodes in namespaces of their own, joined by a network that can be cut; needs root, Linux."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

HOST, PORT = "10.77.0.1", 6399
HEAD = f"{HOST}:{PORT}"
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "8",
}
"""Ray declares a node dead that does not answer 8 times, after 8 to 16 seconds."""


def are_possible() -> bool:
    """Return whether this process can make namespaces."""
    return os.getuid() == 0 and all(map(shutil.which, ("ip", "unshare")))


class Nodes:
    """The nodes, by name; each reaches the other, at `HEAD` the first, and nothing else.

    `home` is the home folder of both, where Ray's token is.
    """

    def __init__(self, home: Path) -> None:
        self.first, self.second = (f"spar-{os.getpid()}-{number}" for number in (1, 2))
        self._home = home

    def __enter__(self) -> Self:
        folder = self._home / ".ray"
        folder.mkdir(parents=True)
        (folder / "auth_token").write_text("a" * 64)
        (folder / "auth_token").chmod(0o600)
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        for name in (self.first, self.second):
            subprocess.run(["ip", "netns", "del", name], check=False)
            shutil.rmtree(_temporary(name), ignore_errors=True)

    def _make(self) -> None:
        for name in (self.first, self.second):
            _temporary(name).mkdir()
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ends = ["netns", self.first, "type", "veth", "peer", "name", "v1", "netns", self.second]
        _ip("link", "add", "v1", *ends)
        for number, name in enumerate((self.first, self.second), start=1):
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "v1")
            _ip("-n", name, "link", "set", "v1", "up")

    def cut(self) -> None:
        """Cut the network between them."""
        _ip("-n", self.second, "link", "set", "v1", "down")

    def mend(self) -> None:
        """Join them again."""
        _ip("-n", self.second, "link", "set", "v1", "up")

    def command(self, name: str, *command: str) -> list[str]:
        """Return what runs a command on a node; when it ends, all ends that it has started there.

        It has its own process numbers, since Ray looks for others by them.
        """
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(_temporary(name)),
            "HOME": str(self._home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **HEALTH,
        }
        return [
            *("ip", "netns", "exec", name),
            *("unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"),
            *("env", *(f"{key}={value}" for key, value in environment.items())),
            *command,
        ]


def _temporary(name: str) -> Path:
    return Path("/tmp", name)  # a socket's path is short


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
