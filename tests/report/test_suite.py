"""The page of a suite: a number is of its own experiment's rows, a drawing in its folder."""

import re
from dataclasses import asdict, replace

import pytest

from spar_bench.claims import Claim, Selected
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.claims import check_claims
from spar_bench.report.measuring import Resampler
from spar_bench.report.page import Block, Cell, Figure, Heading, Page, Table, Text
from spar_bench.report.renderers.html import PAGE, render
from spar_bench.report.sections import Findings
from spar_bench.report.suite import suite_page
from spar_bench.report.tables import result_tables
from spar_bench.results import Row
from spar_bench.track import RunLink
from tests.report.synthetic import InMemory, baseline, results_of, students, teacher

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="200pt" height="100pt" viewBox="0 0 2 1">
<path id="a" d="M0 0"/></svg>"""
BETTER = Claim(
    text="Windows are better",
    paper="",
    quantity="miou",
    form="difference",
    sides=[
        [Selected("the teacher", ["stride_px=16", "stride_px=12"], "teacher")],
        [Selected("the single pass", ["a"], "pretrained")],
    ],
    expected=0.01,
    line=3,
)


def findings_of(experiment: str, rows: list[Row]) -> Findings:
    """Return what a report shows of rows: a claim, a table, and a figure with its numbers."""
    rows = [replace(one, experiment=experiment) for one in rows]
    results = results_of(rows, experiment=experiment, claims=[asdict(BETTER)])
    aggregates = read_aggregates(results)
    figure = Figure("accuracy", "A figure.", SVG, result_tables(aggregates)[0])
    claims = check_claims(results, Resampler(InMemory()))
    return Findings(results, aggregates, [], claims, [], [figure], [])


@pytest.fixture
def page() -> Page:
    """Return the page of two experiments; the second one's rows follow five of the first one."""
    first = findings_of("pair/first", [baseline(30), *students("all", 42), teacher(16, 44)])
    second = findings_of("pair/second", [baseline(31), teacher(12, 45)])
    return suite_page("pair", [first, second], [], lacking=["pair/third"])


def tables_below(page: Page, title: str) -> list[Table]:
    """Return the tables between a title and the next, those of figures included."""
    found: list[Block] = []
    is_below = False
    for block in page.blocks:
        is_below = block.text == title if isinstance(block, Heading) else is_below
        found += [block] if is_below else []
    shown = [block.numbers if isinstance(block, Figure) else block for block in found]
    return [block for block in shown if isinstance(block, Table)]


def numbers_below(page: Page, title: str) -> list[tuple[Cell, list[str], list[float]]]:
    """Return each number below a title, with its rows' experiments and values."""
    rows, columns = page.origins["rows"], page.origins["columns"]
    return [
        (
            cell,
            [rows[row]["values"][columns.index("experiment")] for row in cell.source.rows],
            [rows[row]["values"][columns.index(cell.source.column)] for row in cell.source.rows],
        )
        for table in tables_below(page, title)
        for line in table.rows
        for cell in line
        if cell.source is not None
    ]


@pytest.mark.parametrize("name", ["pair/first", "pair/second"])
def test_a_number_is_of_rows_of_its_own_experiment(page: Page, name: str) -> None:
    found = numbers_below(page, name)

    assert {one for _, experiments, _ in found for one in experiments} == {name}
    assert len(tables_below(page, name)) == 2
    assert all(cell.value == values[0] for cell, _, values in found if len(values) == 1)


def test_a_claim_is_of_the_rows_that_it_compares(page: Page) -> None:
    found = numbers_below(page, "Claims")

    assert [(cell.text, *others) for cell, *others in found] == [
        ("+14.0 points", ["pair/first"] * 2, [0.44, 0.3]),
        ("+14.0 points", ["pair/second"] * 2, [0.45, 0.31]),
    ]


def test_a_trial_of_each_experiment_has_its_own_run() -> None:
    links = {name: RunLink(name, f"http://127.0.0.1:5000/{name}", "") for name in ("one", "two")}
    both = [
        replace(findings_of(name, [baseline(30)]), runs={(name, "a-0", "pretrained"): links[name]})
        for name in links
    ]

    origins = suite_page("pair", both, [], lacking=[]).origins

    assert [row["run"]["id"] for row in origins["rows"]] == ["one", "two"]


def test_one_filter_stands_before_all_experiments(page: Page) -> None:
    written = render(page)[PAGE]

    before, after = written.split('<form id="filter"')
    assert before.rstrip().endswith("</section>")
    assert "pair/first</h2>" in after


def test_figures_lie_in_their_experiments_folders_and_keep_their_drawings(page: Page) -> None:
    figures = [block.name for block in page.blocks if isinstance(block, Figure)]

    written = render(page)[PAGE]

    assert figures == ["first/accuracy", "second/accuracy"]
    assert 'href="second/accuracy.svg"' in written
    assert 'id="second:accuracy-a"' in written
    assert 'href="second/index.html"' in written


def test_drawings_of_folders_that_read_alike_have_ids_of_their_own() -> None:
    figures = [Figure(name, "it", svg=SVG) for name in ("a/b_c", "a_b/c")]

    written = render(Page("pair", [Heading("pair", level=1), *figures]))[PAGE]

    ids = re.findall(r'id="([^"]*-a)"', written)
    assert len(ids) == len(set(ids)) == 2


def test_page_names_the_experiments_without_a_report(page: Page) -> None:
    texts = [block.text for block in page.blocks if isinstance(block, Heading | Text)]

    assert texts[1] == (
        "3 experiments, swept as one. Without a report, so that claims they make are not run: "
        "pair/third."
    )
    after = texts[texts.index("pair/third") :]
    assert after == ["pair/third", "No report: spar-bench report pair/third says why.", "Files"]


@pytest.mark.parametrize(
    ("sessions", "text"),
    [
        ("ss", "2 experiments, swept as one. Timings are of one session."),
        ("st", "2 experiments, swept as one. Timings are of 2 sessions: compare those of one "
               "experiment."),
    ],
)  # fmt: skip
def test_page_says_of_how_many_sessions_timings_are(sessions: str, text: str) -> None:
    findings = [
        findings_of(f"pair/{session}", [replace(baseline(30), stages={"latency": session})])
        for session in sessions
    ]

    assert suite_page("pair", findings, [], lacking=[]).blocks[1] == Text(text)
