"""Where the MLflow mirror is: the tracking URI, and for SQLite the files that belong to it."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from spar_bench.errors import SparBenchError

_SQLITE = "sqlite:///"
_OF_A_SERVER = re.compile(r"(https?://(?:[^:/?#@]*:)?)([^/?#@]+)(?=@)")
_OF_A_DATABASE = re.compile(r"((?!https?:)\b[\w+]+://[^:/?#@]*:)(.*)(?=@)")
_OF_AN_OPTION = re.compile(r"([?&][^=&]*(?:pass|token|secret|key)[^=&]*=)([^&#]*)", re.IGNORECASE)
_PASSWORDS = (_OF_A_SERVER, _OF_A_DATABASE, _OF_AN_OPTION)
"""Where a URI has passwords: what comes before one, and the password."""


def tracking_uri(option: str | None) -> str:
    """Return the option, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.

    A SQLite path is made absolute: MLflow would follow every later change of directory.

    Raises:
        SparBenchError: it is a folder or a `file:` URI, which MLflow no longer writes, a SQLite
            path that MLflow would misread, or a server without a host.
    """
    uri = option or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    path = sqlite_path(uri)
    place = "--tracking-uri" if option else "MLFLOW_TRACKING_URI"
    if path is not None:
        # SQLAlchemy releases differ in whether they decode these in a path.
        if set("%?#") & set(str(path)):
            raise SparBenchError(
                f"{place}: a SQLite path must have no %, ? or # in it, but got {str(path)!r}; "
                "give another, such as sqlite:////tmp/mlflow.db"
            )
        return f"{_SQLITE}{path}"
    scheme = uri.partition("://")[0]
    if uri.startswith("file:") or (scheme == uri and not uri.startswith("databricks")):
        raise SparBenchError(
            f"{place}: must be a database or a server, but got {masked(uri)!r}; "
            "use sqlite:///mlflow.db or http://host:port"
        )
    if scheme in ("http", "https") and not _has_host(uri):
        raise SparBenchError(
            f"{place}: a server must have a host, and a port must be a number, but got "
            f"{masked(uri)!r}; use http://host:port"
        )
    return uri


def masked(uri: str) -> str:
    """Return a URI as it may be printed: its passwords as `***`."""
    for pattern in _PASSWORDS:
        uri = pattern.sub(lambda found: f"{found[1]}***", uri)
    return uri


def require_no_password(uri: str) -> None:
    """Refuse a URI that is written to files and to output.

    Raises:
        SparBenchError: it has a password.
    """
    if masked(uri) != uri:
        raise SparBenchError(
            f"{masked(uri)}: must have no password in it, but has one; give it as its library "
            "reads it from the environment"
        )


def without_passwords(text: str, uri: str) -> str:
    """Return a text in which the passwords of a URI are `***`, as it has them, or decoded."""
    found = [one[2] for pattern in _PASSWORDS for one in pattern.finditer(uri)]
    for one in sorted({*found, *map(unquote, found)} - {""}, key=len, reverse=True):
        text = text.replace(one, "***")
    return text


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or too large
        return False


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite file, None for any other store."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(os.path.abspath(os.path.expanduser(uri.removeprefix(_SQLITE))))


def artifact_root(database: Path) -> Path:
    """Return the folder with the artifacts of a SQLite store: beside the file."""
    return database.parent / "mlartifacts"
