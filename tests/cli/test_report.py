"""`report` and `cache` as typed on the command line."""

import csv
import shutil
from pathlib import Path

import pytest

from spar_bench.files import replace_text
from spar_bench.store import Store
from tests.small import TINY, copy_store, one_line, spar_bench, write_spec


def test_report_of_a_spec_or_of_all_writes_tables_and_figures(
    in_swept: Path, tmp_path: Path
) -> None:
    spar_bench("report", "experiments/tiny.yaml", "--folder", str(tmp_path / "one"))
    result = spar_bench("report", "--folder", str(tmp_path / "all"))

    assert result.stderr == ""
    assert f"start with {tmp_path}/all/tiny/README.md" in result.stdout
    names = sorted(path.name for path in (tmp_path / "all" / "tiny").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one" / "tiny").iterdir())
    with (tmp_path / "all" / "tiny" / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished"] * 4


@pytest.mark.parametrize("has_browser", [True, False])
def test_open_shows_the_last_page_or_says_where_it_lies(
    in_swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_browser: bool
) -> None:
    shown = list[str]()

    def show(address: str) -> bool:
        shown.append(address)
        return has_browser

    monkeypatch.setattr("webbrowser.open", show)

    result = spar_bench("report", "tiny", "--folder", str(tmp_path / "a b"), "--open")

    address = (tmp_path / "a b" / "tiny" / "index.html").as_uri()
    assert shown == [address]
    assert (address in result.stdout) is not has_browser


def test_report_without_results_is_one_line_and_makes_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    for arguments in ([], ["stride"]):
        result = spar_bench("report", *arguments, exits=2)

        assert "must hold a finished sweep, but holds none" in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_unknown_experiment_is_one_line_and_the_others_are_written(
    in_swept: Path, tmp_path: Path
) -> None:
    result = spar_bench("report", "strid", "tiny", "--folder", str(tmp_path), exits=2)

    assert "must hold results of 'strid'" in one_line(result)
    assert result.stdout.startswith(f"{tmp_path}/tiny: ")
    assert (tmp_path / "tiny" / "results.csv").exists()


def test_report_into_a_folder_that_cannot_be_written_is_one_line(
    in_swept: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    result = spar_bench("report", "--folder", str(tmp_path / "file" / "reports"), exits=2)

    assert "must be a writable folder" in one_line(result)


def test_report_has_the_columns_that_are_asked_for_and_names_those_it_does_not_know(
    in_swept: Path, tmp_path: Path
) -> None:
    spar_bench("report", "tiny", "--folder", str(tmp_path), "--columns", "gflops, miou")
    result = spar_bench("report", "tiny", "--columns", "gflop", exits=2)

    page = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "| GFLOPs | mIoU (%) |" in page
    assert "Windows" not in page
    assert one_line(result).endswith("but got 'gflop'; did you mean 'gflops'?")


def test_gc_deletes_what_no_spec_reaches_and_keeps_the_rest(here: Path, swept: Path) -> None:
    spec = Path(copy_store(swept))
    spec.write_text(spec.read_text().replace("[64, 32]", "[64]"))

    told = spar_bench("cache", "gc")
    n_told = len(list(Store(Path(".spar_bench")).finished()))
    deleted = spar_bench("cache", "gc", "--yes")

    # For stride 32: its evaluation, its cost at two sizes, and the timings of all arms.
    assert told.stdout.splitlines()[-1].startswith("4 stages, ")
    assert n_told == 15
    assert deleted.stdout.splitlines()[-1].startswith("deleted 4 stages, ")
    kinds = [stage.manifest["kind"] for stage in Store(Path(".spar_bench")).finished()]
    assert sorted(kinds) == ["cost"] * 4 + ["evaluate"] * 3 + [
        "images",
        "student",
        "targets",
        "text",
    ]


def test_gc_deletes_unfinished_work_unless_someone_is_at_it(here: Path, swept: Path) -> None:
    copy_store(swept)
    store = Store(Path(".spar_bench"))
    shutil.rmtree(store.root / "pictures", ignore_errors=True)
    replace_text(store.root / "pictures" / "key" / "panel.png", "12345")
    for fingerprint in ("left", "held"):
        replace_text(store.root / "scratch" / fingerprint / "output" / "part", "12345")

    with store.lock(["held"], on_wait=print, poll=lambda: None):
        told = spar_bench("cache", "gc")
        deleted = spar_bench("cache", "gc", "--yes")

    assert told.stdout.splitlines() == [
        "unfinished  left  5 bytes",
        "pictures, redrawn when needed  5 bytes",
        "1 stage, 10 bytes would be deleted; --yes deletes them",
    ]
    assert deleted.stdout.splitlines()[-1] == "deleted 1 stage, 10 bytes"
    assert not (store.root / "pictures").exists()
    assert [path.name for path in (store.root / "scratch").iterdir()] == ["held"]


def test_gc_keeps_what_more_seeds_were_swept_with(here: Path, swept: Path) -> None:
    copy_store(swept)
    text = Path("experiments/tiny.yaml").read_text()
    Path("experiments/tiny.yaml").write_text(text.replace("backbone:", "seeds: [3]\nbackbone:"))

    assert spar_bench("cache", "gc").stdout.splitlines()[-1].startswith("0 stages")
    Path(".spar_bench/results/tiny/results.json").unlink()  # as if it had been interrupted
    assert spar_bench("cache", "gc").stdout.splitlines()[-1].startswith("0 stages")
    shutil.rmtree(".spar_bench/results")
    assert "4 stages, " in spar_bench("cache", "gc").stdout


def test_gc_deletes_nothing_where_a_spec_cannot_be_read(here: Path, swept: Path) -> None:
    copy_store(swept)
    wrong = write_spec("teachr: {}\n", "wrong")

    result = spar_bench("cache", "gc", "--yes", exits=2)

    assert one_line(result).startswith(f"{wrong}:")
    assert one_line(result).count("wrong.yaml:") == 1
    assert len(list(Store(Path(".spar_bench")).finished())) == 15


def test_gc_without_specs_deletes_nothing(here: Path, swept: Path) -> None:
    copy_store(swept)
    shutil.rmtree("experiments")
    Path("experiments").mkdir()

    result = spar_bench("cache", "gc", "--yes", exits=2)

    assert "must hold specs, but has no YAML file" in one_line(result)
    assert len(list(Store(Path(".spar_bench")).finished())) == 15


@pytest.mark.parametrize(
    ("line", "exits"),
    [
        ("cache ls", 0),
        ("cache verify", 0),
        ("cache gc --yes", 0),
        ("status", 0),
        ("plan experiments/tiny.yaml", 0),
        ("sweep experiments/tiny.yaml --dry-run", 0),
        ("explain stride_px=32", 2),
        ("doctor", 0),
    ],
)
def test_looking_at_a_store_that_is_not_there_makes_none(here: Path, line: str, exits: int) -> None:
    write_spec(TINY)

    spar_bench(*line.split(), "--store", "none", exits=exits)

    assert not Path("none").exists()


@pytest.mark.parametrize(
    "line",
    ["cache ls", "cache verify", "plan experiments/tiny.yaml", "sweep experiments/tiny.yaml"],
)
def test_looking_at_what_is_no_store_is_one_line(here: Path, line: str) -> None:
    write_spec(TINY)
    Path("a_file").write_text("")
    Path("newer").mkdir()
    Path("newer/store.json").write_text('{"format":3}')

    at_file = spar_bench(*line.split(), "--store", "a_file", exits=2)
    at_newer = spar_bench(*line.split(), "--store", "newer", exits=2)

    assert "must be a writable folder, but writing failed (Not a directory: " in one_line(at_file)
    assert "must be a store of format 2, but is of format 3" in one_line(at_newer)


def test_cache_ls_lists_kinds_with_their_sizes(in_swept: Path) -> None:
    lines = spar_bench("cache", "ls").stdout.splitlines()

    assert [line.split()[:2] for line in lines[1:]] == [
        ["cost", "6"],
        ["evaluate", "4"],
        ["images", "1"],
        ["latency", "1"],
        ["student", "1"],
        ["targets", "1"],
        ["text", "1"],
        ["total", "15"],
    ]
