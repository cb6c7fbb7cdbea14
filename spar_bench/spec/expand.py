"""Expand a sweep's blocks into the points they ask for, before any is validated."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from spar_bench.spec.blocks import BlockSpec
from spar_bench.spec.document import Document, Problem
from spar_bench.spec.keys import comparable, is_key, put, raw_value, suggest_key
from spar_bench.validation import MAX_MISTAKES, Raw, Steps, dotted, show
from spar_bench.values import MAX_POINTS


class Given(NamedTuple):
    """A value that a sweep gives to a key, and where in the file it is."""

    value: Any
    steps: Steps


@dataclass(frozen=True)
class Draft:
    """A point before validation: what a sweep gives by dotted key, over the rest of the file.

    `axes` are the keys that are swept, not only set.
    """

    base: Raw
    given: dict[str, Given] = field(default_factory=dict)
    axes: tuple[str, ...] = ()

    def under(self, part: str) -> list[str]:
        """Return the given keys of a part, wider ones first: `teacher`, then those in it."""
        own = [key for key in self.given if key == part or key.startswith(f"{part}.")]
        return sorted(own, key=lambda key: key.count("."))

    def identity(self, part: str) -> tuple[tuple[str, Steps, str], ...]:
        """Return what two points share if a part of them is the same and from the same lines."""
        own = [(key, self.given[key]) for key in self.under(part)]
        return tuple((key, given.steps, repr(given.value)) for key, given in own)

    def raw(self, part: str) -> Raw:
        """Return a part as plain values under its name; nothing where all is default."""
        raw = {part: self.base[part]} if part in self.base else {}
        for key in self.under(part):
            raw = put(raw, key, self.given[key].value)
        return raw

    def value(self, key: str) -> Any:
        """Return the plain value of a key, or its default."""
        return raw_value(self.raw(key.partition(".")[0]), key)


class Blocks:
    """The blocks of a document and their mistakes, except those that the schema reports.

    The keys of a block that the schema refuses are still checked, to report all mistakes at once.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self._n_points = 0

    def all(self) -> Iterator[tuple[Steps, Raw]]:
        """Yield each block and where it is."""
        for index, block in items(self.document.data.get("sweep")):
            yield ("sweep", index), block

    def expand(self, base: Raw) -> list[Draft]:
        """Return the points of all blocks that can be expanded; a search has none."""
        drafts: list[Draft] = []
        for steps, block in self.all():
            if self.check(block, steps) and not block.get("search"):
                factors = _factors(block, steps)
                self._refuse_repeated(factors)
                fixed = fixed_values(block, steps)
                points = [
                    Draft(base, {**fixed, **axes}, tuple(axes)) for axes in _combinations(factors)
                ]
                drafts += self._without_excluded(points, block, steps)
        return drafts

    def check(self, block: Raw, steps: Steps) -> bool:
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
        self._check_keys(block, steps)
        try:
            BlockSpec.model_validate(block)
        except ValidationError:
            return False
        self._check_lengths(block, steps)
        return len(self.problems) == n_before

    def check_key(self, key: str, steps: Steps) -> bool:
        """Record a dotted key that no part of a spec has."""
        if is_key(key):
            return True
        if len(self.problems) <= MAX_MISTAKES:  # a suggestion takes a millisecond
            text = f"must be a key of a spec, but got {show(key)}; {suggest_key(key)}"
            self.note(steps, text, at_key=True)
        return False

    def note(self, steps: Steps, text: str, *, at_key: bool = False) -> None:
        """Record a mistake at a value of the file, or at its key."""
        document = self.document
        position = document.position_of_key(steps) if at_key else document.position_of_value(steps)
        self.problems.append(Problem(position, dotted(steps), text))

    def _check_keys(self, block: Raw, steps: Steps) -> None:
        given: dict[str, str] = {}
        for part in ("set", "grid", "zip"):
            for key in mapping(block.get(part)):
                self._check_once(key, part, given, (*steps, part, key))
        for i, case in items(block.get("cases")):
            self._check_filled(case, (*steps, "cases", i))
            for key in case:
                self._check_once(key, "cases", given, (*steps, "cases", i, key))
        for i, excluded in items(block.get("exclude")):
            self._check_filled(excluded, (*steps, "exclude", i))
            for key in excluded:
                self.check_key(key, (*steps, "exclude", i, key))

    def _check_filled(self, point: Raw, steps: Steps) -> None:
        if not point:
            self.note(steps, "must hold a key, but got none; fill it, or delete it")

    def _check_once(self, key: str, part: str, given: dict[str, str], steps: Steps) -> None:
        self.check_key(key, steps)
        if given.setdefault(key, part) != part:
            text = f"must be given once in a block, but is also in {given[key]}; keep one"
            self.note(steps, text, at_key=True)

    def _check_lengths(self, block: Raw, steps: Steps) -> None:
        zipped = block.get("zip", {})
        if len({len(values) for values in zipped.values()}) > 1:
            lengths = ", ".join(f"{len(values)} of {key}" for key, values in zipped.items())
            text = f"must have equally long lists, but got {lengths}"
            self.note((*steps, "zip"), f"{text}; use grid for every combination", at_key=True)
        n_points = math.prod(len(values) for values in block.get("grid", {}).values())
        n_points *= max([1, *(len(values) for values in zipped.values())])
        n_points *= max(1, len(block.get("cases", [])))
        self._n_points += n_points
        if self._n_points > MAX_POINTS:
            before = "" if self._n_points == n_points else " with those of the blocks before it"
            text = f"must have at most {MAX_POINTS:,} points{before}, but got {self._n_points:,}"
            self.note(steps, f"{text}; use search")

    def _refuse_repeated(self, factors: list[list[dict[str, Given]]]) -> None:
        """Record a value of an axis, a row or a case that is in its list twice."""
        for factor in factors:
            seen = set[str]()
            for entry in factor:
                pairs = [(key, comparable(key, given.value)) for key, given in entry.items()]
                values = repr(sorted(pairs))
                if values in seen:
                    shown = ", ".join(f"{key}: {show(given.value)}" for key, given in entry.items())
                    text = f"must be given once, but got {shown} again; delete it"
                    self.note(next(iter(entry.values())).steps, text)
                seen.add(values)

    def _without_excluded(self, drafts: list[Draft], block: Raw, steps: Steps) -> list[Draft]:
        excluded, every = 0, (1 << len(drafts)) - 1
        index: dict[str, dict[str, int]] = {}
        for i, conditions in enumerate(block.get("exclude", [])):
            matching = every
            for key, value in conditions.items():
                if key not in index:
                    index[key] = _indexed(drafts, key)
                matching &= index[key].get(comparable(key, value), 0)
            if not matching:
                shown = ", ".join(f"{key}: {show(value)}" for key, value in conditions.items())
                text = f"must match a point of the block, but got {shown}; correct it, or delete it"
                self.note((*steps, "exclude", i), text)
            excluded |= matching
        if excluded == every:
            text = f"must leave a point, but got all {len(drafts)} excluded; exclude fewer"
            self.note((*steps, "exclude"), text, at_key=True)
        return [draft for n, draft in enumerate(drafts) if not excluded >> n & 1]


def fixed_values(block: Raw, steps: Steps) -> dict[str, Given]:
    """Return what a block sets for all its points."""
    return {key: Given(value, (*steps, "set", key)) for key, value in block.get("set", {}).items()}


def _factors(block: Raw, steps: Steps) -> list[list[dict[str, Given]]]:
    """Return what a block multiplies: each axis of the grid, the zip's rows, and the cases."""
    factors = [
        [{key: Given(value, (*steps, "grid", key, i))} for i, value in enumerate(values)]
        for key, values in block.get("grid", {}).items()
    ]
    zipped = block.get("zip", {})
    if zipped:
        rows = range(len(next(iter(zipped.values()))))
        factors.append(
            [{key: Given(zipped[key][i], (*steps, "zip", key, i)) for key in zipped} for i in rows]
        )
    cases = block.get("cases")
    if cases:
        factors.append(
            [
                {key: Given(value, (*steps, "cases", i, key)) for key, value in case.items()}
                for i, case in enumerate(cases)
            ]
        )
    return factors


def _combinations(factors: list[list[dict[str, Given]]]) -> Iterator[dict[str, Given]]:
    """Yield the product of factors, the last varying fastest."""
    for combination in itertools.product(*factors):
        yield {key: given for part in combination for key, given in part.items()}


def _indexed(drafts: list[Draft], key: str) -> dict[str, int]:
    """Map each value of a key to the points that have it: bit n stands for the nth."""
    values: dict[Any, str] = {}
    masks: dict[str, int] = {}
    for n, draft in enumerate(drafts):
        identity = draft.identity(key.partition(".")[0])
        if identity not in values:
            values[identity] = comparable(key, draft.value(key))
        masks[values[identity]] = masks.get(values[identity], 0) | 1 << n
    return masks


def mapping(value: Any) -> Raw:
    """Return a mapping as it is, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> Iterator[tuple[int, Raw]]:
    """Yield the mappings of a list with their indices; nothing for a value that is not a list."""
    for index, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, dict):
            yield index, item
