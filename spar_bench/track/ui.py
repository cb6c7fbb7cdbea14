"""Start MLflow's own web interface on the mirror."""

import ipaddress
import os
import socket
import sys

from spar_bench.errors import SparBenchError
from spar_bench.track.client import ENVIRONMENT, answering, connect
from spar_bench.track.mirror import end_dead_runs
from spar_bench.track.shown import HOST, PORT
from spar_bench.track.uri import artifact_root, masked, sqlite_path


def ui_command(uri: str, host: str = HOST, port: int = PORT) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves the interface, and the environment it needs.

    Dead sweeps' runs are first marked as KILLED, and a missing SQLite file is created.

    Raises:
        SparBenchError: the host is not this machine alone, the URI is a server's already, or the
            port is taken.
        StoreError: the tracking store cannot be reached, written or read.
    """
    if not _is_loopback(host):
        raise SparBenchError(
            "--host: must be this machine alone, since MLflow asks for no password, "
            f"but got {host!r}; use 127.0.0.1"
        )
    if uri.startswith(("http://", "https://")):
        raise SparBenchError(
            f"--tracking-uri: must be a database, but got a server, {masked(uri)!r}; open "
            "it in a browser"
        )
    _require_free(host, port)
    client = connect(uri)
    with answering(uri):
        end_dead_runs(client, uri)
    command = [sys.executable, "-m", "mlflow", "server"]
    database = sqlite_path(uri)
    if database is not None:
        command += ["--default-artifact-root", artifact_root(database).as_uri()]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # All users see a command, and the URI may hold a password.
    return command, {**os.environ, **ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}


def _require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # As the server does: a recently closed port counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise SparBenchError(
                f"--port: must be free, but opening {port} failed ({error.strerror}); give "
                "another, or stop what listens there"
            ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
