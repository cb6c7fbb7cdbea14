"""The sections of claims and of the paper's numbers: tables of verdicts, and their data files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from spar_bench.report import text
from spar_bench.report.claims import Checked
from spar_bench.report.columns import NOT_PART
from spar_bench.report.names import value_text
from spar_bench.report.page import Block, Cell, Data, File, Heading, Source, Table, Text
from spar_bench.report.paper import Beside
from spar_bench.report.verdicts import WORDS, Verdict

CLAIM_COLUMNS = [
    "experiment", "line", "claim", "paper", "quantity", "compared", "expected", "measured", "low",
    "high", "n_images", "n_seeds", "verdict", "reason",
]  # fmt: skip
"""The columns of claims.csv: mIoU as fractions; `line` is where the spec makes the claim."""
PAPER_COLUMNS = [
    "table", "backbone", "method", "stride_px", "refiner", "trainable", "images", "dataset",
    "effective_px", "quantity", "group", "paper", "reading_tolerance", "ours", "low", "high",
    "difference", "verdict", "reason", "source",
]  # fmt: skip
"""The columns of paper.csv: numbers in the unit that `quantity` names."""
_NOTE = (
    "A claim holds if what is measured is at least what is expected: then it is reproduced. If the "
    "95 % interval over images contains what is expected, it is within noise; else it is off. "
    "Where a student has several seeds, their mean counts."
)
_PAPER_NOTE = (
    "Reproduced: ours differs by no more than the paper's number was read to, and 0.1 points of "
    "mIoU. Within noise: the 95 % interval over images contains the paper's number. Nothing is "
    "filled in: what was not run has no number, and what cannot be compared has a reason."
)
_UNITS = {"miou_percent": "mIoU (%)", "seconds": "time (s)", "windows": "windows"}


def claims_section(checked: list[Checked]) -> Iterator[Block]:
    """Yield the table of claims, if a spec makes any."""
    if not checked:
        return
    several = len({one.experiment for one in checked}) > 1
    headers = ["Claim", "Verdict", "Expected", "Measured", "95 % interval", "Line"]
    rows = []
    for one in checked:
        claim = one.claim
        line = f"{one.experiment}:{claim.line}" if several else str(claim.line)
        rows.append([
            Cell(claim.text),
            _verdict_cell(one.verdict),
            Cell(f"≥ {_amount(one, claim.expected)}", value=claim.expected),
            _number_cell(one.value, partial(_amount, one), one.source),
            _interval_cell(one.interval, partial(_amount, one, bare=True)),
            Cell(line, value=None if several else claim.line),
        ])  # fmt: skip
    yield Heading("Claims")
    yield Text(f"{verdicts(one.verdict.word for one in checked)}.")
    caption = "Claims and what was measured of them"
    yield Table(caption, [("", len(headers))], headers, rows, n_text=2, file="claims")
    yield Text(_NOTE, "note")


def claims_files(checked: list[Checked]) -> Iterator[File]:
    """Yield the files of claims, if a spec makes any."""
    if checked:
        yield claims_data(checked)
        yield from _tables("claims")


def claims_data(checked: Iterable[Checked]) -> Data:
    """Return one line per claim."""
    lines = []
    for one in checked:
        low, high = one.interval or (None, None)
        values = [
            one.experiment, one.claim.line, one.claim.text, one.claim.paper, one.claim.quantity,
            one.claim.form, one.claim.expected, one.value, low, high, one.n_images or None,
            one.n_seeds or None, one.verdict.word, one.verdict.reason,
        ]  # fmt: skip
        lines.append(dict(zip(CLAIM_COLUMNS, values, strict=True)))
    about = "each claim of the spec: expected, measured, interval over images, verdict"
    return Data("claims.csv", about, CLAIM_COLUMNS, lines)


def paper_section(beside: list[Beside]) -> Iterator[Block]:
    """Yield the table of the paper's numbers and ours, if a spec names one."""
    if not beside:
        return
    table = beside[0].published.table.replace("_", " ")
    backbones = list(dict.fromkeys(one.published.backbone for one in beside))
    first = ["Backbone"] if len(backbones) > 1 else []
    headers = [*first, "Row", "On", "Quantity", "Verdict", "Paper", "Ours", "Difference",
               "95 % interval"]  # fmt: skip
    shown = {(one.published, one.group) for one in beside if one.group}
    several = len(shown) > len({published for published, _ in shown})
    rows = []
    for one in beside:
        known, unit = one.published, _UNITS[one.published.quantity]
        place = known.dataset if known.effective_px is None else f"{known.effective_px}² px"
        name = row_name(one) + (f" ({one.group})" if several and one.group else "")
        rows.append([
            *map(Cell, [*([known.backbone] if first else []), name, place, unit]),
            _verdict_cell(one.verdict),
            Cell(f"{known.value:g}", value=known.value),
            _number_cell(one.ours, partial(_number, one), one.source),
            _number_cell(one.difference, partial(_signed, one)),
            _interval_cell(one.interval, "{:.1f}".format),
        ])  # fmt: skip
    yield Heading("Against the paper")
    yield Text(f"The paper's {table}: {verdicts(one.verdict.word for one in beside)}.")
    caption = f"The paper's {table}" + ("" if first else f": backbone {backbones[0]}")
    n_text = len(headers) - 4
    yield Table(caption, [("", len(headers))], headers, rows, n_text=n_text, file="paper")
    yield Text(_PAPER_NOTE, "note")


def paper_files(beside: list[Beside]) -> Iterator[File]:
    """Yield the files of the paper's numbers, if a spec names a table."""
    if beside:
        yield paper_data(beside)
        yield from _tables("paper")


def paper_data(beside: Iterable[Beside]) -> Data:
    """Return one line per published number and group of ours."""
    lines = []
    for one in beside:
        known, (low, high) = one.published, one.interval or (None, None)
        values = {
            **vars(known), "group": one.group or None, "paper": known.value, "ours": one.ours,
            "low": low, "high": high, "difference": one.difference,
            "verdict": one.verdict.word, "reason": one.verdict.reason,
        }  # fmt: skip
        lines.append({name: values[name] for name in PAPER_COLUMNS})
    about = "each number of the paper beside ours: difference, interval over images, verdict"
    return Data("paper.csv", about, PAPER_COLUMNS, lines)


def _tables(name: str) -> Iterator[File]:
    yield File(f"{name}.md", f"the table of {name}.csv")
    yield File(f"{name}.tex", "the same for LaTeX, with the package booktabs")


def row_name(one: Beside) -> str:
    """Return what a row of the paper's table is: its method, and what distinguishes it."""
    known = one.published
    names = {"pretrained": "single pass", "teacher": f"sliding window, s = {known.stride_px}"}
    name = names.get(known.method, "SPAR")
    if known.trainable == "all":
        name += " all" + (", wider range" if known.images == "sa1b_25k_extended" else "")
    return name if known.refiner == "none" else f"{name} + {known.refiner}"


def verdicts(words: Iterable[str]) -> str:
    """Return how many there are of each verdict, in words."""
    found = Counter(words)
    return ", ".join(f"{found[word]} {value_text(word)}" for word in WORDS if found[word])


def _number_cell(
    value: float | None, write: Callable[[float], str], source: Source | None = None
) -> Cell:
    return NOT_PART if value is None else Cell(write(value), value=value, source=source)


def _interval_cell(interval: tuple[float, float] | None, write: Callable[[float], str]) -> Cell:
    """Return the cell of an interval, which is sorted by its lower end."""
    if interval is None:
        return NOT_PART
    return Cell(" to ".join(map(write, interval)), value=interval[0])


def _verdict_cell(verdict: Verdict) -> Cell:
    """Return the cell of a verdict, which is sorted from the best to none."""
    return Cell(
        value_text(verdict.word),
        value=WORDS.index(verdict.word),
        verdict=verdict.word,
        reason=verdict.reason,
    )


_CLAIM_UNITS = {
    "gflops": "GFLOPs", "latency_p50_ms": "ms", "peak_mib": "MiB", "params_m": "M parameters",
    "train_gflops": "training GFLOPs",
}  # fmt: skip


def _amount(one: Checked, value: float, *, bare: bool = False) -> str:
    """Write what is measured of a claim: a factor, a share, points of mIoU, or a cost."""
    claim = one.claim
    if claim.form == "ratio":
        written, unit = text.significant(value), "times"
    elif claim.form == "share":
        written, unit = f"{100 * value:.0f}", "% of the way"
    elif claim.quantity == "miou":
        written, unit = text.points(value), "points"
    else:
        written, unit = text.significant(value), _CLAIM_UNITS[claim.quantity]
    return written if bare else f"{written} {unit}"


def _number(one: Beside, value: float) -> str:
    if one.published.quantity == "miou_percent":
        return f"{value:.1f}"
    return f"{value:.0f}" if one.published.quantity == "windows" else text.significant(value)


def _signed(one: Beside, difference: float) -> str:
    match one.published.quantity:
        case "miou_percent":
            return text.points(difference / 100)
        case "windows":
            return f"{difference:+.0f}"
        case "seconds":  # to milliseconds: the last bits of a float say nothing
            return f"{round(difference, 3):+g}"
