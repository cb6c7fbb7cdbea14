"""Where MLflow shows a sweep: its runs' ids, kept beside its results, so that a report can link."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from spar_bench.errors import StoreError
from spar_bench.files import read_json, replace_text
from spar_bench.stage import digest
from spar_bench.track.uri import sqlite_path

HOST, PORT = "127.0.0.1", 5000
"""Where `spar-bench ui` serves MLflow's interface, unless it is given another port."""

_FILE = "mlflow.json"


class RunLink(NamedTuple):
    """A run: its id, its address, and the command that must serve it there, "" for a server."""

    id: str
    url: str
    command: str


Runs = Mapping[tuple[str, str, str], RunLink]
"""Runs by experiment, trial and method."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sweep in MLflow: `runs` has their ids by `RunRecord.key`.

    `server` is the address of a server, without the name and password of a user; "" if the sweep is
    shown in a database. The digests are those of the tracking URI, which may hold a password, and
    of the results that were shown last.
    """

    server: str
    experiment_id: str
    runs: dict[str, str]
    uri_sha256: str = ""
    results_sha256: str = ""

    def link(self, key: str) -> RunLink:
        """Return where the run of that key is shown."""
        base, command = (self.server, "") if self.server else (address(), "spar-bench ui")
        run_id = self.runs[key]
        return RunLink(run_id, f"{base}/#/experiments/{self.experiment_id}/runs/{run_id}", command)

    def has(self, uri: str, results: str) -> bool:
        """Say whether a store shows these results, as far as can be told without MLflow.

        A server is not asked; a database is, for its runs, in MLflow's own tables.
        """
        if (self.uri_sha256, self.results_sha256) != (digest(uri), digest(results)):
            return False
        database = sqlite_path(uri)
        return bool(self.server) if database is None else self._is_in(database)

    def _is_in(self, database: Path) -> bool:
        ids = list(self.runs.values())
        query = (
            "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active' AND status != 'RUNNING' "
            f"AND run_uuid IN ({', '.join('?' * len(ids))})"
        )
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                [(n_found,)] = connection.execute(query, ids)
        except sqlite3.Error:  # it is gone, or MLflow has other tables by now: MLflow tells
            return False
        return bool(n_found == len(ids))

    def save(self, folder: Path) -> None:
        """Write the record into the folder of a sweep's results.

        Raises:
            StoreError: the disk is full, or the folder is not writable.
        """
        replace_text(folder / _FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Shown | None":
        """Read the record, if there is one.

        Raises:
            StoreError: it cannot be read.
        """
        path = folder / _FILE
        if not path.exists():
            return None
        document = read_json(path)
        try:
            return cls(**document)
        except TypeError as error:
            raise StoreError(
                f"{path}: must hold the ids of a sweep's runs in MLflow, but has other keys; "
                "delete it, and spar-bench mirror writes it again"
            ) from error


def address(host: str = HOST, port: int = PORT) -> str:
    """Return where the interface of a database is served."""
    return f"http://{host}:{port}"


def server_of(uri: str) -> str:
    """Return the address of a server, without the name and password of a user; "" for others."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
