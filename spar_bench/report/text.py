"""Write numbers and names for Markdown, LaTeX, matplotlib and file names."""

import math
import re

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--",
    "±": r"\ensuremath{\pm}", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}",
    "×": r"\ensuremath{\times}", "−": r"\ensuremath{-}", "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}", "²": r"\textsuperscript{2}", "…": r"\ldots{}", "—": "---",
}  # fmt: skip


def latex(text: str) -> str:
    """Return `text` escaped for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def markdown(text: str) -> str:
    """Return `text` escaped for one cell of a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", one_line(text))


def plot(text: str, most: int = 60) -> str:
    """Return at most `most` letters of `text`, with `$` escaped for matplotlib."""
    line = one_line(text)
    if len(line) > most:
        line = line[: most - 1].rstrip() + "…"
    return line.replace("$", r"\$")


def one_line(text: str) -> str:
    """Join the lines of `text`, and drop what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def capitalised(text: str) -> str:
    """Return `text` with its first letter large, and the others as they are."""
    return text[:1].upper() + text[1:]


def file_name(text: str) -> str:
    """Return `text` with everything but letters, digits, `-` and `.` replaced by `_`."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._") or "unnamed"


def percent(fraction: float) -> str:
    """Write a fraction as percent with one decimal, without the sign."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Write a difference of fractions in points with its sign; zero after rounding has none."""
    written = f"{100 * fraction:+.1f}"
    return "0.0" if float(written) == 0 else written


def significant(value: float) -> str:
    """Write a number with three significant digits, never in powers of ten: 0.900, 12.3, 3312."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
