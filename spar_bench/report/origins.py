"""Where each row's numbers come from: its stages, how they were made, weights, lines of the spec.

The value is JSON:

- `columns`: those of results.csv, of all experiments that the page shows.
- `rows`: for each row, experiment by experiment, its `values` by column, `stages` by role,
  `reason`, the `lines` of its spec (from 1) that decide what was swept, and the `run` that shows it
  in MLflow, if any is known: `id`, `url`, `command`.
- `stages`: by fingerprint, the `kind`, `version` and `inputs` (by role) of each finished stage,
  when and where it was made, by which commit and versions, from which `backbone`, and the `files`
  of weights that it trained.
- `backbones`: by that name, the weights' files with their SHA-256.
- `roles`: the role of the stage that made each column's numbers.
- `specs`: the text of each experiment's spec.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spar_bench.errors import SpecError
from spar_bench.report.data import results_data
from spar_bench.results import MADE_BY, Results
from spar_bench.spec.document import Document, parse_document
from spar_bench.track import Runs
from spar_bench.validation import Raw, Steps

_MADE = ("device", "host", "commit", "versions", "ended_ms", "seconds")


def origins_of(experiments: Sequence[Results], runs: Runs = MappingProxyType({})) -> Raw:
    """Return the origin of every row of some experiments."""
    names = (name for results in experiments for name in results_data(results).columns)
    columns = list(dict.fromkeys(names))
    provenances = [results.provenance for results in experiments]
    return {
        "columns": columns,
        "rows": [row for results in experiments for row in _rows(results, columns, runs)],
        "stages": {
            key: {**stage, "made": {name: stage["made"].get(name) for name in _MADE}}
            for provenance in provenances
            for key, stage in provenance.get("stages", {}).items()
        },
        "backbones": {
            key: {"plugin": one["plugin"], "files": one["files"]}
            for provenance in provenances
            for key, one in provenance.get("backbones", {}).items()
        },
        "roles": MADE_BY,
        "specs": {results.experiment: results.spec for results in experiments},
    }


def _rows(results: Results, columns: list[str], runs: Runs) -> Iterator[Raw]:
    """Yield the rows of an experiment, which may lack columns of others."""
    document = _document(results)
    lines: dict[str, list[int]] = {}
    for row, values in zip(results.rows, results_data(results).rows, strict=True):
        if row.group not in lines:
            lines[row.group] = spec_lines(document, row.swept) if document else []
        run = runs.get((results.experiment, row.trial, row.method))
        yield {
            "values": [values.get(name) for name in columns],
            "stages": row.stages,
            "lines": lines[row.group],
            "reason": row.reason,
            "run": None if run is None else run._asdict(),
        }


def spec_lines(document: Document, swept: dict[str, Any]) -> list[int]:
    """Return the lines of a spec in which a point's swept values stand, from 1.

    A key that some part of `sweep` sets to the point's value stands there, any other in the spec's
    own settings, if it is there at all.
    """
    found = set[int]()
    for key, value in swept.items():
        places = [
            steps
            for steps in document.keys
            if steps[0] == "sweep" and steps[-1] == key and _holds(_at(document, steps), value)
        ]
        own = tuple(key.split("."))
        places = places or ([own] if own in document.keys else [])
        found |= {document.keys[steps].line for steps in places}
    return sorted(found)


def _document(results: Results) -> Document | None:
    """Return the spec with the places of its keys; None where only its text is to be shown."""
    try:
        return parse_document(Path(results.experiment), results.spec, {})
    except SpecError:
        return None


def _at(document: Document, steps: Steps) -> Any:
    value: Any = document.data
    for step in steps:
        value = value[step]
    return value


def _holds(written: Any, value: Any) -> bool:
    """Tell whether what a spec says is this value, one of several, or the bounds of a search."""
    value = list(value) if isinstance(value, tuple) else value
    is_one = isinstance(written, list) and value in written
    return is_one or written == value or isinstance(written, dict)
