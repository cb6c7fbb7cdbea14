"""Where the mirror is, by option, environment and default."""

from pathlib import Path

import pytest

from spar_bench.errors import SparBenchError
from spar_bench.track import masked, tracking_uri
from spar_bench.track.uri import without_passwords


def test_default_is_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_option_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///of/environment.db")

    assert tracking_uri(None) == f"sqlite:///{tmp_path}/of/environment.db"
    assert tracking_uri("sqlite:////absolute.db") == "sqlite:////absolute.db"
    assert tracking_uri("http://host:5000") == "http://host:5000"


def test_sqlite_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert tracking_uri("sqlite:///~/mine.db") == f"sqlite:///{tmp_path}/mine.db"


@pytest.mark.parametrize(
    "uri",
    [
        *("mlruns", "./mlflow.db", "file:///mlruns", "sqlite:///50%.db"),
        *("http://", "http://host:port", "http://:5000", "https://host:70000"),
    ],
)
def test_what_mlflow_cannot_write_is_refused_in_one_line(uri: str) -> None:
    with pytest.raises(SparBenchError, match=r"^--tracking-uri: .*, but got '.*'; .*[^.]$"):
        tracking_uri(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://lab:s3cret@db:5432/x", "postgresql://lab:***@db:5432/x"),
        (
            "postgresql://lab:a%40b:c@d@db/x?sslmode=require",
            "postgresql://lab:***@db/x?sslmode=require",
        ),
        ("https://lab:s3cret@host/path?token=abc&x=1", "https://lab:***@host/path?token=***&x=1"),
        ("mysql+pymysql://db/x?password=a%20b", "mysql+pymysql://db/x?password=***"),
        ("postgresql://lab:pa/s?s#@db/x", "postgresql://lab:***@db/x"),
        ("https://t0ken@host/path", "https://***@host/path"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("postgresql://lab@db/x", "postgresql://lab@db/x"),
        ("sqlite:////tmp/a:b@c/mlflow.db", "sqlite:////tmp/a:b@c/mlflow.db"),
    ],
)
def test_passwords_are_never_shown(uri: str, expected: str) -> None:
    assert masked(uri) == expected


def test_passwords_are_taken_out_of_what_libraries_say() -> None:
    uri = "postgresql://lab:a%40b@db/x?sslpassword=s3cret"

    told = without_passwords("no a@b, no a%40b, and no s3cret for lab", uri)

    assert told == "no ***, no ***, and no *** for lab"
