"""What a report's folder holds, and what it was made of: one whose inputs are the same is kept.

Nothing that draws is imported here.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from spar_bench.files import file_sha256, replace_text
from spar_bench.libraries import installed_version
from spar_bench.stage import digest

MANIFEST = "manifest.json"
_DRAW = ("matplotlib", "seaborn", "pandas", "numpy", "jinja2", "pillow", "scipy")
"""Libraries that decide how a report looks, and its intervals."""
_PACKAGE = Path(__file__).parents[1]
_SOURCES = ("*.py", "report/**/*", "published/**/*", "patchwork/*.py", "spec/*.py", "session/*.py")


@dataclass(frozen=True)
class Manifest:
    """The SHA-256 of a report's files by name, and the digest of what decided them."""

    files: dict[str, str] = field(default_factory=dict)
    made_of: str = ""


def read_manifest(folder: Path) -> Manifest:
    """Return what the last report wrote into a folder; nothing if it left no readable note."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Manifest(dict(found["files"]), str(found["made_of"]))
    except (OSError, ValueError, LookupError, TypeError):
        return Manifest()


def note_files(folder: Path, paths: Iterable[Path]) -> None:
    """Note a report's files; what decided them is not known yet."""
    _save(folder, Manifest({path.name: file_sha256(path) for path in sorted(paths)}))


def note_origin(folder: Path, made_of: str) -> None:
    """Note what decided the files that a report has just written."""
    _save(folder, replace(read_manifest(folder), made_of=made_of))


def _save(folder: Path, manifest: Manifest) -> None:
    replace_text(folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def unchanged(folder: Path, made_of: str) -> list[Path] | None:
    """Return a report's files if they were made of the same and are all as they were, else None."""
    manifest = read_manifest(folder)
    if not made_of or manifest.made_of != made_of:
        return None
    paths = [folder / Path(name).name for name in manifest.files]
    are_same = (path.is_file() and file_sha256(path) == manifest.files[path.name] for path in paths)
    return [*paths, folder / MANIFEST] if all(are_same) else None


@cache
def code_digest() -> str:
    """Return the digest of all that turns results into a report: our sources, and libraries."""
    paths = sorted(
        {path for pattern in _SOURCES for path in _PACKAGE.glob(pattern) if path.is_file()}
    )
    ours = {
        path.relative_to(_PACKAGE).as_posix(): file_sha256(path)
        for path in paths
        if path.suffix != ".pyc"
    }
    return digest([ours, {name: installed_version(name) for name in _DRAW}])
