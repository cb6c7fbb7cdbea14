"""An MLflow client for any tracking URI: quiet, no telemetry, never a half-created database."""

import contextlib
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from filelock import FileLock

from spar_bench.errors import StoreError
from spar_bench.track.uri import artifact_root, masked, sqlite_path, without_passwords

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it prints a server's address for each run that ends, with the password in it.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A job worker for hosted evaluation would write to the same SQLite file, and lock it.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""What MLflow must find in its environment before it is imported or started."""

_PREFERENCES = {
    # MLflow logs a traceback for errors that are one line here.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    # The defaults, 7 times 120 seconds, would hold up a sweep whose server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_PORTS = {"http": 80, "https": 443}
_RESULT_PAGE = 1000


def connect(uri: str, *, patience_s: int = 5) -> Any:
    """Return an `mlflow.tracking.MlflowClient`; a missing SQLite file is created first.

    Raises:
        StoreError: the store cannot be reached within seconds, written or read.
    """
    os.environ.update(ENVIRONMENT)
    for name, value in _PREFERENCES.items():
        os.environ.setdefault(name, value)
    with answering(uri):
        database = sqlite_path(uri)
        if database is not None:
            _create(database)
            _probe(database)
        elif urlsplit(uri).scheme in _PORTS:
            _probe_server(uri, patience_s)
        else:
            _probe_other(uri)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        with _impatient(patience_s):  # a server is not contacted before the first call
            client.search_experiments(max_results=1)
    return client


def answers(uri: str) -> bool:
    """Whether a store exists; False for a SQLite file that is not created yet.

    Raises:
        StoreError: the store cannot be reached within seconds, written or read.
    """
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        return False
    connect(uri)
    return True


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn errors of reaching, writing or reading a store into one line; our bugs stay bugs.

    Raises:
        StoreError: naming the URI, with MLflow's reason.
    """
    try:
        yield
    except (OSError, sqlite3.Error, ModuleNotFoundError) as error:  # the last: no database driver
        raise StoreError(_line(uri, error)) from error
    except Exception as error:
        if not _is_stores_fault(error):
            raise
        raise StoreError(_line(uri, error)) from error


def search_runs(client: Any, experiment_ids: list[str], query: str) -> list[Any]:
    """Return every active run that the query finds."""
    if not experiment_ids:
        return []
    return list(_pages(client.search_runs, experiment_ids=experiment_ids, filter_string=query))


def experiments(client: Any) -> Iterator[Any]:
    """Yield every active experiment."""
    return _pages(client.search_experiments)


def _pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(**query, max_results=_RESULT_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def _impatient(timeout_s: int) -> Iterator[None]:
    values = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _create(database: Path) -> None:
    """Create a SQLite file with MLflow's tables, all or nothing.

    Two processes that let MLflow create its tables in one new file make it permanently unusable.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        unfinished = database.with_name(f"{database.name}.new")
        for suffix in ("", "-journal", "-wal", "-shm"):  # left by a killed process
            unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", artifact_root(database).as_uri())
        store.engine.dispose()
        with contextlib.closing(sqlite3.connect(unfinished)) as connection:
            # Readers then never wait for the writer; it is twice as fast when several sweeps write.
            connection.execute("PRAGMA journal_mode=WAL")
        os.replace(unfinished, database)


def _probe(database: Path) -> None:
    """Fail now if the file cannot be read or written: MLflow would try for 100 seconds."""
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("SELECT name FROM sqlite_master").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _probe_server(uri: str, timeout_s: int) -> None:
    """Fail now if nothing listens: MLflow would try for 15 seconds."""
    parts = urlsplit(uri)
    if parts.hostname is None:
        return
    if parts.scheme in getproxies() and not proxy_bypass(parts.hostname):
        return
    address = parts.hostname, parts.port or _PORTS[parts.scheme]
    with socket.create_connection(address, timeout=timeout_s):
        pass


def _probe_other(uri: str) -> None:
    """Fail now if another database refuses to be connected to: MLflow would try for 100 seconds."""
    if "://" not in uri or uri.startswith("databricks"):
        return
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
    except sqlalchemy.exc.NoSuchModuleError:  # no database: MLflow says what it knows
        return
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _is_stores_fault(error: Exception) -> bool:
    """Distinguish store errors of MLflow and its libraries from bugs, without importing them."""
    package = type(error).__module__.partition(".")[0]
    code = getattr(error, "error_code", None)
    if package == "mlflow":
        return code != "INVALID_PARAMETER_VALUE" or _is_of_scheme(error)
    return package in ("sqlalchemy", "alembic")


def _is_of_scheme(error: Exception) -> bool:
    return type(error).__name__.endswith("URIException")


def _line(uri: str, error: Exception) -> str:
    reason = without_passwords(" ".join(str(error).split()), uri)
    if _is_of_scheme(error):
        reason = "a scheme that it does not know"
    _, from_below, cause = reason.partition("(Caused by ")  # requests reports everything it tried
    reason = re.sub(r"<[^>]*>[:,]? ?", "", cause.removesuffix(")") if from_below else reason)[:200]
    return (
        f"tracking URI {masked(uri)}: must be a store that MLflow can read and write, but got "
        f"{reason}; "
        "make it so, or give another with --tracking-uri"
    )
