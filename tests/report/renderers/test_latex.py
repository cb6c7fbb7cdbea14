"""Tables in LaTeX: escaped, ruled with booktabs, and small enough for the page."""

import re
from dataclasses import replace

from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.page import Cell, Page, Table, Text
from spar_bench.report.renderers.latex import render, to_latex
from spar_bench.report.tables import result_tables
from tests.report.synthetic import baseline, cost, results_of, students, training


def test_latex_escapes_sets_the_best_in_bold_and_rules_with_booktabs() -> None:
    rows = [baseline(38.3, dataset="a_b & 50%"), *students("all", 45, dataset="a_b & 50%")]
    rows[0] = replace(rows[0], cost=cost(1.9, n_windows=2))

    written = to_latex(result_tables(read_aggregates(results_of(rows)))[0], "ab/c d-1", notes=[])

    assert written.startswith("% Accuracy and cost: a_b & 50%, short side 256 px, backbone ")
    assert (
        r"\caption{Accuracy and cost: a\_b \& 50\%, short side 256 px. mIoU in percent, best in "
        r"bold; costs for one image of 256\ensuremath{\times}320 px; 1 MAC = 2 FLOPs; median "
        r"latency. \ensuremath{\pm} is one standard deviation over n = 3 seeds.}"
    ) in written
    assert r"\label{tab:ab_c_d-1}" in written
    assert r"Method & mIoU (\%) & Windows & GFLOPs" in written
    assert r"SPAR & \textbf{45.0} \ensuremath{\pm} 0.4 & 1 & 0.900" in written
    order = [written.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert order == sorted(order)


def test_latex_escapes_odd_names_wherever_they_stand_and_closes_what_it_opens() -> None:
    odd = r"a_b%c#d&e$f{g}h~i^j\k"
    rows = [
        baseline(38, dataset=odd, backbone=odd, protocol=odd),
        *students(odd, 45, dataset=odd, backbone=odd, protocol=odd, loss=odd),
        *students("all", 44, dataset=odd, backbone=odd, protocol=odd, swept={odd: odd}),
        baseline(30, dataset="x&y", backbone=odd, protocol=odd, stages={"evaluate": "x"}),
    ]

    written = [to_latex(t, odd, notes=[]) for t in result_tables(read_aggregates(results_of(rows)))]

    for table in (re.sub("(?m)^%.*$", "", one) for one in written):
        bare = re.sub(r"\\[_%#&${}\\]", "", table)
        assert not re.search(r"[%#$~^]", bare)
        assert "_" not in re.sub(r"\\label\{[^}]*\}", "", bare)
        assert bare.count("{") == bare.count("}")
        begin, end = (re.findall(rf"\\{word}\{{([a-z*]+)\}}", table) for word in ("begin", "end"))
        assert begin == end[::-1] == ["table*", "tabular"]
        body = table[table.index(r"\midrule") : table.index(r"\bottomrule")]
        columns = re.findall(r"\{@\{\}([lr]+)@\{\}\}", table)[0]
        rows_of_cells = [re.split(r"(?<!\\)&", line) for line in body.splitlines()[1:]]
        assert {len(cells) for cells in rows_of_cells} == {len(columns)}


def test_latex_sets_a_wide_table_smaller() -> None:
    rows = [baseline(38), *students("last_2_blocks", 45, training=training(400.0))]
    rows[0] = replace(rows[0], cost=cost(1.9, n_windows=2))
    (wide,) = result_tables(read_aggregates(results_of(rows)))
    narrow = replace(
        wide, headers=wide.headers[:4], rows=[r[:4] for r in wide.rows], groups=[("", 4)]
    )

    assert r"\scriptsize\setlength{\tabcolsep}{4pt}" in to_latex(wide, "x", notes=[])
    assert r"\small" in to_latex(narrow, "x", notes=[])


def test_a_first_cell_is_no_option_of_the_line_break_before_it() -> None:
    rows = [[Cell("[E2] finer is better")], [Cell("* all")], [Cell("plain")]]

    written = to_latex(Table("it", [("", 1)], ["a"], rows, n_text=1), "x", notes=[])

    body = written[written.index(r"\midrule") : written.index(r"\bottomrule")].splitlines()[1:]
    assert body == [r"{}[E2] finer is better \\", r"{}* all \\", r"plain \\"]


def test_long_text_is_set_in_lines_and_signs_have_commands() -> None:
    rows = [[Cell("long " * 20), Cell("≥ 5.0"), Cell("1536² px…")]]
    table = Table("it", [("", 3)], ["a", "b", "c"], rows, n_text=2)

    written = to_latex(table, "x", notes=[])

    assert r"\begin{tabular}{@{}p{0.38\textwidth}lr@{}}" in written
    assert r"\ensuremath{\geq} 5.0 & 1536\textsuperscript{2} px\ldots{} \\" in written


def test_claims_and_the_papers_numbers_have_files_of_their_own() -> None:
    tables = [
        Table(file, [("", 1)], ["a"], [[Cell(file)]], n_text=1, file=file)
        for file in ("claims", "paper", "table", "table")
    ]
    notes = [Text("of claims", "note"), Text("of numbers", "note")]
    page = Page("x", [tables[0], notes[0], *tables[1:], notes[1]])

    written = render(page)

    labels = {name: re.findall(r"\\label\{(.*)\}", text) for name, text in written.items()}
    assert labels == {
        "claims.tex": ["tab:x-claims-1"],
        "paper.tex": ["tab:x-paper-1"],
        "table.tex": ["tab:x-1", "tab:x-2"],
    }
    assert "% of claims" in written["claims.tex"]
    assert "% of claims" not in written["table.tex"]


def test_each_table_has_the_notes_that_follow_it_as_comments() -> None:
    one, two, other = (
        Table(name, [("", 1)], ["a"], [[Cell(name)]], n_text=1) for name in ("one", "two", "other")
    )
    notes = [Text("50 %", "note"), Text("b_c", "note")]
    page = Page("x", [one, two, *notes, Text("text"), other, Text("no", "note")])

    written = render(page)["table.tex"]

    captions = re.findall(r"\\caption\{(.*)\}", written)
    assert captions == ["one.", "two.", "other."]
    comments = [re.findall("(?m)^% (.*)$", part) for part in written.split(r"\end{table*}")]
    assert comments == [
        [r"Needs \usepackage{booktabs}.", "50 %", "b_c"],
        ["50 %", "b_c"],
        ["no"],
        [],
    ]
    assert re.findall(r"\\label\{(.*)\}", written) == ["tab:x-1", "tab:x-2", "tab:x-3"]


def test_a_verdict_and_its_reason_are_one_line() -> None:
    verdict = Cell("not run", value=3, verdict="not_run", reason="no row of a_b")
    table = Table("Claims", [("", 2)], ["Claim", "Verdict"], [[Cell("x"), verdict]], n_text=2)

    assert "x & not run: no row of a\\_b \\\\" in to_latex(table, "x", notes=[])


def test_seeds_are_said_once_and_only_a_cell_of_another_number_says_its_own() -> None:
    rows = [
        *students("all", 45, n_seeds=3),
        *students("last_2_blocks", 44, n_seeds=3),
        *students("last_1_blocks", 43, n_seeds=2),
    ]
    rows[0] = replace(rows[0], miou=None, status="failed")

    written = to_latex(result_tables(read_aggregates(results_of(rows)))[0], "x", notes=[])

    assert "over n = 2 seeds, unless a cell says otherwise.}" in written
    assert r"all & 45.2 \ensuremath{\pm} 0.3 (n = 2, 1 failed)" in written.replace(
        r"\textbf{45.2}", "45.2"
    )
    assert r"last 2 blocks & 44.0 \ensuremath{\pm} 0.4 (n = 3)" in written
    assert r"last block & 42.8 \ensuremath{\pm} 0.3 \\" in written


def test_a_mark_in_a_cell_is_explained_in_the_caption() -> None:
    loaded = replace(cost(0.9, latency_ms=7140), latency_note="its median is 10.3 times ...")
    rows = [baseline(38), *students("all", 45, n_seeds=1, cost=loaded)]

    written = to_latex(result_tables(read_aggregates(results_of(rows)))[0], "x", notes=[])

    assert r"7140\textdagger{}" in written
    assert r"; \textdagger{} as on a loaded machine.}" in written
