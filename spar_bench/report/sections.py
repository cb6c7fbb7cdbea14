"""The sections of a report: what each says about a sweep's results, as blocks of a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from spar_bench.report.aggregates import Aggregate
from spar_bench.report.chart import chart_of
from spar_bench.report.claims import Checked
from spar_bench.report.columns import Column
from spar_bench.report.comparing import claims_files, claims_section, paper_files, paper_section
from spar_bench.report.data import costs_data, differences_data, results_data, sizes_data
from spar_bench.report.difference_tables import difference_blocks
from spar_bench.report.differences import Comparison
from spar_bench.report.main_table import NOTE, main_table
from spar_bench.report.origins import origins_of
from spar_bench.report.over_sizes import sizes_section
from spar_bench.report.page import Block, Document, Figure, File, Heading, Page, Text
from spar_bench.report.paper import Beside
from spar_bench.report.protocols import protocol_lines, skipped_lines
from spar_bench.report.tables import notes, result_tables
from spar_bench.results import Results
from spar_bench.track import Runs


@dataclass(frozen=True)
class Findings:
    """What a report shows of a sweep; `links` are the further files that renderers write.

    `columns` are those that were asked for; none: all that say something. `runs` are those that
    show rows in MLflow.
    """

    results: Results
    aggregates: list[Aggregate]
    comparisons: list[Comparison]
    claims: list[Checked]
    paper: list[Beside]
    figures: list[Figure]
    links: list[File]
    columns: Sequence[Column] = ()
    runs: Runs = field(default_factory=dict)


def page_of(findings: Findings) -> Page:
    """Return the page of a sweep's report."""
    blocks = [block for section in SECTIONS for block in section(findings)]
    return Page(findings.results.experiment, blocks, origins_of([findings.results], findings.runs))


def head(findings: Findings) -> Iterator[Block]:
    """Yield the name, the question, and a warning if weights are random."""
    yield Heading(findings.results.experiment, level=1)
    if findings.results.question:
        yield Text(findings.results.question, "question")
    if any(row.random_weights for row in findings.results.rows):
        yield Text(
            "Some weights are random: their mIoU, differences and figures say nothing about a "
            "trained model; costs are valid.",
            "warning",
        )


def claims(findings: Findings) -> Iterator[Block]:
    """Yield the table of the spec's claims, if it makes any."""
    yield from claims_section(findings.claims)


def paper(findings: Findings) -> Iterator[Block]:
    """Yield the table of the paper's numbers beside ours, if the spec names one."""
    yield from paper_section(findings.paper)


def summary(findings: Findings) -> Iterator[Block]:
    """Yield the table in the form of the paper's main one, for a sweep on several data sets."""
    table = main_table(findings.results, findings.aggregates)
    if table is not None:
        yield table
        yield Text(NOTE, "note")


def chart(findings: Findings) -> Iterator[Block]:
    """Yield the chart of accuracy against cost, if a point has both."""
    found = chart_of(findings.results, findings.aggregates)
    if found is not None:
        yield found


def accuracy_and_cost(findings: Findings) -> Iterator[Block]:
    """Yield the tables of accuracy and cost, and the notes that explain them."""
    results, aggregates = findings.results, findings.aggregates
    if not aggregates:
        yield Text("No results yet.", "note")
        return
    yield Heading("Results")
    yield from result_tables(aggregates, findings.columns)
    for line in (*notes(aggregates), *skipped_lines(results), *protocol_lines(results)):
        yield Text(line, "note")
    devices = dict.fromkeys(row.cost.device for row in results.rows if row.cost.device)
    if devices:
        yield Text(f"Costs were measured on: {'; '.join(devices)}.")


def over_sizes(findings: Findings) -> Iterator[Block]:
    """Yield the table of costs over the sizes of images, if any data set has several."""
    yield from sizes_section(findings.results)


def figures(findings: Findings) -> Iterator[Block]:
    """Yield the figures, if there are any."""
    if findings.figures:
        yield Heading("Figures")
        yield from findings.figures


def differences(findings: Findings) -> Iterator[Block]:
    """Yield the tables of paired differences, if there are any."""
    yield from difference_blocks(findings.comparisons)


def remarks(findings: Findings) -> Iterator[Block]:
    """Yield a remark for each row without a result, or with one that needs a remark."""
    lines = [
        f"{row.trial}, {row.method}, {row.dataset} at {row.eval_short_side_px} px: "
        + row.status.replace("_", " ")
        + (f" ({row.reason})" if row.reason else "")
        for row in findings.results.rows
        if row.status != "finished" or row.reason
    ]
    if lines:
        yield Heading("Remarks")
        yield from (Text(line, "remark") for line in dict.fromkeys(lines))


def files(findings: Findings) -> Iterator[Block]:
    """Yield the files beside the page."""
    results = findings.results
    yield Heading("Files")
    yield results_data(results)
    yield costs_data(results)
    if results.sizes:
        yield sizes_data(results)
    yield differences_data(findings.comparisons)
    yield from claims_files(findings.claims)
    yield from paper_files(findings.paper)
    yield from findings.links
    about = "what each protocol says, by its name in results.csv"
    yield Document("protocols.json", about, results.protocols)
    about = "commit, spec, seeds, versions, device, checksums of weights"
    yield Document("provenance.json", about, results.provenance)


SECTIONS = [
    head, claims, paper, summary, chart, accuracy_and_cost, over_sizes, figures, differences,
    remarks, files,
]  # fmt: skip
"""In the order in which a reader meets them."""
