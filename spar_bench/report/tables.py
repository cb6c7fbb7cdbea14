"""Lay results out as tables, in Markdown and in LaTeX (booktabs)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from spar_bench.report import text
from spar_bench.report.arms import Arm, Panel, panels_of, value_text

_NOTE = (
    "mIoU in percent, the best of each mIoU column in bold; ± is one standard deviation (n - 1) "
    "over n seeds. Costs are for one image{sizes}; 1 MAC = 2 FLOPs; latency is the median, then "
    "the 10th to 90th percentile. A student's window and stride are its teacher's. A protocol is "
    "all that affects mIoU besides model, inference and images; its name is a digest of it."
)
PAGE_LETTERS, GAP_LETTERS = 105, 2.7
"""Letters per line of a two-column page in small type, and the width of a column gap."""
_HEADERS = {
    "window_px": "Window (px)",
    "stride_px": "Stride (px)",
    "trainable": "Trained",
    "train_short_side_px": "Trained at (px)",
    "dtype": "Type",
}
_METHODS = {"pretrained": "single pass", "teacher": "sliding window", "student": "SPAR"}


@dataclass(frozen=True)
class Cell:
    """The content of a table cell: words, or a mean with its sd and n."""

    words: str
    sd: str | None = None
    n: int = 1
    note: str = ""
    is_best: bool = False


NOT_PART = Cell("–")


@dataclass(frozen=True)
class Table:
    """A caption, groups of columns (name, width), headers, and rows of cells.

    The first `n_words` columns hold words, the others numbers.
    """

    caption: str
    groups: list[tuple[str, int]]
    headers: list[str]
    rows: list[list[Cell]]
    n_words: int


@dataclass(frozen=True)
class Column:
    """A header, and the function that gives an arm's cell under it."""

    header: str
    cell: Callable[[Arm], Cell]


def note(arms: list[Arm]) -> str:
    """Return what a reader of the tables must know, with the size of the images of their costs."""
    sizes: dict[str, list[str]] = {}
    for panel in panels_of(arms):
        costs = [arm.cost for arm in arms if arm.panel == panel and arm.cost.image_h is not None]
        for size in dict.fromkeys(f"{cost.image_h}×{cost.image_w} px" for cost in costs):
            place = f"{panel.dataset} at {panel.eval_short_side_px} px"
            sizes.setdefault(size, []).append(place)
    if len(sizes) < 2:
        return _NOTE.format(sizes="".join(f" of {size}" for size in sizes))
    told = [f"{size} for {' and '.join(places)}" for size, places in sizes.items()]
    return _NOTE.format(sizes=f" ({', '.join(told)})")


def result_tables(arms: list[Arm]) -> list[Table]:
    """Return one table of accuracy and cost for one panel; for several, one table of each."""
    panels = panels_of(arms)
    if len(panels) == 1:
        return [_table(arms, "Accuracy and cost", [MIOU, *COSTS])]
    titles = {"mIoU": "Accuracy", "GFLOPs": "Operations", "Latency": "Latency"}
    return [_table(arms, titles[c.header.split()[0]], [c]) for c in (MIOU, GFLOPS, LATENCY)]


def _table(arms: list[Arm], subject: str, columns: list[Column]) -> Table:
    """Lay out one row per arm, and `columns` for each panel."""
    panels = panels_of(arms)
    settings, constant = _settings_columns(arms)
    shared, titles = _panel_titles(panels)
    constant = [*shared, *constant]
    found = {(arm.key, arm.panel): arm for arm in arms}
    best = {panel: _best(arms, panel) for panel in panels}
    rows = []
    for key, arm in {arm.key: arm for arm in arms}.items():
        row = [Cell(_METHODS.get(arm.method, arm.method))]
        row += [_setting_cell(arm, name) for name in settings]
        for panel in panels:
            here = found.get((key, panel))
            for column in columns:
                cell = column.cell(here) if here else NOT_PART
                is_best = column is MIOU and cell.words == best[panel]
                row.append(replace(cell, is_best=is_best))
        rows.append(row)
    headers = ["Method", *(_HEADERS.get(name, _header(name)) for name in settings)]
    groups = [("", len(headers))]
    groups += [(title, len(columns)) for title in titles]
    return Table(
        caption=": ".join([subject, ", ".join(constant)]),
        groups=groups,
        headers=headers + [column.header for column in columns] * len(panels),
        rows=rows,
        n_words=len(headers),
    )


def _settings_columns(arms: list[Arm]) -> tuple[list[str], list[str]]:
    """Return the settings that differ, as columns, and those that do not, in words."""
    names = dict.fromkeys(name for arm in arms for name in arm.settings)
    columns, constant = [], []
    for name in names:
        values = {str(v): v for arm in arms if (v := arm.settings.get(name)) is not None}
        if len(values) > 1 or name == "stride_px":
            columns.append(name)
        elif values and list(values) != ["none"]:
            name, *unit = _HEADERS.get(name, _header(name)).lower().removesuffix(")").split(" (")
            constant.append(" ".join([name, value_text(*values.values()), *unit]))
    return columns, constant


def _panel_titles(panels: list[Panel]) -> tuple[list[str], list[str]]:
    """Return what all panels share, for the caption, and what distinguishes each."""
    datasets = [panel.dataset for panel in panels]
    sizes = [panel.title for panel in panels]
    shared = [part[0] for part in (datasets, sizes) if len(set(part)) == 1]
    apart = [part for part in (datasets, sizes) if len(set(part)) > 1]
    return shared, [", ".join(parts) for parts in zip(*apart, strict=True)] or [""]


def _header(name: str) -> str:
    return name.split(".")[-1].replace("_", " ").capitalize()


def _setting_cell(arm: Arm, name: str) -> Cell:
    value = arm.settings.get(name)
    return NOT_PART if value is None else Cell(value_text(value))


def _best(arms: list[Arm], panel: Panel) -> str | None:
    mious = [arm.miou for arm in arms if arm.panel == panel and arm.miou is not None]
    return text.percent(max(mious)) if mious else None


def _miou_cell(arm: Arm) -> Cell:
    counts = Counter(arm.unfinished)
    if arm.miou is None:
        return Cell(" and ".join(status.replace("_", " ") for status in counts))
    note = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items())
    sd = None if arm.sd is None else text.percent(arm.sd)
    return Cell(text.percent(arm.miou), sd, len(arm.mious), note)


def _cost_column(
    header: str, name: str, write: Callable[[float], str] = text.significant
) -> Column:
    def cell(arm: Arm) -> Cell:
        value = getattr(arm.cost, name)
        if value is not None:
            return Cell(write(value))
        return _absent(arm)

    return Column(header, cell)


def _absent(arm: Arm) -> Cell:
    status = arm.cost.cost_status
    return Cell("not measured" if status == "finished" else status.replace("_", " "))


def _range_cell(arm: Arm) -> Cell:
    low, high = arm.cost.latency_p10_ms, arm.cost.latency_p90_ms
    if low is None or high is None:
        return _absent(arm)
    return Cell(f"{text.significant(low)}–{text.significant(high)}")


MIOU = Column("mIoU (%)", _miou_cell)
GFLOPS = _cost_column("GFLOPs", "gflops")
LATENCY = _cost_column("Latency (ms)", "latency_p50_ms")
COSTS = [
    _cost_column("Windows", "n_windows", str),
    GFLOPS,
    LATENCY,
    Column("p10–p90 (ms)", _range_cell),
    _cost_column("Peak (MiB)", "peak_mib"),
    _cost_column("Parameters (M)", "params_m"),
]


def to_markdown(table: Table) -> str:
    """Write a table in Markdown, with the column groups in the headers."""
    spread = [name for name, width in table.groups for _ in range(width)]
    headers = [
        f"{header}, {group}" if group else header
        for header, group in zip(table.headers, spread, strict=True)
    ]
    right = len(headers) - table.n_words
    lines = [
        f"**{text.markdown(table.caption)}**",
        "",
        "| " + " | ".join(text.markdown(header) for header in headers) + " |",
        "|" + " --- |" * table.n_words + " --: |" * right,
    ]
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join(lines)


def to_latex(table: Table, label: str, *, note: str) -> str:
    """Write a table in LaTeX, one page wide; it needs the package booktabs."""
    columns = "l" * table.n_words + "r" * (len(table.headers) - table.n_words)
    lines = [
        r"\begin{table*}[t]", r"\centering", _latex_size(table),
        rf"\caption{{{text.latex(table.caption)}. {text.latex(note)}}}",
        rf"\label{{tab:{text.file_name(label)}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule",
        *_latex_groups(table.groups),
        " & ".join(text.latex(header) for header in table.headers) + r" \\", r"\midrule",
        *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table*}",
    ]  # fmt: skip
    return "\n".join(lines)


def _latex_size(table: Table) -> str:
    """Return the font size and column gap at which a table fits a page."""
    rows = [table.headers, *([" ".join([c.words, *_spread(c)]) for c in row] for row in table.rows)]
    n_letters = sum(max(map(len, column)) for column in zip(*rows, strict=True))
    is_wide = n_letters + GAP_LETTERS * len(table.headers) > PAGE_LETTERS
    return r"\scriptsize\setlength{\tabcolsep}{4pt}" if is_wide else r"\small"


def _latex_groups(groups: list[tuple[str, int]]) -> list[str]:
    """Return the header above the headers, with a rule under each group; empty without groups."""
    if not any(name for name, _ in groups):
        return []
    cells, rules, at = [], [], 1
    for name, width in groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text.latex(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _markdown_cell(cell: Cell) -> str:
    words = f"**{cell.words}**" if cell.is_best else text.markdown(cell.words)
    return " ".join([words, *_spread(cell)])


def _latex_cell(cell: Cell) -> str:
    words = text.latex(cell.words)
    words = rf"\textbf{{{words}}}" if cell.is_best else words
    return " ".join([words, *(text.latex(part) for part in _spread(cell))])


def _spread(cell: Cell) -> list[str]:
    """Return what follows a mean: its sd, and in brackets n and what is missing."""
    notes = [f"n = {cell.n}"] if cell.n > 1 or cell.note else []
    notes += [cell.note] if cell.note else []
    spread = [f"± {cell.sd}"] if cell.sd else []
    return spread + ([f"({', '.join(notes)})"] if notes else [])
