"""Expand a sweep's blocks into the points they ask for, before any is validated."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spar_bench.spec.document import Document, Problem, Steps, dotted
from spar_bench.spec.keys import FIELDS, PARTS, adapter, put, raw_value, suggestion

MAX_POINTS = 10_000

Overrides = dict[str, tuple[Any, Steps]]
"""Dotted key to its value and where that stands in the file."""


@dataclass(frozen=True)
class Draft:
    """A point before validation: its settings as plain values, and where they came from."""

    raw: dict[str, Any]
    origins: dict[str, Steps]
    axes: tuple[str, ...]


def overlay(base: dict[str, Any], axes: Overrides, fixed: Overrides) -> Draft:
    """Put a point's values over the base, wider keys first: `teacher.stride_px` over `teacher`."""
    raw = base
    together = {**fixed, **axes}
    for key in sorted(together, key=lambda key: key.count(".")):
        raw = put(raw, key, together[key][0])
    return Draft(raw, {key: steps for key, (_, steps) in together.items()}, tuple(axes))


class Expansion:
    """The drafts of all blocks of a document, and the mistakes in how they are written."""

    def __init__(self, document: Document, base: dict[str, Any]) -> None:
        self.document = document
        self.base = base
        self.problems: list[Problem] = []

    def block(self, index: int) -> list[Draft]:
        """Return the drafts of one block whose shape is already known to be right."""
        steps: Steps = ("sweep", index)
        block = self.document.data["sweep"][index]
        n_before = len(self.problems)
        self._check_block(block, steps)
        if len(self.problems) > n_before:
            return []
        fixed = {key: (value, (*steps, "set", key)) for key, value in block.get("set", {}).items()}
        drafts = [overlay(self.base, axes, fixed) for axes in _combinations(block, steps)]
        return self._without_excluded(drafts, block.get("exclude", []), steps)

    def check_key(self, key: str, steps: Steps) -> bool:
        """Note a dotted key that no part of a spec has."""
        if key in FIELDS:
            return True
        text = f"must be a key of a spec, but got {key!r}; {suggestion(key)}"
        self._note(steps, text, at_key=True)
        return False

    def _note(self, steps: Steps, text: str, *, at_key: bool = False) -> None:
        place = self.document.place_of_key(steps) if at_key else self.document.place_of_value(steps)
        self.problems.append(Problem(place, dotted(steps), text))

    def _check_block(self, block: dict[str, Any], steps: Steps) -> None:
        if not any(block.get(part) for part in ("grid", "zip", "cases", "set", "search")):
            text = "must have grid, zip, cases, set or search, but got none"
            self._note(steps, f"{text}; fill the block, or delete it")
        given: dict[str, str] = {}
        for part in ("set", "grid", "zip"):
            for key in block.get(part, {}):
                self._check_once(key, part, given, (*steps, part, key))
        for i, case in enumerate(block.get("cases", [])):
            if not case:
                text = "must set a key, but got none; fill it, or delete it"
                self._note((*steps, "cases", i), text)
            for key in case:
                self._check_once(key, "cases", dict(given), (*steps, "cases", i, key))
        for i, excluded in enumerate(block.get("exclude", [])):
            if not excluded:
                self._note((*steps, "exclude", i), "must hold a key, but got none; delete it")
            for key in excluded:
                self.check_key(key, (*steps, "exclude", i, key))
        self._check_lengths(block, steps)

    def _check_once(self, key: str, part: str, given: dict[str, str], steps: Steps) -> None:
        self.check_key(key, steps)
        if key in given:
            text = f"must be given once in a block, but got it in {given[key]} too; keep one"
            self._note(steps, text, at_key=True)
        given[key] = part

    def _check_lengths(self, block: dict[str, Any], steps: Steps) -> None:
        zipped = block.get("zip", {})
        if len({len(values) for values in zipped.values()}) > 1:
            found = ", ".join(f"{len(values)} of {key}" for key, values in zipped.items())
            text = f"must have lists of one length, but got {found}; use grid for every combination"
            self._note((*steps, "zip"), text, at_key=True)
        n_points = math.prod(len(values) for values in block.get("grid", {}).values())
        n_points *= max([1, *(len(values) for values in zipped.values())])
        n_points *= max(1, len(block.get("cases", [])))
        if n_points > MAX_POINTS:
            text = f"must have at most {MAX_POINTS:,} points, but got {n_points:,}; use search"
            self._note(steps, text)

    def _without_excluded(
        self, drafts: list[Draft], excluded: list[dict[str, Any]], steps: Steps
    ) -> list[Draft]:
        kept = drafts
        for i, conditions in enumerate(excluded):
            matching = [draft for draft in drafts if _matches(draft, conditions)]
            if not matching:
                text = f"must match a point, but got {conditions}; correct it, or delete it"
                self._note((*steps, "exclude", i), text)
            kept = [draft for draft in kept if draft not in matching]
        if not kept:
            text = f"must leave a point, but got all {len(drafts)} excluded; exclude fewer"
            self._note((*steps, "exclude"), text, at_key=True)
        return kept


def _combinations(block: dict[str, Any], steps: Steps) -> Iterator[Overrides]:
    """Yield the grid's product times the zip's rows times the cases, the last varying fastest."""
    grid = block.get("grid", {})
    factors: list[list[Overrides]] = [
        [{key: (value, (*steps, "grid", key, i))} for i, value in enumerate(values)]
        for key, values in grid.items()
    ]
    zipped = block.get("zip", {})
    if zipped:
        n_rows = len(next(iter(zipped.values())))
        factors.append(
            [
                {key: (values[i], (*steps, "zip", key, i)) for key, values in zipped.items()}
                for i in range(n_rows)
            ]
        )
    if block.get("cases"):
        factors.append(
            [
                {key: (value, (*steps, "cases", i, key)) for key, value in case.items()}
                for i, case in enumerate(block["cases"])
            ]
        )
    for combination in itertools.product(*factors):
        yield {key: found for part in combination for key, found in part.items()}


def _matches(draft: Draft, conditions: dict[str, Any]) -> bool:
    return all(
        comparable(key, raw_value(draft.raw, key)) == comparable(key, value)
        for key, value in conditions.items()
    )


def comparable(key: str, value: Any) -> Any:
    """Return a raw value as the schema reads it (64.0 as 64), or as it is where it does not."""
    if key in PARTS and isinstance(value, str):
        value = {"name": value}
    try:
        return adapter(key).validate_python(value)
    except ValueError:
        return value
