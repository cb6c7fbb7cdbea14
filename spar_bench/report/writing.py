"""Write a report into its folder: each file completely or not at all, none from an older one."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

from spar_bench.evaluations import Evaluations
from spar_bench.files import file_sha256, replace_text
from spar_bench.report.aggregates import Aggregate, read_aggregates
from spar_bench.report.claims import check_claims
from spar_bench.report.columns import chosen
from spar_bench.report.differences import comparisons
from spar_bench.report.figures import plan_figures
from spar_bench.report.fonts import warning, without_letters
from spar_bench.report.forks import Turns, in_forks, n_forks
from spar_bench.report.manifest import MANIFEST, note_files, read_manifest
from spar_bench.report.measuring import Resampler
from spar_bench.report.names import with_distinct_datasets
from spar_bench.report.page import Figure, File, Page
from spar_bench.report.paper import beside_the_paper
from spar_bench.report.plans import FigurePlan
from spar_bench.report.protocols import mixed_datasets, require_unmixed
from spar_bench.report.renderers import renderers
from spar_bench.report.sections import Findings, page_of
from spar_bench.report.style import save_and_embed
from spar_bench.report.suite import suite_page
from spar_bench.results import Results
from spar_bench.track import Runs

log = logging.getLogger(__name__)

FIGURE_ENDINGS = (".png", ".svg", ".pdf")
_MOST_FORKS = 4  # there are seldom more than eight figures


def write_report(
    results: Results,
    evaluations: Evaluations,
    folder: Path,
    *,
    mix_protocols: bool = False,
    columns: Sequence[str] = (),
    runs: Runs = MappingProxyType({}),
) -> tuple[list[Path], Findings]:
    """Write all files of the report of `results` into `folder`; return them, and what they show.

    Raises:
        MixedProtocols: rows of a data set have different protocols, and mixing is off.
        UnknownName: there is no such column.
    """
    asked = chosen(columns)
    results = with_distinct_datasets(results)
    if not mix_protocols:
        require_unmixed(results)
    folder.mkdir(parents=True, exist_ok=True)
    aggregates = read_aggregates(results, mixed=mixed_datasets(results))
    figures, drawn = _draw(results, aggregates, evaluations, folder)
    resampler = Resampler(evaluations)
    findings = Findings(
        results=results,
        aggregates=aggregates,
        comparisons=comparisons(aggregates, resampler),
        claims=check_claims(results, resampler),
        paper=beside_the_paper(results, resampler),
        figures=figures,
        links=_links(),
        columns=asked,
        runs=runs,
    )
    return _write(page_of(findings), drawn, folder), findings


def write_suite(
    name: str, findings: list[Findings], folder: Path, *, lacking: Sequence[str]
) -> list[Path]:
    """Write the page of a suite into `folder`, given what the reports of its experiments show.

    Those reports lie where `folder` and their names say: beside it, or in it. `lacking` are the
    experiments without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _write(suite_page(name, findings, _links(), lacking=lacking), [], folder)


def _links() -> list[File]:
    """Return the files that renderers write beside a page."""
    return [File(*file) for renderer in renderers() for file in renderer.FILES.items()]


def _write(page: Page, drawn: list[Path], folder: Path) -> list[Path]:
    """Write a page by all renderers beside what is drawn; return all paths."""
    found = renderers()
    texts = {name: text for renderer in found for name, text in renderer.render(page).items()}
    for name, text in texts.items():
        replace_text(folder / name, text)
    paths = [*(folder / name for name in texts), *drawn]
    _remove_stale(folder, {path.name for path in paths})
    note_files(folder, paths)
    return [*paths, folder / MANIFEST]


def _draw(
    results: Results, aggregates: list[Aggregate], evaluations: Evaluations, folder: Path
) -> tuple[list[Figure], list[Path]]:
    """Draw the figures, on all cores; return their blocks and their files."""
    names, n = list(_names(results, aggregates)), n_forks(most=_MOST_FORKS)
    turns = Turns(n)

    def share(_: int) -> dict[int, Figure]:
        drawn, mine = dict[int, Figure](), turns.take()
        for place, plan in enumerate(plan_figures(results, aggregates, evaluations)):
            if place == mine:
                drawn[place] = _drawn(plan, folder, names)
                mine = turns.take()
        return drawn

    by_place = {place: figure for drawn in in_forks(share, n) for place, figure in drawn.items()}
    figures = [by_place[place] for place in sorted(by_place)]
    boxed = without_letters(names) if figures else []
    if boxed:
        log.warning("%s: %s", results.experiment, warning(boxed))
    return figures, [path for figure in figures for path in _paths(folder, figure.name)]


def _drawn(plan: FigurePlan, folder: Path, names: list[str]) -> Figure:
    """Draw and write a figure; return its block."""
    svg = save_and_embed(plan.draw, *_paths(folder, plan.name), names=names)
    return Figure(plan.name, plan.caption, svg, plan.numbers)


def _paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{ending}" for ending in FIGURE_ENDINGS]


def _names(results: Results, aggregates: list[Aggregate]) -> Iterator[str]:
    """Yield the names in figures that a user chose."""
    yield from (name for names in results.classes.values() for name in names)
    yield from (name for each in aggregates for name in (each.panel.dataset, each.label))


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Remove what an earlier report wrote and this one does not, unless altered since."""
    for name, checksum in read_manifest(folder).files.items():
        path = folder / Path(name).name
        if name not in current and path.is_file() and file_sha256(path) == checksum:
            path.unlink()
