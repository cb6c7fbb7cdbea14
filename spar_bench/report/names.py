"""Display names: settings, backbones and data sets as tables and figures show them."""

from dataclasses import replace
from typing import Any

from spar_bench.results import Reading, Results, Row

IMPORTED = "imported: "
RANDOM_WEIGHTS = "random weights"


def setting_text(name: str, value: Any) -> str:
    """Return a setting as it stands in a name: `s = 12`, `last 2 blocks`, `epochs = 8`."""
    text = value_text(value)
    match name:
        case "stride_px":
            return f"s = {text}"
        case "window_px":
            return f"w = {text}"
        case "average":
            return f"{text.removesuffix('s')} average"
        case "refiner":
            return "no refiner" if text == "none" else text
        case "classifier":
            return {"text": "class names", "linear": "linear probe"}.get(text, text)
        case "train_short_side_px":
            return f"train {text} px"
        case "backbone" | "loss" | "trainable" | "protocol" | "dtype" | "group":
            return text
    return f"{name.split('.')[-1].replace('_', ' ')} = {text}"


def value_text(value: Any) -> str:
    """Write a value as a reader would: no underscores, short numbers, ranges with a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "–".join(value_text(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(part)}" for key, part in value.items())
    if value is None:
        return "none"
    return str(value).replace("_", " ").replace("last 1 blocks", "last block")


def backbone_name(row: Reading) -> str:
    """Return the name of a row's backbone, which says whether its weights are random."""
    return f"{row.backbone} ({RANDOM_WEIGHTS})" if row.random_weights else row.backbone


def trained_part(row: Row) -> str | None:
    """Return the part that a row's student trained, or the file that it was imported from."""
    return row.trainable if row.checkpoint is None else f"{IMPORTED}{row.checkpoint}"


def with_distinct_datasets(results: Results) -> Results:
    """Return results in which different data sets of one name have their digest in it.

    Those of one group never share a name.
    """
    digests: dict[str, set[str]] = {}
    for row in results.rows:
        digests.setdefault(row.dataset, set()).add(row.dataset_digest)
    names = {
        (row.group, row.dataset): f"{row.dataset} {row.dataset_digest[:8]}"
        for row in results.rows
        if len(digests[row.dataset]) > 1
    }

    def name(group: str, dataset: str) -> str:
        return names.get((group, dataset), dataset)

    rows = [replace(row, dataset=name(row.group, row.dataset)) for row in results.rows]
    matches = [
        replace(one, places=[(name(one.group, dataset), side) for dataset, side in one.places])
        for one in results.matches
    ]
    return replace(results, rows=rows, matches=matches)
