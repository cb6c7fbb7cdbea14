"""Reports are written into the folder that is asked for, whatever an experiment is called."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from spar_bench.errors import MixedProtocols, NotReady
from spar_bench.session.reports import write_report
from tests.small import one_line, spar_bench
from tests.track.conftest import make_row, make_trial, mirror, uri

__all__ = ["uri"]


def rename(uri: str, experiment: str, name: str) -> None:
    """Rename an experiment as MLflow does, which asks no more of a name than that it is new."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE experiments SET name = ? WHERE name = ?", (name, experiment))


def test_names_that_lead_elsewhere_are_refused_and_the_others_are_written(
    uri: str, tmp_path: Path
) -> None:
    names = ["../../x", f"{tmp_path}/x", "a/../../../x", "a//b", ".", "x" * 256]
    folder = tmp_path / "deep" / "reports"
    mirror(uri, tmp_path, [make_trial()])
    for name in names:
        mirror(uri, tmp_path, [make_trial()], experiment="to be renamed")
        rename(uri, "to be renamed", name)
    before = set(tmp_path.rglob("*"))

    with pytest.raises(NotReady) as caught:
        write_report(folder=folder, tracking_uri=uri)

    lines = str(caught.value).splitlines()
    assert lines == [
        f"{uri}: an experiment's name must be valid as a folder below {folder}, but got {name!r}; "
        "rename it in MLflow"
        for name in sorted(names)
    ]
    written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert {path.parent for path in written} == {folder / "stride"}


@pytest.mark.parametrize("name", ["paper/stride", "Größer..(2)"])
def test_name_with_a_slash_or_odd_letters_is_a_folder_below(
    uri: str, tmp_path: Path, name: str
) -> None:
    mirror(uri, tmp_path, [make_trial()], experiment=name)

    written = write_report([name], folder=tmp_path / "reports", tracking_uri=uri)

    assert {path.parent for path in written[name]} == {tmp_path / "reports" / name}
    assert (tmp_path / "reports" / name / "README.md").is_file()


def test_several_protocols_in_one_table_are_refused_unless_told_and_others_are_written(
    uri: str, tmp_path: Path
) -> None:
    rows = [make_row(), make_row(protocol="other", stages={"evaluate": "b"}, method="pretrained")]
    mirror(uri, tmp_path, [make_trial()], experiment="alone")
    mirror(uri, tmp_path, [make_trial(rows=rows)], experiment="mixed")
    to = ["--folder", str(tmp_path / "reports"), "--tracking-uri", uri]

    refused = spar_bench("report", *to, exits=2)
    written = {path.name for path in (tmp_path / "reports").iterdir()}
    told = spar_bench("report", *to, "--mix-protocols")

    assert "all rows of patchwork must have one protocol, but have paper and other, " in (
        one_line(refused)
    )
    assert written == {"alone"}
    assert len(told.stdout.splitlines()) == 2
    assert "| Protocol |" in (tmp_path / "reports" / "mixed" / "table.md").read_text()
    with pytest.raises(MixedProtocols):
        write_report("mixed", folder=tmp_path / "again", tracking_uri=uri)
