"""Write a report into its folder: each file completely or not at all, none from an older one."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from spar_bench.files import file_sha256, replace_text
from spar_bench.report.arms import Arm, read_arms
from spar_bench.report.figures import plan_figures
from spar_bench.report.fonts import warning, without_letters
from spar_bench.report.frames import costs_frame, differences_frame, results_frame
from spar_bench.report.page import page, table_latex, table_markdown
from spar_bench.report.protocols import mixed_datasets, require_unmixed
from spar_bench.report.style import save_as
from spar_bench.results import Results

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def write_report(results: Results, folder: Path, *, mix_protocols: bool = False) -> list[Path]:
    """Write all files of the report of `results` into `folder`, and return their paths.

    Raises:
        MixedProtocols: rows of a data set have different protocols, and mixing is off.
    """
    if not mix_protocols:
        require_unmixed(results)
    folder.mkdir(parents=True, exist_ok=True)
    arms = read_arms(results, mixed=mixed_datasets(results))
    differences = differences_frame(results, arms)
    figures = plan_figures(results, arms)
    drawn, names = [], list(_names(results, arms))
    for figure in figures:
        paths = [folder / f"{figure.name}{ending}" for ending in (".png", ".svg")]
        save_as(figure.draw, *paths, names=names)
        drawn += paths
    boxed = without_letters(names) if figures else []
    if boxed:
        log.warning("%s: %s", results.experiment, warning(boxed))
    texts = {
        "results.csv": results_frame(results).to_csv(index=False),
        "costs.csv": costs_frame(results).to_csv(index=False),
        "differences.csv": differences.to_csv(index=False),
        "table.md": table_markdown(results, arms) + "\n",
        "table.tex": table_latex(results, arms),
        "protocols.json": json.dumps(results.protocols, indent=2, sort_keys=True) + "\n",
        "provenance.json": json.dumps(results.provenance, indent=2, sort_keys=True) + "\n",
        "README.md": page(results, arms, figures, differences),
    }
    for name, content in texts.items():
        replace_text(folder / name, content)
    paths = [*(folder / name for name in texts), *drawn]
    _remove_stale(folder, {path.name for path in paths})
    replace_text(folder / MANIFEST, json.dumps(_checksums(paths), indent=1) + "\n")
    return [*paths, folder / MANIFEST]


def _names(results: Results, arms: list[Arm]) -> Iterator[str]:
    """Yield the names in figures that a user chose."""
    yield from (name for names in results.classes.values() for name in names)
    yield from (name for arm in arms for name in (arm.panel.dataset, arm.label))


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Remove what an earlier report wrote and this one does not, unless altered since."""
    manifest = folder / MANIFEST
    earlier = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    for name, checksum in earlier.items():
        path = folder / Path(name).name
        if name not in current and path.is_file() and _checksums([path])[path.name] == checksum:
            path.unlink()


def _checksums(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(paths)}
