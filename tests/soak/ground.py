"""What the soak stands on: a disk that can be filled and locked, a database, and a bucket."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

DISK_MIB = 96
PORT = 54399
S3_PORT = 54398
S3_ENVIRONMENT = {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{S3_PORT}",
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "s3cret",
}


class Disk:
    """A file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        size = f"size={DISK_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.folder], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()
        subprocess.run(["umount", "-l", self.folder], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), self._ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()

    def empty(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def lock(self) -> None:
        """Let nothing be created, renamed or deleted in any folder."""
        self._change("+i")

    def unlock(self) -> None:
        """Undo `lock`."""
        self._change("-i")

    def _change(self, flag: str) -> None:
        folders = [path for path, _, _ in os.walk(self.folder)]
        subprocess.run(["chattr", flag, *folders], stderr=subprocess.DEVNULL)


class Database:
    """A PostgreSQL server on the loopback, run by the user `postgres`; needs root."""

    def __init__(self, folder: Path, port: int = PORT) -> None:
        self._port = port
        self._data, self._log = folder / "data", folder / "log"
        self._folder = folder
        self.uri = f"postgresql+psycopg2://postgres:s3cret@127.0.0.1:{port}/postgres"

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        shutil.chown(self._folder, "postgres")
        password = self._folder / "password"
        password.write_text("s3cret")
        self._as_postgres("initdb", "-D", self._data, "-A", "scram-sha-256", f"--pwfile={password}")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._as_postgres("pg_ctl", "-D", self._data, "-l", self._log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """End the server as a crash does."""
        self._as_postgres("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def _as_postgres(self, *command: str | Path) -> None:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", *map(str, command)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )


class Service:
    """A server that speaks S3, with one bucket, in memory."""

    def __enter__(self) -> Self:
        import fsspec

        os.environ.update(S3_ENVIRONMENT)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(S3_PORT)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while True:
            try:
                fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
                return self
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Have it answer nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it answer what was asked meanwhile, too."""
        self._process.send_signal(signal.SIGCONT)
