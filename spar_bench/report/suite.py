"""The page of a suite: the claims of all its experiments, then what each of them found."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from spar_bench.report.comparing import claims_files, claims_section, verdicts
from spar_bench.report.origins import origins_of
from spar_bench.report.page import Block, Figure, File, Heading, Page, Table, Text
from spar_bench.report.sections import Findings
from spar_bench.report.tables import notes, result_tables


def suite_page(
    name: str, findings: list[Findings], links: list[File], *, lacking: Sequence[str]
) -> Page:
    """Return the page of a suite of this name; its rows are those of one experiment after another.

    Charts are on the experiments' own pages. `lacking` are the experiments without a report.
    """
    numbers = [len(each.results.rows) for each in findings]
    firsts = list(accumulate(numbers[:-1], initial=0))
    checked = [
        replace(one, source=one.source and one.source.after(first))
        for first, each in zip(firsts, findings, strict=True)
        for one in each.claims
    ]
    blocks: list[Block] = [
        Heading(name, level=1),
        Text(_summary(findings, lacking)),
        *claims_section(checked),
    ]
    for first, each in zip(firsts, findings, strict=True):
        blocks += [_after(first, block) for block in _experiment(name, each)]
    for one in lacking:
        blocks += [Heading(one), Text(f"No report: spar-bench report {one} says why.", "note")]
    blocks += [Heading("Files"), *claims_files(checked)]
    runs = {key: run for each in findings for key, run in each.runs.items()}
    origins = origins_of([each.results for each in findings], runs)
    return Page(name, [*blocks, *links], origins)


def _summary(findings: list[Findings], lacking: Sequence[str]) -> str:
    """Return how many experiments there are, which have no report, and whose timings compare."""
    rows = [row for each in findings for row in each.results.rows]
    sessions = {row.stages["latency"] for row in rows if "latency" in row.stages}
    text = f"{len(findings) + len(lacking)} experiments, swept as one."
    if len(sessions) == 1:
        text += " Timings are of one session."
    elif sessions:
        text += f" Timings are of {len(sessions)} sessions: compare those of one experiment."
    if lacking:
        text += f" Without a report, so that claims they make are not run: {', '.join(lacking)}."
    return text


def _experiment(suite: str, found: Findings) -> Iterator[Block]:
    """Yield the question, tables and first figure of an experiment, and where its report lies."""
    results = found.results
    place = os.path.relpath(results.experiment, suite)
    yield Heading(results.experiment)
    if results.question:
        yield Text(results.question, "question")
    if found.paper:
        yield Text(f"Against the paper: {verdicts(one.verdict.word for one in found.paper)}.")
    yield from result_tables(found.aggregates, found.columns) if found.aggregates else ()
    for line in notes(found.aggregates) if found.aggregates else ["No results yet."]:
        yield Text(line, "note")
    for figure in found.figures[:1]:
        yield replace(figure, name=f"{place}/{figure.name}")
    yield File(f"{place}/README.md", "the report of this experiment, with all that it found")
    yield File(f"{place}/index.html", "the same to explore, with a chart")


def _after(n_rows: int, block: Block) -> Block:
    """Return a block whose numbers are of rows that stand after others."""
    match block:
        case Table():
            return _table_after(n_rows, block)
        case Figure(numbers=Table() as numbers):
            return replace(block, numbers=_table_after(n_rows, numbers))
    return block


def _table_after(n_rows: int, table: Table) -> Table:
    rows = [
        [replace(cell, source=cell.source and cell.source.after(n_rows)) for cell in row]
        for row in table.rows
    ]
    return replace(table, rows=rows)
