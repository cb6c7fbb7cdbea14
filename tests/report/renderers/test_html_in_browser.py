"""The page as a reader uses it, in headless Chromium: `pytest -m browser`.

It needs `pip install --group browser` and a Chromium: Debian's, or one that playwright installed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spar_bench.report import write
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.renderers.html import PAGE, render
from spar_bench.report.sections import Findings, page_of
from spar_bench.results import Results
from spar_bench.track import RunLink, Runs
from tests.report.synthetic import (
    baseline,
    cost,
    evaluations_of,
    results_of,
    row,
    stride_results,
    students,
    teacher,
    training,
)

pytestmark = pytest.mark.browser

SPEC = """\
question: Why?
student: {trainable: all}
sweep:
  - grid: {teacher.stride_px: [16, 12]}
  - grid: {student.trainable: [last_2_blocks]}
"""
MADE = {
    "device": "cpu", "host": "here", "commit": "0123abc", "versions": {"torch": "2.11"},
    "ended_ms": 1_750_000_000_000, "seconds": 2.5,
}  # fmt: skip
Opened = Callable[..., Any]


def with_provenance(results: Results) -> Results:
    """Return results whose evaluations have a record, and whose spec is known."""
    evaluations = {r.stages["evaluate"] for r in results.rows if "evaluate" in r.stages}
    stages = {
        key: {"kind": "evaluate", "version": 5, "inputs": {}, "made": MADE, "backbone": "b"}
        for key in evaluations
    }
    backbones = {"b": {"plugin": "patchwork", "files": {"clip.safetensors": "feed" * 16}}}
    return replace(results, provenance={"stages": stages, "backbones": backbones}, spec=SPEC)


def two_datasets() -> Results:
    """Return results on two data sets, in one of which one row was measured elsewhere."""
    rows = [baseline(38), teacher(16, 44), teacher(12, 45), *students("all", 42)]
    streets = [
        replace(r, dataset="streets", dataset_digest="57ee75", stages={"evaluate": f"streets{n}"})
        for n, r in enumerate(rows)
    ]
    gpu = replace(streets[1].cost, device="NVIDIA H200", latency_p50_ms=1.0)
    streets[1] = replace(streets[1], cost=gpu)
    return results_of([*rows, *streets])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the group browser")
    with playwright.sync_playwright() as started:
        own, debian = Path(started.chromium.executable_path), shutil.which("chromium")
        if not own.exists() and debian is None:
            pytest.skip("needs Chromium: apt install chromium, or playwright install chromium")
        chromium = started.chromium.launch(
            executable_path=None if own.exists() else debian,
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    """Write and open a page; the page must have no error, and ask for nothing but itself."""
    wrong, contexts = list[str](), []

    def open_page(
        results: Results, evaluations: Any = None, *, runs: Runs | None = None, **options: Any
    ) -> Any:
        results = with_provenance(results)
        if evaluations is not None:
            write(results, evaluations, tmp_path)
        else:  # without figures, which take seconds to draw
            aggregates = read_aggregates(results)
            found = Findings(results, aggregates, [], [], [], [], [], runs=runs or {})
            (tmp_path / PAGE).write_text(render(page_of(found))[PAGE], encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        address = (tmp_path / PAGE).as_uri()

        def note(request: Any) -> None:
            if not request.url.startswith(("data:", address)):
                wrong.append(request.url)

        page.on("request", note)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def column(page: Any, at: int, table: str = "table") -> list[str]:
    """Return the texts of a column's visible cells."""
    cells = page.locator(table).first.locator(f"tbody tr:visible > :nth-child({at})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_header_sorts_by_value_and_what_has_none_stays_last(opened: Opened) -> None:
    failed = row("teacher", None, status="failed", group="b", stride_px=99, divides_patch=False)
    page = opened(results_of([baseline(9.5), teacher(16, 44), teacher(12, 30), failed]))
    header = page.get_by_role("button", name="mIoU (%)").first

    header.click()
    up = column(page, 3)
    header.press("Enter")
    down = column(page, 3)

    assert up == ["9.5", "30.0", "44.0", "failed"]
    assert down == ["44.0", "30.0", "9.5", "failed"]
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_filters_leave_rows_of_a_method_and_columns_of_a_data_set(opened: Opened) -> None:
    page = opened(two_datasets())

    page.get_by_label("Method").select_option("SPAR")
    page.get_by_label("Data set").last.select_option("streets")

    assert column(page, 1, "table[data-filtered]") == ["SPAR"]
    groups = (
        page.locator("table[data-filtered]").first.locator("th.group:visible").all_inner_texts()
    )
    assert groups == ["streets"]
    assert page.locator("#filter output").inner_text() == "1 of 4 rows"
    assert page.locator(".point").count() == 1


def test_a_number_shows_its_exact_value_on_hover_and_on_focus(opened: Opened) -> None:
    page = opened(stride_results())
    number = page.get_by_role("button", name="45.2", exact=True).first
    tip = page.get_by_role("tooltip")

    number.hover()
    hovered = tip.inner_text()
    page.mouse.move(0, 0)
    left = tip.is_visible()
    number.focus()
    focused = tip.inner_text()
    page.keyboard.press("Escape")

    assert hovered == focused
    assert "exactly 0.452" in hovered
    assert "sd 0.00400000, n = 3" in hovered
    assert not left
    assert not tip.is_visible()


def test_a_mean_over_data_sets_has_the_spread_of_its_seeds_alone(opened: Opened) -> None:
    page = opened(two_datasets())
    means = page.locator("td[data-group=Mean] button")
    tips = {}

    for number in means.all():
        number.hover()
        tips[number.inner_text()] = page.get_by_role("tooltip").inner_text().splitlines()

    assert tips["38.0"] == ["mIoU (%): 38.0", "exactly 0.38"]
    assert tips["42.0"] == ["mIoU (%): 42.0", "exactly 0.42", "sd 0.00400000, n = 3"]


def test_arrow_keys_move_among_numbers_and_enter_opens_their_origin(opened: Opened) -> None:
    page = opened(stride_results())
    page.locator("button.cell").first.focus()

    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")

    dialog = page.get_by_role("dialog")
    shown = dialog.inner_text()
    assert "mIoU (%): 44.0" in shown
    assert "0.44" in shown
    assert "0123abc" in shown
    assert "2025-06-15 15:06 UTC in 2.50 s on cpu (here)" in shown
    assert "feed" * 16 in shown
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "44.0"


@pytest.mark.parametrize("command", ["", "spar-bench ui"])
def test_the_origin_links_to_the_run_that_shows_it(opened: Opened, command: str) -> None:
    link = RunLink("abc", "http://127.0.0.1:5000/#/experiments/1/runs/abc", command)
    results = results_of([baseline(38), teacher(12, 45, trial="t")])
    page = opened(results, runs={("stride", "t", "teacher"): link})
    dialog = page.get_by_role("dialog")

    page.get_by_role("button", name="38.0", exact=True).first.click()
    without = dialog.inner_text()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="45.0", exact=True).first.click()

    assert "MLflow" not in without
    opens = dialog.get_by_role("link", name="open in MLflow")
    assert (opens.get_attribute("href"), opens.get_attribute("rel")) == (link.url, "noreferrer")
    served = ", which spar-bench ui serves there" if command else ""
    assert f"abc open in MLflow{served}\n" in dialog.inner_text()


def test_the_origin_marks_the_lines_of_the_spec_that_were_swept(opened: Opened) -> None:
    page = opened(results_of([baseline(38), teacher(12, 45)]))

    page.get_by_role("button", name="45.0", exact=True).first.click()

    assert page.locator("dialog mark").all_inner_texts() == [
        "  - grid: {teacher.stride_px: [16, 12]}"
    ]


def test_the_chart_changes_its_axis_and_keeps_other_conditions_apart(opened: Opened) -> None:
    page = opened(two_datasets())
    by_flops = page.locator(".chart").inner_text()

    page.get_by_label("Data set").first.select_option("streets, short side 256 px")
    page.get_by_label("Median latency").check()
    page.get_by_label("linear").check()

    assert "GFLOPs per image" in by_flops
    assert page.locator(".point.hollow").count() == 1
    assert "device NVIDIA H200, not cpu" in page.locator(".chart .note").inner_text()
    assert page.locator(".point").count() == 4


@pytest.mark.parametrize("axis", ["Parameters", "Training GFLOPs"])
def test_points_of_one_cost_stand_in_the_middle_of_a_linear_axis(opened: Opened, axis: str) -> None:
    free = training(0, train_seconds=1.0)
    page = opened(results_of([baseline(38), teacher(12, 45), *students("all", 42, training=free)]))

    page.get_by_role("radio", name=axis).check()
    page.get_by_role("radio", name="linear").check()

    drawing = page.locator(".chart > svg").bounding_box()
    marks = [mark.bounding_box() for mark in page.locator(".point .mark").all()]
    places = {round((m["x"] + m["width"] / 2 - drawing["x"]) / drawing["width"], 1) for m in marks}
    ticks = page.locator(".axes .middle:not(.title)").all_text_contents()
    assert (places, len(marks)) == (({0.5}, 3) if axis == "Parameters" else ({0.0}, 1))
    assert len(ticks) == len(set(ticks)) > 2
    assert "NaN" not in page.locator(".chart").inner_html()


def test_the_chart_follows_the_pages_filter_and_counts_what_it_leaves_out(opened: Opened) -> None:
    rows = [baseline(38), teacher(12, 45), *students("all", 42, training=training(20))]
    streets = [
        replace(r, dataset="streets", dataset_digest="57ee75", stages={"evaluate": f"streets{n}"})
        for n, r in enumerate(rows)
    ]
    page = opened(results_of([*rows, *streets]))
    note, panel = page.locator(".chart .note"), page.locator(".chart").get_by_label("Data set")
    page.get_by_role("radio", name="Training GFLOPs").check()

    of_all = note.inner_text()
    page.get_by_label("Method").select_option("SPAR")
    page.locator("#filter").get_by_label("Data set").select_option("streets")

    assert of_all == "2 without this cost are not shown."
    assert note.inner_text() == ""
    assert panel.locator("option:checked").text_content() == "streets, short side 256 px"
    assert panel.locator("option:not([disabled])").count() == 1


def test_the_filter_offers_methods_and_leaves_the_main_table_whole(opened: Opened) -> None:
    page = opened(two_datasets())
    method = page.get_by_label("Method")

    offered = method.locator("option").all_text_contents()
    method.select_option("sliding window")

    assert offered == ["all", "single pass", "sliding window", "SPAR"]
    assert column(page, 1) == ["patchwork"] * 4
    assert column(page, 2) == ["sliding window, s = 16", "sliding window, s = 12",
                               "single pass", "SPAR all"]  # fmt: skip


def test_a_point_is_reached_by_keyboard_and_says_what_it_is(opened: Opened) -> None:
    page = opened(results_of([baseline(38, cost=cost(0.9)), teacher(12, 45)]))
    page.locator(".point[tabindex='0']").focus()

    page.keyboard.press("ArrowRight")
    told = page.get_by_role("tooltip").inner_text()
    page.keyboard.press("Enter")

    assert told.splitlines()[:2] == ["teacher s = 12", "mIoU 45.0 %"]
    assert "teacher s = 12: mIoU 45.0 %" in page.get_by_role("dialog").inner_text()


def test_tab_reaches_one_number_of_a_table_and_then_leaves_it(opened: Opened) -> None:
    page = opened(stride_results())

    reached = page.locator("table").first.locator("button.cell[tabindex='0']").count()

    assert reached == 1
    assert page.locator("table").first.locator("button.cell").count() > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_readers_and_is_remembered(opened: Opened, scheme: str) -> None:
    page = opened(stride_results(), color_scheme=scheme)
    paper = "getComputedStyle(document.body).backgroundColor"
    own = page.evaluate(paper)

    page.get_by_label("Theme").select_option("light" if scheme == "dark" else "dark")
    chosen = page.evaluate(paper)
    page.reload()

    assert own != chosen
    assert page.evaluate(paper) == chosen


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page(opened: Opened, width: int, scheme: str) -> None:
    results = stride_results()

    page = opened(
        results,
        evaluations_of(results),
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
    )

    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(full_page=True)  # draws all of it


def test_small_text_has_contrast_in_both_themes(opened: Opened) -> None:
    page = opened(stride_results())
    ratios = []

    for theme in ("light", "dark"):
        page.get_by_label("Theme").select_option(theme)
        for name in ("ink", "quiet", "link", "warn", "good", "doubt"):
            ratios.append(page.evaluate(CONTRAST, name))

    assert min(ratios) >= 4.5


CONTRAST = """name => {
  const probe = document.createElement("p");
  document.body.append(probe);
  const luminance = (variable) => {
    probe.style.color = `var(--${variable})`;
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const worst = ["paper", "raised"].map((ground) => {
    const [high, low] = [luminance(name), luminance(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  });
  return Math.min(...worst);
}"""
