"""Unfinished work: its folders in a store, by the fingerprint of the stage that it is of."""

import os
from pathlib import Path

from spar_bench.files import subfolders

_PARTS = "parts-"


def adopt(folder: Path) -> None:
    """Rename the newest work that others left beside a folder to it; leave the rest."""

    def changed_ns(other: Path) -> int:
        return max(path.stat().st_mtime_ns for path in (other, *other.iterdir()))

    left = [one for one in subfolders(folder.parent) if not one.name.startswith(_PARTS)]
    if left:
        os.rename(max(left, key=changed_ns), folder)


def parts_folder(root: Path, fingerprint: str, name: str) -> Path:
    """Return the folder of what several processes make of a stage together, part by part."""
    return root / "scratch" / fingerprint / f"{_PARTS}{name}"
