"""The page of a suite: the claims of all its experiments, then what each of them found."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from spar_bench.report.comparing import claims_data, claims_section, verdicts
from spar_bench.report.page import Block, File, Heading, Page, Text
from spar_bench.report.sections import Findings
from spar_bench.report.tables import notes, result_tables


def suite_page(name: str, findings: list[Findings], links: list[File]) -> Page:
    """Return the page of a suite of this name."""
    checked = [one for each in findings for one in each.claims]
    blocks: list[Block] = [
        Heading(name, level=1),
        Text(f"{len(findings)} experiments, swept as one: timings are of one session."),
        *claims_section(checked),
        *chain.from_iterable(_experiment(name, each) for each in findings),
        Heading("Files"),
    ]
    if checked:
        blocks.append(claims_data(checked))
    return Page(name, [*blocks, *links])


def _experiment(suite: str, found: Findings) -> Iterator[Block]:
    """Yield the question, tables and first figure of an experiment, and where its report lies."""
    results = found.results
    place = os.path.relpath(results.experiment, suite)
    yield Heading(results.experiment)
    if results.question:
        yield Text(results.question, "question")
    if found.paper:
        yield Text(f"Against the paper: {verdicts(one.verdict.word for one in found.paper)}.")
    yield from result_tables(found.aggregates) if found.aggregates else ()
    for line in notes(found.aggregates) if found.aggregates else ["No results yet."]:
        yield Text(line, "note")
    for figure in found.figures[:1]:
        yield replace(figure, name=f"{place}/{figure.name}")
    yield File(f"{place}/README.md", "the report of this experiment, with all that it found")
