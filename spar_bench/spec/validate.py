"""Validate a file and its points, and locate their mistakes in it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from spar_bench.spec.document import Document, Position, Problem
from spar_bench.spec.expand import Draft
from spar_bench.spec.keys import suggest_sibling
from spar_bench.spec.plugins import known_plugins
from spar_bench.spec.schema import Settings, Spec
from spar_bench.validation import Mistake, Part, Steps, dotted, mistakes, show


@dataclass(frozen=True)
class Conflict:
    """Incompatible values: their dotted keys, with the one to name first, and the reason."""

    keys: tuple[str, ...]
    text: str


Check = Callable[[Settings], Iterable[Conflict]]
"""What finds conflicts with what plug-ins state, such as a window that no patch divides."""


class Validator:
    """Validates against the schema, the available plug-ins, and a check of whole points.

    A part of a point is validated once for all points that share it.
    """

    def __init__(self, document: Document, check: Check) -> None:
        self.document = document
        self._check = check
        self._plugins = known_plugins()
        self._parts: dict[Any, tuple[Part | None, list[Problem]]] = {}
        self._equal: dict[tuple[str, str], Part] = {}

    def spec(self) -> tuple[Spec | None, list[Problem]]:
        """Return the whole file as a model, or what is wrong in it."""
        try:
            return Spec.model_validate(self.document.data, context=self._plugins), []
        except ValidationError as error:
            errors = mistakes(error, Spec, suggest_sibling)
            return None, [self._problem(wrong, Draft({})) for wrong in errors]

    def settings(self, draft: Draft) -> tuple[Settings | None, list[Problem]]:
        """Return a point's settings, or what is wrong with them; equal parts are one object."""
        parts, problems = dict[str, Part](), list[Problem]()
        for name in Settings.model_fields:
            part, errors = self._part(draft, name)
            problems += errors
            if part is not None:
                parts[name] = part
        if problems:
            return None, problems
        settings = Settings.model_validate(parts)
        problems = [
            Problem(self._locate(draft, _steps(conflict)), conflict.keys[0], conflict.text)
            for conflict in (*_imported(settings, draft.axes), *self._check(settings))
        ]
        return (None if problems else settings), problems

    def single_value(self, draft: Draft, key: str) -> list[Problem]:
        """Return the mistakes in a key's value alone, not in what it conflicts with."""
        try:
            Settings.model_validate(draft.raw(key.partition(".")[0]), context=self._plugins)
        except ValidationError as error:
            errors = mistakes(error, Settings, suggest_sibling)
            return [self._problem(wrong, draft) for wrong in errors if not wrong.keys]
        return []

    def _part(self, draft: Draft, name: str) -> tuple[Part | None, list[Problem]]:
        identity = (name, draft.identity(name))
        if identity not in self._parts:
            self._parts[identity] = self._validated(draft, name)
        return self._parts[identity]

    def _validated(self, draft: Draft, name: str) -> tuple[Part | None, list[Problem]]:
        try:
            settings = Settings.model_validate(draft.raw(name), context=self._plugins)
        except ValidationError as error:
            errors = mistakes(error, Settings, suggest_sibling)
            return None, [self._problem(wrong, draft) for wrong in errors]
        part: Part = getattr(settings, name)
        return self._equal.setdefault((name, part.model_dump_json()), part), []

    def _problem(self, wrong: Mistake, draft: Draft) -> Problem:
        if wrong.is_about_key:
            position = self.document.position_of_key(_in_file(draft, wrong.steps))
        else:
            position = self._locate(draft, wrong.keys or [wrong.steps])
        return Problem(position, dotted(wrong.steps), wrong.text)

    def _locate(self, draft: Draft, candidates: Sequence[Steps]) -> Position:
        """Return where to show incompatible values: at a swept one, else a given one."""
        swept = [steps for steps in candidates if _in_file(draft, steps) != steps]
        given = [steps for steps in candidates if steps in self.document.values]
        steps = [*swept, *given, candidates[0]][0]
        return self.document.position_of_value(_in_file(draft, steps))


def is_training(key: str) -> bool:
    """Return whether a dotted key affects a student's training, which a checkpoint replaces."""
    return key.startswith(("student.", "images.")) and key != "student.checkpoint"


def _imported(settings: Settings, swept: Collection[str]) -> Iterator[Conflict]:
    """Yield what is swept of a training that a checkpoint replaces.

    Where each point has a checkpoint of its own, the settings say how that was trained.
    """
    path = settings.student.checkpoint
    is_replaced = path is not None and "student.checkpoint" not in swept
    for key in filter(is_training, swept if is_replaced else []):
        yield Conflict(
            ("student.checkpoint",),
            f"must be left out where {key} is swept, since nothing is trained with it, but got "
            f"{show(path)}; drop one",
        )


def _steps(conflict: Conflict) -> list[Steps]:
    return [tuple(key.split(".")) for key in conflict.keys]


def _in_file(draft: Draft, steps: Steps) -> Steps:
    """Return where a value of a point is in the file: where a sweep lists it, else in the base."""
    for n in range(len(steps), 0, -1):
        if (given := draft.given.get(dotted(steps[:n]))) is not None:
            return (*given.steps, *steps[n:])
    return steps
