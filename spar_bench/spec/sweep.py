"""Expand a sweep's blocks into the points they ask for, before any is validated."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from spar_bench.spec.blocks import Blocks
from spar_bench.spec.document import Steps
from spar_bench.spec.keys import PARTS, adapter, put, raw_value
from spar_bench.spec.problems import show

Overrides = dict[str, tuple[Any, Steps]]
"""Dotted key to its value and the value's position in the file."""


@dataclass(frozen=True)
class Draft:
    """A point before validation: its settings as plain values, and where they came from.

    `origins` has the swept keys and those under `set`, `axes` only the swept ones.
    """

    raw: dict[str, Any]
    origins: dict[str, Steps] = field(default_factory=dict)
    axes: tuple[str, ...] = ()


def overlay(base: dict[str, Any], axes: Overrides, fixed: Overrides) -> Draft:
    """Put a point's values over the base, wider keys first: `teacher.stride_px` over `teacher`."""
    raw = base
    together = {**fixed, **axes}
    for key in sorted(together, key=lambda key: key.count(".")):
        raw = put(raw, key, together[key][0])
    return Draft(raw, {key: steps for key, (_, steps) in together.items()}, tuple(axes))


def fixed_values(block: dict[str, Any], steps: Steps) -> Overrides:
    """Return what a block sets for all its points."""
    return {key: (value, (*steps, "set", key)) for key, value in block.get("set", {}).items()}


def expand(blocks: Blocks, base: dict[str, Any]) -> list[Draft]:
    """Return the points of all blocks that can be expanded; a search has none."""
    drafts: list[Draft] = []
    for steps, block in blocks.all():
        if blocks.check(block, steps) and not block.get("search"):
            fixed = fixed_values(block, steps)
            factors = _factors(block, steps)
            _refuse_repeated(factors, blocks)
            found = [overlay(base, axes, fixed) for axes in _combinations(factors)]
            drafts += _without_excluded(found, blocks, block, steps)
    return drafts


def _factors(block: dict[str, Any], steps: Steps) -> list[list[Overrides]]:
    """Return what a block multiplies: each axis of the grid, the zip's rows, and the cases."""
    factors: list[list[Overrides]] = [
        [{key: (value, (*steps, "grid", key, i))} for i, value in enumerate(values)]
        for key, values in block.get("grid", {}).items()
    ]
    zipped = block.get("zip", {})
    if zipped:
        rows = range(len(next(iter(zipped.values()))))
        factors.append(
            [{key: (zipped[key][i], (*steps, "zip", key, i)) for key in zipped} for i in rows]
        )
    cases = block.get("cases")
    if cases:
        factors.append(
            [
                {key: (value, (*steps, "cases", i, key)) for key, value in case.items()}
                for i, case in enumerate(cases)
            ]
        )
    return factors


def _refuse_repeated(factors: list[list[Overrides]], blocks: Blocks) -> None:
    """Record a value of an axis, a row or a case that is in its list twice."""
    for factor in factors:
        seen: set[str] = set()
        for entry in factor:
            said = repr({key: comparable(key, value) for key, (value, _) in sorted(entry.items())})
            if said in seen:
                shown = ", ".join(f"{key}: {show(value)}" for key, (value, _) in entry.items())
                text = f"must be given once, but got {shown} again; delete it"
                blocks.note(next(iter(entry.values()))[1], text)
            seen.add(said)


def _combinations(factors: list[list[Overrides]]) -> Iterator[Overrides]:
    """Yield the product of factors, the last varying fastest."""
    for combination in itertools.product(*factors):
        yield {key: found for part in combination for key, found in part.items()}


def _without_excluded(
    drafts: list[Draft], blocks: Blocks, block: dict[str, Any], steps: Steps
) -> list[Draft]:
    excluded: set[int] = set()
    for i, conditions in enumerate(block.get("exclude", [])):
        matching = {n for n, draft in enumerate(drafts) if _matches(draft, conditions)}
        if not matching:
            shown = ", ".join(f"{key}: {show(value)}" for key, value in conditions.items())
            text = f"must match a point of the block, but got {shown}; correct it, or delete it"
            blocks.note((*steps, "exclude", i), text)
        excluded |= matching
    if len(excluded) == len(drafts):
        text = f"must leave a point, but got all {len(drafts)} excluded; exclude fewer"
        blocks.note((*steps, "exclude"), text, at_key=True)
    return [draft for n, draft in enumerate(drafts) if n not in excluded]


def _matches(draft: Draft, conditions: dict[str, Any]) -> bool:
    return all(
        comparable(key, raw_value(draft.raw, key)) == comparable(key, value)
        for key, value in conditions.items()
    )


def comparable(key: str, value: Any) -> Any:
    """Return a raw value as the schema reads it (64.0 as 64), or unchanged if it is invalid."""
    if key in PARTS and isinstance(value, str):
        value = {"name": value}
    try:
        return adapter(key).validate_python(value)
    except ValueError:
        return value
