"""A store of the earlier format: refused in one line by every command, and left as it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from spar_bench.store import FORMAT
from tests.small import TINY, one_line, spar_bench, write_spec

STUDENT = "5" * 64
FILES: dict[str, Any] = {
    "store.json": {"format": 1},
    f"stages/student/{STUDENT}/trained.safetensors": "weights",
    f"stages/student/{STUDENT}/curve.json": [[1, 0.5, 0]],
    f"scratch/{'6' * 64}/output/000000.safetensors": "half a stage",
    f"failures/{'7' * 64}.json": {"reason": "x", "outcome": "failed", "final": True, "at_ms": 0},
    f"locks/{STUDENT}": "",
    "results/tiny/sweep.json": {"seeds": [0], "spec": "../experiments/tiny.yaml"},
    "results/tiny/counts.safetensors": "counts",
    "results/tiny/previews.safetensors": "previews",
    "results/tiny/results.json": {
        "format": 1, "experiment": "tiny", "question": "Does it run?", "rows": [], "costs": [],
        "classes": {}, "preview_names": {}, "provenance": {}, "objectives": {}, "images": {},
        "protocols": {},
    },
    "studies/8.journal": "{}",
    "pictures/9/panel.png": "a picture",
}  # fmt: skip
"""The layout of format 1, which had locks instead of leases, and counts beside results."""


@pytest.fixture
def old(here: Path) -> Path:
    """A folder with a spec and a store of format 1 in it."""
    write_spec(TINY)
    store = here / ".spar_bench"
    for name, value in FILES.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(value if isinstance(value, str) else json.dumps(value))
    stage = store / "stages" / "student" / STUDENT
    manifest: dict[str, Any] = {
        "kind": "student", "version": 1, "settings": {}, "inputs": {}, "files": {},
        "summary": {}, "made": {},
    }  # fmt: skip
    for path in list(stage.iterdir()):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": sha256}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    (stage / "manifest.json").write_text(json.dumps(manifest | {"sha256": sha256}, indent=1))
    return store


def tree(store: Path) -> dict[str, tuple[bytes | None, int]]:
    """Return every file and folder of a store with its bytes and time of change."""
    return {
        str(path.relative_to(store)): (
            path.read_bytes() if path.is_file() else None,
            path.stat().st_mtime_ns,
        )
        for path in [store, *store.rglob("*")]
    }


@pytest.mark.parametrize(
    "line",
    [
        "sweep experiments/tiny.yaml",
        "sweep experiments/tiny.yaml --only stride_px=64 --seeds 2",
        "plan experiments/tiny.yaml",
        "status",
        "report",
        "report tiny",
        "mirror",
        "explain tiny",
        "cache ls",
        "cache verify",
        "cache gc",
        "cache gc --yes",
        "export tiny --format timm --to exported",
        f"export .spar_bench/stages/student/{STUDENT} --format timm --to exported",
        "import weights.safetensors --backbone patchwork",
    ],
)
def test_store_of_the_earlier_format_is_refused_in_one_line_and_left_as_it_is(
    old: Path, line: str
) -> None:
    Path("weights.safetensors").write_text("weights")
    before = tree(old)

    refused = spar_bench(*line.split(), exits=2)

    assert one_line(refused) == (
        f"{old}: must be a store of format {FORMAT}, but is of format 1; keep it for the release "
        "that made it and give another by --store, or delete it"
    )
    assert tree(old) == before
    assert not Path("exported").exists()
    assert not Path("reports").exists()
