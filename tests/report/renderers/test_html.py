"""The page as one HTML file: complete, escaped, accessible, and without any request."""

import base64
import hashlib
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.page import (
    Block,
    Cell,
    Document,
    Figure,
    File,
    Heading,
    Page,
    Source,
    Table,
    Text,
)
from spar_bench.report.renderers.html import PAGE, render
from spar_bench.report.sections import Findings, page_of
from spar_bench.results import Results
from tests.report.synthetic import (
    baseline,
    results_of,
    row,
    stride_results,
    students,
    teacher,
    training,
)

ODD = "</script><script>alert('\"&\u2028é')</script> \u202eשלום"
SVG = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="200pt"
 height="100pt" viewBox="0 0 200 100"><metadata>by</metadata><defs><style>* {fill: red}</style>
<path id="a" d="M0 0"/><clipPath id="b"/></defs><g id="c" clip-path="url(#b)"><use
 xlink:href="#a"/><text>a &lt; b</text></g></svg>"""
VOID = {"meta", "link", "input", "br", "img"}


@dataclass
class Element:
    """An element: its name, attributes, and all text inside it."""

    name: str
    attributes: dict[str, str]
    inside: list[str]
    text: str = ""


@dataclass
class Reader(HTMLParser):
    """Reads all elements of a document, and refuses those that are not closed in order."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inside = [each.name for each in self.open]
        element = Element(tag, {name: value or "" for name, value in attrs}, inside)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read(written: str) -> list[Element]:
    """Return the elements of a document that is closed as it was opened."""
    reader = Reader()
    reader.feed(written)
    reader.close()
    assert reader.open == []
    return reader.elements


def named(elements: list[Element], *names: str) -> list[Element]:
    """Return the elements of these names."""
    return [element for element in elements if element.name in names]


def page_for(results: Results, figures: list[Figure] | None = None) -> Page:
    """Return the page of results without evaluations."""
    return page_of(Findings(results, read_aggregates(results), [], [], [], figures or [], []))


def html(results: Results, figures: list[Figure] | None = None) -> str:
    """Return the written page of results."""
    return render(page_for(results, figures))[PAGE]


def data_of(elements: list[Element]) -> Any:
    """Return the JSON that scripts read."""
    (found,) = (e for e in named(elements, "script") if e.attributes.get("id") == "data")
    return json.loads(found.text)


def odd_results() -> Results:
    """Return results in which every text that a user may choose is hostile."""
    changes: dict[str, Any] = {"dataset": ODD, "backbone": ODD, "group": ODD, "experiment": ODD}
    rows = [baseline(38, **changes), *students(ODD, 45, loss=ODD, **changes)]
    rows.append(row("teacher", None, status="failed", reason=ODD, **changes))
    return results_of(rows, experiment=ODD, question=ODD, spec=ODD)


def test_blocks_keep_their_order_and_headings_theirs() -> None:
    blocks: list[Block] = [
        Heading("stride", level=1),
        Text("Why?", "question"),
        Text("Random.", "warning"),
        Heading("Claims"),
        Table("Claims", [("", 1)], ["Claim"], [[Cell("holds")]], n_text=1),
        Heading("Remarks"),
        Text("one", "remark"),
        Text("two", "remark"),
        Heading("Files"),
        File("a b.csv", "rows"),
        Document("provenance.json", "origins", {}),
    ]

    elements = read(render(Page("stride", blocks))[PAGE])

    titles = [(e.name, e.text) for e in named(elements, "h1", "h2", "h3")]
    assert titles == [("h1", "stride"), ("h2", "Claims"), ("h2", "Remarks"), ("h2", "Files")]
    order = [e.text.strip() for e in named(elements, "h1", "h2", "caption", "p", "li")]
    assert [text for text in order if text in ("Why?", "Warning. Random.", "Claims", "one")] == [
        "Claims", "Why?", "Warning. Random.", "Claims", "Claims", "one",
    ]  # fmt: skip  # the first is the list of sections
    assert [e.text for e in named(elements, "li") if "main" in e.inside] == ["one", "two"]
    links = [e.attributes["href"] for e in named(elements, "a") if "dl" in e.inside]
    assert links == ["a%20b.csv", "provenance.json"]


def test_it_is_one_document_that_refers_to_nothing_outside() -> None:
    written = html(stride_results(), [Figure("fig", "A figure.", SVG)])

    elements = read(written)

    assert written.startswith("<!doctype html>")
    assert [len(named(elements, name)) for name in ("html", "head", "body", "main", "h1")] == [
        1
    ] * 5
    links = [
        element.attributes[name]
        for element in elements
        for name in ("href", "src", "xlink:href", "srcset", "action")
        if name in element.attributes
    ]
    assert [link for link in links if "//" in link or link.startswith("/")] == []
    assert "url(http" not in written
    assert "@import" not in written


def test_its_policy_allows_its_own_script_alone() -> None:
    elements = read(html(stride_results()))

    policy = next(e.attributes["content"] for e in named(elements, "meta") if "http-equiv" in
                  e.attributes)  # fmt: skip
    (script,) = (e for e in named(elements, "script") if e.attributes.get("type") == "module")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in policy
    assert [e for e in elements if any(name.startswith("on") for name in e.attributes)] == []


def test_every_table_has_a_caption_and_headers_with_a_scope_and_a_button() -> None:
    elements = read(html(stride_results()))

    tables = named(elements, "table")
    assert len(tables) == len(named(elements, "caption")) > 0
    headers = named(elements, "th")
    assert {e.attributes["scope"] for e in headers} == {"col", "row"}
    sorting = [e for e in headers if e.attributes.get("aria-sort") == "none"]
    buttons = [e for e in named(elements, "button") if e.inside[-1] == "th"]
    assert len(sorting) == len([e for e in buttons if e.attributes["class"] == "sort"]) > 0


def test_ids_are_unique_and_what_they_label_is_there() -> None:
    figures = [Figure("one", "First.", SVG), Figure("two", "Second.", SVG)]

    elements = read(html(stride_results(), figures))

    ids = Counter(e.attributes["id"] for e in elements if "id" in e.attributes)
    assert [name for name, n in ids.items() if n > 1] == []
    labels = {
        e.attributes["aria-labelledby"] for e in elements if "aria-labelledby" in e.attributes
    }
    anchors = {e.attributes["href"][1:] for e in named(elements, "a", "use")
               if e.attributes.get("href", "").startswith("#")}  # fmt: skip
    assert (labels - {"origin-title"}) | anchors <= set(ids)  # that title is in the dialog's script


def test_a_drawing_is_embedded_with_names_of_its_own_and_text_as_text() -> None:
    elements = read(html(stride_results(), [Figure("my_fig", "A.", SVG)]))

    (drawing,) = (e for e in named(elements, "svg"))
    assert drawing.attributes["aria-label"] == "my fig"
    assert (drawing.attributes["role"], drawing.attributes["class"]) == ("img", "narrow")
    assert "by" not in drawing.text
    assert "fill: red" not in drawing.text
    assert drawing.text.strip() == "a < b"
    group, use = named(elements, "g")[0], named(elements, "use")[0]
    assert group.attributes == {"id": "my_fig-c", "clip-path": "url(#my_fig-b)"}
    assert use.attributes["xlink:href"] == "#my_fig-a"


def test_text_of_a_user_is_text_wherever_it_stands() -> None:
    written = html(odd_results(), [Figure("fig", ODD, SVG)])

    elements = read(written)

    shown = "</script><script>alert('\"& é')</script> שלום"
    assert len(named(elements, "script")) == 2
    assert named(elements, "title")[0].text == f"{shown} · spar-bench"
    assert named(elements, "h1")[0].text == shown
    assert [e.text for e in named(elements, "p") if e.attributes.get("class") == "question"] == [
        shown
    ]
    assert named(elements, "h1")[0].attributes["dir"] == "auto"
    assert "\u2028" not in written
    assert "\u202e" not in written
    assert data_of(elements)["origins"]["specs"] == {ODD: ODD}


def test_data_are_the_rows_of_the_results() -> None:
    results = stride_results()

    origins = data_of(read(html(results)))["origins"]

    miou, trial = (origins["columns"].index(name) for name in ("miou", "trial"))
    assert [r["values"][miou] for r in origins["rows"]] == [r.miou for r in results.rows]
    assert [r["values"][trial] for r in origins["rows"]] == [r.trial for r in results.rows]
    assert [r["stages"] for r in origins["rows"]] == [r.stages for r in results.rows]


def test_each_number_names_the_rows_it_is_of() -> None:
    results = results_of([baseline(38), *students("all", 45), teacher(16, 45.5)])

    elements = read(html(results))

    sources = {
        (e.attributes["data-source"], e.text)
        for e in named(elements, "button")
        if "data-source" in e.attributes
    }
    assert {("miou:0", "38.0"), ("miou:1 2 3", "45.0"), ("gflops:1", "0.900")} <= sources
    values = {e.attributes["data-value"] for e in named(elements, "td") if "data-value" in
              e.attributes}  # fmt: skip
    assert {"0.38", "0.9", "7.2"} <= values


def test_the_chart_has_the_axes_that_have_data_and_says_what_differs() -> None:
    bare = teacher(12, 45)
    rows = [baseline(38), replace(bare, cost=replace(bare.cost, peak_mib=None), dtype="float16")]
    rows[0] = replace(rows[0], cost=replace(rows[0].cost, peak_mib=None))

    (chart,) = data_of(read(html(results_of(rows))))["charts"]

    assert [axis["column"] for axis in chart["axes"]] == ["gflops", "latency_p50_ms", "params_m"]
    assert [point["conditions"]["type"] for point in chart["points"]] == ["float32", "float16"]
    assert "device" in chart["axes"][1]["conditions"]
    assert "device" not in chart["axes"][0]["conditions"]


def test_what_students_took_is_an_axis_and_has_the_rows_that_it_is_of() -> None:
    results = results_of([baseline(38), *students("all", 45, training=training(20))])

    elements = read(html(results))

    (chart,) = data_of(elements)["charts"]
    assert [point["costs"].get("total_gflops") for point in chart["points"]] == [None, 60]
    sources = {e.attributes.get("data-source") for e in named(elements, "button")}
    assert {"train_gflops:1 2 3", "teach_gflops:1 2 3", "train_images:1 2 3"} <= sources


def test_what_is_nowhere_measured_needs_no_chart() -> None:
    failed = row("teacher", None, status="failed")

    assert data_of(read(html(results_of([failed]))))["charts"] == []


def test_cells_without_a_source_have_no_button_and_a_missing_number_is_empty() -> None:
    table = Table(
        "t", [("", 3)], ["a", "b", "c"],
        [[Cell("x"), Cell("1", value=1, source=Source("miou", ())), Cell("2", is_best=True)]],
        n_text=1,
    )  # fmt: skip

    elements = read(render(Page("x", [table]))[PAGE])

    assert [e for e in named(elements, "button") if "tbody" in e.inside] == []
    assert [e.text for e in named(elements, "strong") if "tbody" in e.inside] == ["2"]


def test_a_verdict_is_a_label_with_its_reason_below() -> None:
    verdict = Cell("not run", value=3, verdict="not_run", reason=ODD)
    table = Table("t", [("", 2)], ["Claim", "Verdict"], [[Cell("x"), verdict]], n_text=2)

    elements = read(render(Page("x", [table]))[PAGE])

    labels = [e for e in named(elements, "span") if e.inside[-1] == "td"]
    assert [(e.attributes["class"], e.text) for e in labels] == [("verdict not_run", "not run")]
    reasons = [e for e in named(elements, "div") if e.attributes.get("class") == "reason"]
    assert [e.text for e in reasons] == ["</script><script>alert('\"& é')</script> שלום"]


def test_numbers_of_a_figure_are_a_table_below_it() -> None:
    numbers = Table("IoU (%)", [("", 2)], ["Class", "IoU"], [[Cell("sky"), Cell("50.0")]], n_text=1)

    elements = read(render(Page("x", [Figure("f", "A figure.", SVG, numbers)]))[PAGE])

    (inside,) = named(elements, "details")
    assert inside.inside[-1] == "figure"
    assert "sky" in inside.text


def n_calls(n_rows: int) -> int:
    """Count the functions that are called to write a page of that many rows."""
    rows = [
        baseline(30 + n / 100, group=f"g{n}", trial=f"g{n}", backbone=f"b{n}",
                 stages={"evaluate": f"{n:064x}"})
        for n in range(n_rows)
    ]  # fmt: skip
    page = page_for(results_of(rows))
    counted = Counter[str]()
    sys.setprofile(lambda _, event, __: counted.update([event]))
    try:
        written = render(page)[PAGE]
    finally:
        sys.setprofile(None)
    assert len(re.findall(r'<th scope="row"', written)) == n_rows
    return counted.total()


def test_a_page_of_many_rows_takes_work_in_proportion() -> None:
    n_calls(10)  # the first page reads the templates

    few, many = n_calls(100), n_calls(400)

    assert 1 < many / few < 4.2
