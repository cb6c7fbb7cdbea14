"""Write the page of a report: the question, the tables, the figures, and what did not finish."""

import pandas as pd

from spar_bench.report import tables, text
from spar_bench.report.arms import Arm
from spar_bench.report.figures import FigurePlan, untaught
from spar_bench.report.protocols import protocol_lines, skipped_lines
from spar_bench.results import Results

_FILES = {
    "results.csv": "one line per trial, method, data set and resolution; mIoU as a fraction",
    "costs.csv": "cost of each method at further image sizes",
    "differences.csv": "paired bootstrap differences over images, with 95 % intervals",
    "table.md": "the table above",
    "table.tex": "the same for LaTeX (needs `booktabs`)",
    "protocols.json": "what each protocol says, by its name in results.csv",
    "provenance.json": "commit, spec, seeds, versions, device, checksums of weights",
}


def page(
    results: Results, arms: list[Arm], figures: list[FigurePlan], differences: pd.DataFrame
) -> str:
    """Return the page in Markdown; it links figures as files beside it."""
    parts = [f"# {text.markdown(results.experiment)}"]
    if results.question:
        parts.append(f"> {text.markdown(results.question)}")
    if untaught(results):
        parts.append(
            "**Some weights are random: their mIoU, differences and figures say nothing about a "
            "trained model; costs are valid.**"
        )
    parts.append(table_markdown(results, arms))
    devices = dict.fromkeys(row.cost.device for row in results.rows if row.cost.device)
    if devices:
        parts.append("Costs were measured on: " + "; ".join(map(text.markdown, devices)) + ".")
    parts += [
        f"![{figure.name}]({figure.name}.png)\n\n{figure.caption} [SVG]({figure.name}.svg)"
        for figure in figures
    ]
    parts += [*_differences(differences), *_remarks(results)]
    files = [f"- [{name}]({name}): {what}" for name, what in _FILES.items()]
    parts.append("## Files\n\n" + "\n".join(files))
    return "\n\n".join(parts) + "\n"


def table_markdown(results: Results, arms: list[Arm]) -> str:
    """Return all tables in Markdown, with the notes that explain them and their protocols."""
    if not arms:
        return "No results yet."
    written = [tables.to_markdown(table) for table in tables.result_tables(arms)]
    return "\n\n".join([*written, *map(text.markdown, _notes(results, arms))])


def table_latex(results: Results, arms: list[Arm]) -> str:
    """Return all tables in LaTeX, labelled `tab:<experiment>-<number>`."""
    found = tables.result_tables(arms) if arms else []
    notes = " ".join(_notes(results, arms))
    written = [
        tables.to_latex(table, f"{results.experiment}-{n}", note=notes)
        for n, table in enumerate(found, 1)
    ]
    return "\n\n".join(["% Needs \\usepackage{booktabs}.", *written]) + "\n"


def _notes(results: Results, arms: list[Arm]) -> list[str]:
    return [tables.note(arms), *skipped_lines(results), *protocol_lines(results)]


def _differences(frame: pd.DataFrame) -> list[str]:
    """Return the section of paired differences, in points of mIoU; empty if there are none."""
    if frame.empty:
        return []
    several = len(frame[["dataset", "eval_short_side_px"]].drop_duplicates()) > 1
    headers = ["Data set", "Short side (px)"] if several else []
    headers += ["a", "b", "a - b (points of mIoU)", "95 % interval", "Images"]
    lines = ["| " + " | ".join(headers) + " |", "|" + " --- |" * len(headers)]
    for line in frame.to_dict("records"):
        cells = [text.markdown(line["dataset"]), str(line["eval_short_side_px"])] if several else []
        cells += [text.markdown(line["a"]), text.markdown(line["b"])]
        value, low, high = (text.points(line[name]) for name in ("difference", "low", "high"))
        cells += [value, f"{low} to {high}", str(line["n_images"])]
        lines.append("| " + " | ".join(cells) + " |")
    told = (
        "Paired bootstrap over images: each resample draws the same images for both. Where a "
        "student has several seeds, their mIoU is averaged; the interval is over images, not seeds."
    )
    return [f"## Differences\n\n{told}\n\n" + "\n".join(lines)]


def _remarks(results: Results) -> list[str]:
    """Return the section of rows that have no result or a remark; empty if there are none."""
    lines = [
        f"- {text.markdown(row.trial)}, {row.method}, {text.markdown(row.dataset)} at "
        f"{row.eval_short_side_px} px: {row.status.replace('_', ' ')}"
        + (f" ({text.markdown(row.reason)})" if row.reason else "")
        for row in results.rows
        if row.status != "finished" or row.reason
    ]
    return ["## Remarks\n\n" + "\n".join(dict.fromkeys(lines))] if lines else []
