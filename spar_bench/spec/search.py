"""Check a search before it starts: its space, its objectives and the points enqueued."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from spar_bench.spec.blocks import ChoicesSpec, Drawn, RangeSpec, SearchSpec
from spar_bench.spec.document import Problem
from spar_bench.spec.expand import Blocks, Draft, Given, fixed_values, items, mapping
from spar_bench.spec.keys import PARTS, comparable, is_key, read_value
from spar_bench.spec.validate import Validator, is_training
from spar_bench.validation import Raw, Steps, dotted, show


class Search:
    """The search of a sweep as its file states it."""

    def __init__(self, blocks: Blocks, validator: Validator, base: Raw) -> None:
        self.blocks = blocks
        self.validator = validator
        searches = [(steps, block) for steps, block in blocks.all() if block.get("search")]
        self.is_asked = bool(searches)
        at, self.block = searches[0] if searches else ((), {})
        self.steps: Steps = (*at, "search")
        self.search = mapping(self.block.get("search"))
        self.space = {
            key: drawn
            for key, drawn in mapping(self.search.get("space")).items()
            if is_key(key) and key not in PARTS
        }
        given = {k: v for k, v in mapping(self.block.get("set")).items() if is_key(k)}
        self.base = Draft(base, fixed_values({"set": given}, at))
        """What each trial starts from."""
        self._choices = dict[str, set[str]]()

    def check(self) -> list[Problem]:
        """Return the values that no trial can have; other mistakes are recorded with the blocks."""
        self._check_alone()
        self._check_claims()
        self._check_objectives()
        self._check_pruning()
        problems: list[Problem] = []
        for key in mapping(self.search.get("space")):
            steps = (*self.steps, "space", key)
            if key in PARTS:
                text = f"must be a key that holds a value, but got {key!r}; draw {key}.<key>"
                self.blocks.note(steps, text, at_key=True)
            elif self.blocks.check_key(key, steps):
                problems += self._check_drawn(key, steps)
                if is_training(key) and self.base.value("student.checkpoint") is not None:
                    text = "must not be drawn where student.checkpoint is given, since nothing is "
                    self.blocks.note(steps, f"{text}trained, but got it; drop one", at_key=True)
        found = _read(SearchSpec, self.search)
        if found is not None and len(self.space) == len(found.space) and not problems:
            for index, point in items(self.search.get("enqueue")):
                problems += self._check_enqueued(point, (*self.steps, "enqueue", index))
        return problems

    def _check_alone(self) -> None:
        beside = [part for part in ("grid", "zip", "cases", "exclude") if self.block.get(part)]
        n_blocks = len(self.blocks.document.data["sweep"])
        if beside or n_blocks > 1:
            others = " and ".join(beside) or f"{n_blocks} blocks"
            text = f"must stand alone in a sweep, but got {others}; make it a spec of its own"
            self.blocks.note(self.steps, text, at_key=True)

    def _check_claims(self) -> None:
        """Record claims, whose rows must be known before the sweep."""
        if self.blocks.document.data.get("claims"):
            text = "must be left out where a search draws the points, which no claim can name, but "
            self.blocks.note(("claims",), f"{text}got it; drop one, or use grid", at_key=True)

    def _check_objectives(self) -> None:
        """Record objectives that no trial can have a value for."""
        measurable = {
            "latency_p50_ms": (True in self._possible("measure.latency"), "measure.latency is off",
                               "switch latency on"),
            "train_gflops": (self._trains(), "no student is trained", "train one"),
        }  # fmt: skip
        for name in mapping(self.search.get("objectives")):
            is_measured, reason, change = measurable.get(name, (True, "", ""))
            if not is_measured:
                text = f"must be left out where {reason}, but got it; {change}"
                self.blocks.note((*self.steps, "objectives", name), text, at_key=True)

    def _check_pruning(self) -> None:
        """Record what makes losses say nothing of which trial is better."""
        if _read(bool, self.search.get("prune")) is not True:
            return
        steps, objectives = (*self.steps, "prune"), self.search.get("objectives", {"miou": ""})
        if len(mapping(objectives)) == 1 and "miou" not in objectives:
            text = f"must be off where the objective is {next(iter(objectives))}, but is on: "
            self.blocks.note(steps, f"{text}no loss tells of it; drop prune")
        if not self._trains():
            self.blocks.note(steps, "must be off where no student is trained, but is on; drop it")
        for key in self.space:
            if key.startswith(("student.loss", "backbone.", "images.", "teacher.")):
                text = "must not be drawn where prune is on, since losses under different values "
                text += "are not comparable, but got it; set it, or drop prune"
                self.blocks.note((*self.steps, "space", key), text, at_key=True)

    def _trains(self) -> bool:
        """Return whether some trial trains a student."""
        methods = [names for names in self._possible("evaluate.methods") if isinstance(names, list)]
        return any("student" in names for names in methods) and None in self._possible(
            "student.checkpoint"
        )

    def _possible(self, key: str) -> list[Any]:
        """Return the values that a key may have in a trial."""
        choices = mapping(self.space.get(key)).get("choices")
        values = choices if isinstance(choices, list) else [self.base.value(key)]
        return [read_value(key, value) for value in values]

    def _check_drawn(self, key: str, steps: Steps) -> list[Problem]:
        drawn = _read(Drawn, self.space[key])
        if drawn is None:
            return []  # reported with the file's other mistakes
        if isinstance(drawn, ChoicesSpec):
            places = [(*steps, "choices", i) for i in range(len(drawn.choices))]
            values = list(map(Given, drawn.choices, places))
        else:
            values = [Given(self.space[key][end], (*steps, end)) for end in ("low", "high")]
        problems: list[Problem] = []
        for value in values:
            problems += self.validator.single_value(self._with({key: value}), key)
        is_range = isinstance(drawn, RangeSpec)
        if not problems and is_range and not drawn.integer and self._is_whole(key, drawn.low):
            text = "must be drawn as whole numbers, but got integer: false; add integer: true"
            self.blocks.note(steps, text, at_key=True)
        return problems

    def _is_whole(self, key: str, number: float) -> bool:
        """Return whether a key takes whole numbers alone, which `number` is one of."""
        between = Given(number + 0.5, self.steps)
        return bool(self.validator.single_value(self._with({key: between}), key))

    def _check_enqueued(self, point: Raw, steps: Steps) -> list[Problem]:
        odd = sorted(set(point) ^ set(self.space))
        if odd:
            text = f"must give exactly the keys of space, but differs in {dotted((odd[0],))}"
            self.blocks.note(steps, f"{text}; add or drop it")
            return []
        outside = [key for key, value in point.items() if not self._is_within(key, value)]
        for key in outside:
            text = f"must be in the search space, but got {show(point[key])}; widen space"
            self.blocks.note((*steps, key), text)
        axes = {key: Given(value, (*steps, key)) for key, value in point.items()}
        return [] if outside else self.validator.settings(self._with(axes))[1]

    def _with(self, values: dict[str, Given]) -> Draft:
        return Draft(self.base.base, {**self.base.given, **values}, tuple(values))

    def _is_within(self, key: str, value: Any) -> bool:
        drawn = _read(Drawn, self.space[key])
        if isinstance(drawn, ChoicesSpec):
            if key not in self._choices:
                self._choices[key] = {comparable(key, choice) for choice in drawn.choices}
            return comparable(key, value) in self._choices[key]
        number = read_value(key, value)
        return isinstance(number, int | float) and drawn.low <= number <= drawn.high


def _read(kind: Any, value: Any) -> Any:
    """Return a value as the schema reads it, numbers and switches as text too; None if invalid."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError:
        return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
