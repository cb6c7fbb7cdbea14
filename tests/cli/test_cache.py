"""`cache` beside running sweeps, on broken disks, and where weights and data are missing."""

import shutil
from pathlib import Path

import pytest

from spar_bench.files import replace_text
from spar_bench.leases import Host
from spar_bench.store import Store
from tests.small import copy_store, one_line, spar_bench, write_spec

MISSING_DATA = "backbone: {}\nevaluate: {{datasets: [{{path: nowhere}}]}}\n"


def n_finished() -> int:
    return len(list(Store(Path(".spar_bench")).finished()))


@pytest.mark.parametrize("host", [None, Host("elsewhere", "another boot")])
def test_gc_deletes_nothing_while_a_sweep_uses_the_store(
    here: Path, swept: Path, host: Host | None
) -> None:
    copy_store(swept)
    write_spec(Path("experiments/tiny.yaml").read_text().replace("[64, 32]", "[64]"))
    sweeping = Store(Path(".spar_bench"), lease_s=6.0, host=host)

    with sweeping.in_use(on_wait=print, poll=lambda: None):
        listed = spar_bench("cache", "gc")
        refused = spar_bench("cache", "gc", "--yes", exits=2)
    assert n_finished() == 15
    spar_bench("cache", "gc", "--yes")

    assert listed.stdout.splitlines()[-1].startswith("4 stages, ")
    assert "must not be in use while finished work is deleted, but process" in one_line(refused)
    assert n_finished() == 11


def test_sweep_that_died_does_not_keep_gc_from_deleting(here: Path, swept: Path) -> None:
    copy_store(swept)
    use = Path(".spar_bench/leases/use-0")
    use.parent.mkdir(exist_ok=True)
    use.write_text('{"host": "elsewhere", "boot_id": "another", "pid": 1, "length_s": 0.1}')

    spar_bench("cache", "gc", "--yes")

    assert n_finished() == 15


@pytest.mark.parametrize(
    ("backbone", "line"),
    [("patchwork", "0 stages, "), ("openclip-b16-laion2b", "3 stages, ")],
)
def test_gc_keeps_what_a_spec_may_need_whose_data_or_weights_are_missing(
    here: Path, swept: Path, backbone: str, line: str
) -> None:
    copy_store(swept)
    write_spec(Path("experiments/tiny.yaml").read_text().replace("[64, 32]", "[64]"))
    incomplete = write_spec(MISSING_DATA.format(backbone), "incomplete")
    store = Store(Path(".spar_bench"))
    replace_text(store.root / "scratch" / "left" / "owner" / "output" / "part", "12345")

    result = spar_bench("cache", "gc", "--yes")

    # For stride 32: its evaluation and its cost at two sizes; the timings state no backbone.
    assert result.stdout.splitlines()[-1].startswith(f"deleted {line}")
    assert one_line(result).startswith(f"{incomplete}: what it may need is kept, since it is unk")
    assert "nowhere" in one_line(result) or "weights" in one_line(result)
    assert (store.root / "scratch" / "left").exists()
    assert n_finished() == 15 - int(line[0])


def test_verify_reports_each_file_that_cannot_be_read(here: Path, swept: Path) -> None:
    copy_store(swept)
    manifests = sorted(Path(".spar_bench/stages/cost").glob("*/manifest.json"))
    [queries] = Path(".spar_bench/stages/text").glob("*/queries.safetensors")
    for path in (manifests[0], queries):
        path.unlink()
        path.symlink_to(path.name)  # reading it fails: too many levels of symbolic links

    result = spar_bench("cache", "verify", exits=1)

    assert result.stdout == "13 stages intact, 2 damaged\n"
    assert result.stderr.count("must be readable, but reading failed (Too many levels") == 2


@pytest.mark.parametrize("line", ["cache verify", "cache ls", "status", "sweep", "cache gc"])
def test_stages_that_cannot_be_listed_are_one_line(here: Path, swept: Path, line: str) -> None:
    spec = copy_store(swept)
    stages = Path(".spar_bench/stages")
    shutil.rmtree(stages)
    stages.symlink_to("stages")
    arguments = [*line.split(), *([spec] if line == "sweep" else [])]

    result = spar_bench(*arguments, exits=2)

    reason = "File exists" if line == "sweep" else "Too many levels of symbolic links"
    assert one_line(result).startswith(f"{here}/.spar_bench: must be ")
    assert reason in one_line(result)


@pytest.mark.parametrize("line", ["status", "plan experiments/tiny.yaml"])
def test_failure_that_cannot_be_read_is_one_line(here: Path, swept: Path, line: str) -> None:
    copy_store(swept)
    for folder in Path(".spar_bench/stages/evaluate").iterdir():
        shutil.rmtree(folder)
        Path(".spar_bench/failures", f"{folder.name}.json").write_text("{}")

    result = spar_bench(*line.split(), exits=2)

    assert "must be the record of a failure, but has other keys; delete it" in one_line(result)
