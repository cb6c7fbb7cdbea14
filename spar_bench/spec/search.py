"""Check a search before it starts: its space, its objectives and the points enqueued."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from spar_bench.spec.blocks import Blocks, items, mapping
from spar_bench.spec.checks import is_training
from spar_bench.spec.document import Problem, Steps
from spar_bench.spec.keys import FIELDS, PARTS, adapter, raw_value
from spar_bench.spec.problems import show
from spar_bench.spec.resolve import Resolver
from spar_bench.spec.sweep import Draft, comparable, fixed_values, overlay
from spar_bench.spec.swept import Drawn, SearchSpec


class Search:
    """The search of a sweep as its file states it."""

    def __init__(self, blocks: Blocks, resolver: Resolver, base: dict[str, Any]) -> None:
        self.blocks = blocks
        self.resolver = resolver
        found = [(steps, block) for steps, block in blocks.all() if block.get("search")]
        self.is_asked = bool(found)
        at, self.block = found[0] if found else ((), {})
        self.steps: Steps = (*at, "search")
        self.search = mapping(self.block.get("search"))
        self.space = {
            key: drawn
            for key, drawn in mapping(self.search.get("space")).items()
            if key not in PARTS
        }
        given = {k: v for k, v in mapping(self.block.get("set")).items() if k in FIELDS}
        fixed = fixed_values({"set": given}, at)
        origins = {key: (*self.steps, "space", key) for key in self.space}
        self.base = Draft(overlay(base, {}, fixed).raw, origins)
        """What each trial starts from, and the positions of the drawn keys in the file."""

    def check(self) -> list[Problem]:
        """Return the values that no trial can have; other mistakes are recorded with the blocks."""
        self._check_alone()
        self._check_objectives()
        problems: list[Problem] = []
        is_sound = _is(SearchSpec, self.search)
        for key in mapping(self.search.get("space")):
            steps = (*self.steps, "space", key)
            if key in PARTS:
                text = f"must be a key that holds a value, but got {key!r}; draw {key}.<key>"
                self.blocks.note(steps, text, at_key=True)
                is_sound = False
            elif self.blocks.check_key(key, steps):
                problems += self._check_drawn(key, steps)
                if is_training(key) and raw_value(self.base.raw, "student.checkpoint") is not None:
                    text = "must not be drawn where student.checkpoint is given, since nothing is "
                    self.blocks.note(steps, f"{text}trained, but got it; drop one", at_key=True)
            else:
                is_sound = False
        if is_sound and not problems:
            for index, point in items(self.search.get("enqueue")):
                problems += self._check_enqueued(point, (*self.steps, "enqueue", index))
        return problems

    def _check_alone(self) -> None:
        beside = [part for part in ("grid", "zip", "cases", "exclude") if self.block.get(part)]
        n_blocks = len(self.blocks.document.data["sweep"])
        if beside or n_blocks > 1:
            found = " and ".join(beside) or f"{n_blocks} blocks"
            text = f"must stand alone in a sweep, but got {found}; make it a spec of its own"
            self.blocks.note(self.steps, text, at_key=True)

    def _check_objectives(self) -> None:
        objectives = mapping(self.search.get("objectives"))
        if "latency_p50_ms" in objectives and raw_value(self.base.raw, "measure.latency") is False:
            text = "must be left out where measure.latency is off, but got it; switch latency on"
            self.blocks.note((*self.steps, "objectives", "latency_p50_ms"), text, at_key=True)

    def _check_drawn(self, key: str, steps: Steps) -> list[Problem]:
        drawn = self.space[key]
        if not _is(Drawn, drawn):
            return []  # reported with the file's other mistakes
        if "choices" in drawn:
            places = [((*steps, "choices", i), value) for i, value in enumerate(drawn["choices"])]
        else:
            places = [((*steps, end), drawn[end]) for end in ("low", "high")]
        problems: list[Problem] = []
        for place, value in places:
            draft = overlay(self.base.raw, {key: (value, place)}, {})
            problems += self.resolver.single_values(draft)
        if not problems and "low" in drawn and not drawn.get("integer") and _is_whole(key, drawn):
            text = "must be drawn as whole numbers, but got integer: false; add integer: true"
            self.blocks.note(steps, text, at_key=True)
        return problems

    def _check_enqueued(self, point: dict[str, Any], steps: Steps) -> list[Problem]:
        odd = sorted(set(point) ^ set(self.space))
        if odd:
            text = f"must give exactly the keys of space, but differs in {odd[0]}"
            self.blocks.note(steps, f"{text}; add or drop it")
            return []
        outside = [
            key for key, value in point.items() if not _is_within(key, value, self.space[key])
        ]
        for key in outside:
            text = f"must be in the search space, but got {show(point[key])}; widen space"
            self.blocks.note((*steps, key), text)
        axes = {key: (value, (*steps, key)) for key, value in point.items()}
        return [] if outside else self.resolver.resolve(overlay(self.base.raw, axes, {}))[1]


def _is(kind: Any, value: Any) -> bool:
    """Tell whether the schema accepts a value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _is_whole(key: str, drawn: dict[str, Any]) -> bool:
    """Tell whether a key takes whole numbers alone."""
    try:
        adapter(key).validate_python(drawn["low"] + 0.5)
    except ValidationError:
        return True
    return False


def _is_within(key: str, value: Any, drawn: dict[str, Any]) -> bool:
    found = comparable(key, value)
    if "choices" in drawn:
        return found in [comparable(key, choice) for choice in drawn["choices"]]
    return isinstance(found, int | float) and drawn["low"] <= found <= drawn["high"]
