"""Check how the blocks of a sweep are written: their keys, lengths and sizes."""

import math
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from spar_bench.spec.document import Document, Problem, Steps, dotted
from spar_bench.spec.keys import FIELDS, suggestion
from spar_bench.spec.swept import BlockSpec

MAX_POINTS = 10_000


class Blocks:
    """The blocks of a document and their mistakes, except those that the schema reports.

    The keys of a block that the schema refuses are still checked, to report all mistakes at once.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def all(self) -> Iterator[tuple[Steps, dict[str, Any]]]:
        """Yield each block and where it is."""
        for index, block in items(self.document.data.get("sweep")):
            yield ("sweep", index), block

    def check(self, block: dict[str, Any], steps: Steps) -> bool:
        """Record what is wrong in a block; return whether it can be expanded."""
        n_before = len(self.problems)
        parts = ("grid", "zip", "cases", "set", "search")
        if not any(block.get(part) for part in parts) and set(block) <= set(parts):
            text = "must have grid, zip, cases, set or search, but got none"
            self.note(steps, f"{text}; fill the block, or delete it")
        else:
            for part in ("grid", "zip", "cases"):
                if block.get(part) in ({}, []):
                    text = "must hold a point, but got none; fill it, or delete it"
                    self.note((*steps, part), text, at_key=True)
        given: dict[str, str] = {}
        for part in ("set", "grid", "zip"):
            for key in mapping(block.get(part)):
                self._check_once(key, part, given, (*steps, part, key))
        for i, case in items(block.get("cases")):
            self._check_filled(case, (*steps, "cases", i))
            for key in case:
                self._check_once(key, "cases", dict(given), (*steps, "cases", i, key))
        for i, excluded in items(block.get("exclude")):
            self._check_filled(excluded, (*steps, "exclude", i))
            for key in excluded:
                self.check_key(key, (*steps, "exclude", i, key))
        try:
            BlockSpec.model_validate(block)
        except ValidationError:
            return False
        self._check_lengths(block, steps)
        return len(self.problems) == n_before

    def check_key(self, key: str, steps: Steps) -> bool:
        """Record a dotted key that no part of a spec has."""
        if key in FIELDS:
            return True
        text = f"must be a key of a spec, but got {key!r}; {suggestion(key)}"
        self.note(steps, text, at_key=True)
        return False

    def note(self, steps: Steps, text: str, *, at_key: bool = False) -> None:
        """Record a mistake at a value of the file, or at its key."""
        place = self.document.place_of_key(steps) if at_key else self.document.place_of_value(steps)
        self.problems.append(Problem(place, dotted(steps), text))

    def _check_filled(self, point: dict[str, Any], steps: Steps) -> None:
        if not point:
            self.note(steps, "must hold a key, but got none; fill it, or delete it")

    def _check_once(self, key: str, part: str, given: dict[str, str], steps: Steps) -> None:
        self.check_key(key, steps)
        if key in given:
            text = f"must be given once in a block, but is also in {given[key]}; keep one"
            self.note(steps, text, at_key=True)
        given[key] = part

    def _check_lengths(self, block: dict[str, Any], steps: Steps) -> None:
        zipped = block.get("zip", {})
        if len({len(values) for values in zipped.values()}) > 1:
            found = ", ".join(f"{len(values)} of {key}" for key, values in zipped.items())
            text = f"must have equally long lists, but got {found}; use grid for every combination"
            self.note((*steps, "zip"), text, at_key=True)
        n_points = math.prod(len(values) for values in block.get("grid", {}).values())
        n_points *= max([1, *(len(values) for values in zipped.values())])
        n_points *= max(1, len(block.get("cases", [])))
        if n_points > MAX_POINTS:
            text = f"must have at most {MAX_POINTS:,} points, but got {n_points:,}; use search"
            self.note(steps, text)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping as it is, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the mappings of a list with their indices; nothing for a value that is not a list."""
    for index, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, dict):
            yield index, item
