"""The protocols of a table's rows; a table mixes several only if it says so."""

from collections.abc import Iterator
from typing import Any

from spar_bench.errors import MixedProtocols
from spar_bench.report.names import value_text
from spar_bench.results import Results, Row

_COLUMNS = {"precision": "dtype", "long_side_px": "eval_short_side_px"}
"""Columns of results.csv that show a part of a protocol; a swept key shows its own."""


def require_unmixed(results: Results) -> None:
    """Refuse rows of one data set with different protocols, unless a column shows the difference.

    Raises:
        MixedProtocols: one line per data set.
    """
    lines = [
        f"{results.experiment}: all rows of {dataset} must have one protocol, but have "
        f"{' and '.join(protocols)}, which differ in {_differences(results, protocols, keys)}; "
        "sweep what differs, or add --mix-protocols to see them in one table"
        for dataset, protocols, keys in _mixtures(results)
    ]
    if lines:
        raise MixedProtocols("\n".join(lines))


def mixed_datasets(results: Results) -> set[str]:
    """Return the data sets with several protocols that no column distinguishes."""
    return {dataset for dataset, _, _ in _mixtures(results)}


def protocol_lines(results: Results) -> list[str]:
    """Return a line for each protocol of the rows: its name, its rows, and what it says."""
    lines = []
    for name in dict.fromkeys(row.protocol for row in results.rows):
        by_dataset: dict[str, list[Row]] = {}
        for row in results.rows:
            if row.protocol == name:
                by_dataset.setdefault(row.dataset, []).append(row)
        where = "; ".join(f"{dataset} {_extent(rows)}" for dataset, rows in by_dataset.items())
        parts = ", ".join(_parts(results.protocols[name]))
        lines.append(f"Protocol {name} ({where}): {parts}.")
    return lines


def _extent(rows: list[Row]) -> str:
    """Return the resolutions of a data set's rows, and the number of images of their mIoU."""
    sides = ", ".join(map(str, sorted({row.eval_short_side_px for row in rows})))
    counts = sorted({row.n_images for row in rows if row.n_images is not None})
    n_images = " or ".join(map(str, counts))
    noun = "image" if counts == [1] else "images"
    listed = {row.n_listed for row in rows if row.n_listed is not None}
    is_part = bool(counts) and any(n > counts[-1] + _most_skipped(rows) for n in listed)
    of_all = f", evenly spaced among {max(listed)}" if is_part else ""
    return f"at {sides} px" + (f": {n_images} {noun}{of_all}" if counts else "")


def _most_skipped(rows: list[Row]) -> int:
    return max(row.n_skipped or 0 for row in rows)


def skipped_lines(results: Results) -> list[str]:
    """Return a line for each data set with images that could not be read and are left out."""
    most: dict[str, tuple[int, int]] = {}
    for row in results.rows:
        if row.n_skipped:
            count = (row.n_skipped, row.n_skipped + (row.n_images or 0))
            most[row.dataset] = max(most.get(row.dataset, count), count)
    return [
        f"Left out of {dataset}, because they cannot be read: {n} of {total} images; the remarks "
        "say why."
        for dataset, (n, total) in most.items()
    ]


def _mixtures(results: Results) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield data set, protocols, and the keys in which they differ and that no column shows."""
    for dataset in dict.fromkeys(row.dataset for row in results.rows):
        rows = [row for row in results.rows if row.dataset == dataset]
        names = list(dict.fromkeys(row.protocol for row in rows))
        hidden = [key for key in _differing(results, names) if not _is_shown(results, rows, key)]
        if hidden:
            yield dataset, names, hidden


def _differing(results: Results, names: list[str]) -> list[str]:
    protocols = [results.protocols[name] for name in names]
    keys = dict.fromkeys(key for one in protocols for key in one)
    return [key for key in keys if any(one.get(key) != protocols[0].get(key) for one in protocols)]


def _is_shown(results: Results, rows: list[Row], key: str) -> bool:
    """Tell whether a column shows this part of the protocol."""
    by_column: dict[tuple[str, str], object] = {}
    for row in rows:
        value = results.protocols[row.protocol].get(key)
        if by_column.setdefault(_column(row, key), value) != value:
            return False
    return True


def _column(row: Row, key: str) -> tuple[str, str]:
    """Return what columns say of a part: classifiers differ in prompts, scale and thresholds."""
    if key in _COLUMNS:
        return row.classifier, str(getattr(row, _COLUMNS[key]))
    start = f"evaluate.{key}"
    swept = {name: v for name, v in row.swept.items() if f"{name}.".startswith(f"{start}.")}
    return row.classifier, str(swept)


def _differences(results: Results, names: list[str], keys: list[str]) -> str:
    parts = []
    for key in keys:
        values = [results.protocols[name].get(key) for name in names]
        is_short = all(isinstance(value, int | float | str | None) for value in values)
        shown = f" ({' and '.join(map(value_text, values))})" if is_short else ""
        parts.append(key.replace("_", " ") + shown)
    return "; ".join(parts)


def _parts(protocol: dict[str, Any]) -> Iterator[str]:
    """Yield what a protocol declares, part by part."""
    for key, value in protocol.items():
        if key == "classes":
            yield f"{len(value)} classes by {sum(map(len, value))} names"
        elif key == "templates" and isinstance(value, list):
            more = f" and {len(value) - 2} more" if len(value) > 2 else ""
            yield "templates " + " / ".join(f'"{template}"' for template in value[:2]) + more
        elif key == "classifier":
            recipe = [f"{name.replace('_', ' ')} {value_text(v)}" for name, v in value.items()]
            yield f"a linear probe of {', '.join(recipe[1:])}"
        elif key == "by_read_out":
            for read_out, rules in value.items():
                parts = [f"{name.replace('_', ' ')} {value_text(v)}" for name, v in rules.items()]
                yield f"for {read_out} " + " and ".join(parts)
        elif value is not None:
            yield f"{key.removesuffix('_px').replace('_', ' ')} {value_text(value)}"
