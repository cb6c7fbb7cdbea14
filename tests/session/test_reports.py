"""Reports are written from the store alone, each into a folder of its experiment's name."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spar_bench.errors import MixedProtocols, NotReady
from spar_bench.results import RESULTS_FORMAT, Results
from spar_bench.session.reports import write_report
from spar_bench.session.selection import note_suite
from spar_bench.store import Store
from tests.report.synthetic import results_of
from tests.small import copy_store, one_line, spar_bench
from tests.track.conftest import make_row, query

RESULTS = Path(".spar_bench/results")


def save(*experiments: str) -> None:
    """Save the results of a teacher under each name, without its evaluation."""
    for experiment in experiments:
        results_of([make_row()], experiment=experiment).save(RESULTS / experiment)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["../../x", "a/../stride", "/tmp/x", ".", "x" * 256, "", "strid"])
def test_name_that_is_no_experiments_is_refused_and_the_others_are_written(name: str) -> None:
    save("stride", "paper/stride")

    with pytest.raises(NotReady, match=r"must hold results of .*, but no sweep of it has finished"):
        write_report([name, "paper/stride"])

    written = [path for path in Path("reports").rglob("*") if path.is_file()]
    assert {path.parent for path in written} == {Path("reports/paper/stride")}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("typed", "way_out"),
    [
        ("strid", "did you mean 'stride'? If not, run spar-bench sweep on its spec first"),
        ("a b c ü", "did you mean 'a_b_c_ü'? If not, run spar-bench sweep on its spec first"),
        ("loss", "run spar-bench sweep on its spec first, or use one of a_b_c_ü, stride"),
    ],
)
def test_misspelt_experiment_gets_the_nearest_that_was_swept(typed: str, way_out: str) -> None:
    save("stride", "a_b_c_ü")

    with pytest.raises(NotReady) as refused:
        write_report(typed)

    assert str(refused.value).endswith(f" has finished there; {way_out}")


@pytest.mark.usefixtures("here")
def test_results_of_another_format_are_one_line_and_the_others_are_written() -> None:
    save("old", "stride")
    old = RESULTS / "old" / "results.json"
    before = old.read_text().replace(f'"format": {RESULTS_FORMAT}', '"format": 1')
    old.write_text(before)

    refused = spar_bench("report", exits=2)

    assert (
        "another version of spar-bench wrote it; nothing is lost: the next sweep of old rewrites it"
        in refused.stderr
    )
    assert [path.name for path in Path("reports").iterdir()] == ["stride"]
    assert old.read_text() == before


@pytest.mark.usefixtures("here")
def test_several_protocols_in_one_table_are_refused_unless_told_and_others_are_written() -> None:
    save("alone")
    rows = [make_row(), make_row(protocol="other", stages={"evaluate": "b"}, method="pretrained")]
    results_of(rows, experiment="mixed").save(RESULTS / "mixed")

    refused = spar_bench("report", exits=2)
    written = {path.name for path in Path("reports").iterdir()}
    spar_bench("report", "--mix-protocols")

    assert "all rows of patchwork must have one protocol, but have paper and other, " in (
        refused.stderr
    )
    assert written == {"alone"}
    assert "| Protocol |" in Path("reports/mixed/table.md").read_text()
    with pytest.raises(MixedProtocols):
        write_report("mixed", folder="again")


def test_the_page_links_each_number_to_its_run_without_mlflow(here: Path, swept: Path) -> None:
    copy_store(swept)
    Path("mlflow.db").unlink()

    written = write_report("tiny")["tiny"]

    [page] = [path for path in written if path.name == "index.html"]
    urls = set(re.findall(r'"url":"([^"]+)"', page.read_text()))
    runs = query(f"sqlite:///{swept}/mlflow.db", "SELECT experiment_id, run_uuid, name FROM runs")
    assert urls == {
        f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run}"
        for experiment, run, name in runs
        if not name.startswith("tiny ")
    }
    assert len(urls) == 4


@pytest.mark.usefixtures("here")
def test_a_damaged_note_of_runs_is_one_line_and_the_others_are_written() -> None:
    save("bad", "stride")
    (RESULTS / "bad" / "mlflow.json").write_text("{")

    with pytest.raises(NotReady, match=r"mlflow\.json: must be JSON, .*; delete it$"):
        write_report()

    assert [path.name for path in Path("reports").iterdir()] == ["stride"]


def test_evaluations_no_longer_in_the_store_are_one_line_and_the_rest_is_written(
    here: Path, swept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy_store(swept)
    whole = write_report("tiny", folder="whole")["tiny"]
    rows = Results.load(RESULTS / "tiny").rows
    gone = {row.stages["evaluate"] for row in rows if row.method == "teacher"}
    for fingerprint in gone:
        shutil.rmtree(Path(".spar_bench/stages/evaluate", fingerprint))

    written = write_report("tiny", folder="part")["tiny"]

    [line] = [record.message for record in caplog.records]
    assert line == (
        f"tiny: 2 evaluations must be in {Path('.spar_bench').absolute()} for differences, classes "
        "and pictures, but cannot be read there, and the report does without; run spar-bench sweep "
        "on its spec again, then report"
    )
    assert [path.name for path in written] == [path.name for path in whole]
    same = {"results.csv", "costs.csv"}
    for name in same:
        assert Path("part/tiny", name).read_bytes() == Path("whole/tiny", name).read_bytes()
    compared = [Path(folder, "tiny/differences.csv").read_text() for folder in ("whole", "part")]
    assert ["teacher" in text for text in compared] == [True, False]
    assert all("SPAR" in text for text in compared)


def test_damaged_evaluation_is_left_out_too(here: Path, swept: Path) -> None:
    copy_store(swept)
    [row] = [row for row in Results.load(RESULTS / "tiny").rows if row.method == "student"]
    counts = Path(".spar_bench/stages/evaluate", row.stages["evaluate"], "counts.safetensors")
    damaged = bytearray(counts.read_bytes())
    damaged[-1] ^= 1
    counts.write_bytes(damaged)

    write_report("tiny")

    assert "SPAR" not in Path("reports/tiny/differences.csv").read_text()


def test_report_imports_neither_mlflow_nor_torch(here: Path, swept: Path) -> None:
    copy_store(swept)
    Path("mlflow.db").unlink()
    code = (
        "import sys; from spar_bench.cli import main\n"
        "try: main(['report', 'tiny'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print({'mlflow', 'torch'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert not Path("mlflow.db").exists()


@pytest.mark.usefixtures("here")
def test_sweep_without_a_finished_trial_has_no_report() -> None:
    failed = replace(make_row(), status="failed", miou=None)
    results_of([failed], experiment="failed").save(RESULTS / "failed")

    assert "failed: must have a finished trial to report, but none of 1 is" in one_line(
        spar_bench("report", "failed", exits=2)
    )


def note_pair() -> None:
    """Record that two experiments were swept as a suite."""
    note_suite(Path("pair"), ["first", "second"], Store(Path(".spar_bench")))


@pytest.mark.usefixtures("here")
def test_suite_of_which_nothing_finished_has_no_page_and_a_line_for_each_experiment() -> None:
    note_pair()

    refused = spar_bench("report", "--suite", exits=2).stderr.splitlines()

    assert [line.partition("results of ")[2].partition(",")[0] for line in refused] == [
        "'first'",
        "'second'",
    ]
    assert not Path("reports").exists()


@pytest.mark.usefixtures("here")
def test_suite_names_an_experiment_without_results_on_its_page_and_once_as_an_error() -> None:
    note_pair()
    save("first")

    refused = spar_bench("report", "pair", "second", exits=2)

    assert refused.stderr.count("must hold results of 'second'") == 1
    page = Path("reports/pair/README.md").read_text()
    assert "Without a report, so that claims they make are not run: second." in page
    assert "## second\n" in page


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", ["{}", '{"experiments": []}', '{"experiments": [1]}'])
def test_record_of_a_suite_that_names_no_experiments_is_one_line(text: str) -> None:
    note_pair()
    save("first")
    Path(RESULTS, "pair/suite.json").write_text(text)

    refused = one_line(spar_bench("report", exits=2))

    assert "pair/suite.json: must hold the names of a suite's experiments, but does" in refused
