"""Describe in one line what pydantic found wrong, and where in the file it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spar_bench.near import did_you_mean, nearest, way_out
from spar_bench.spec.document import Document, Place, Problem, Steps, dotted
from spar_bench.spec.keys import PARTS, meant_by
from spar_bench.spec.schema import DatasetSpec, Spec
from spar_bench.spec.swept import BlockSpec, ChoicesSpec, RangeSpec, SearchSpec

SHOWN_CHARACTERS = 60

_MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "": (Spec,),
    **{key: (model,) for key, model in PARTS.items()},
    "evaluate.datasets": (DatasetSpec,),
    "sweep": (BlockSpec,),
    "sweep.search": (SearchSpec,),
    "sweep.search.space": (RangeSpec, ChoicesSpec),
}
"""The keys allowed at each place of a file, without indices and the keys of a search's space."""

_RULES: dict[str, tuple[str, str]] = {
    "int_type": ("must be a whole number", "write digits only"),
    "int_parsing": ("must be a whole number", "write digits only"),
    "int_from_float": ("must be a whole number", "round it"),
    "float_type": ("must be a number", "write it as 1.0e-3"),
    "float_parsing": ("must be a number", "write it as 1.0e-3"),
    "finite_number": ("must be finite", "write a number"),
    "bool_type": ("must be true or false", "write one of them"),
    "bool_parsing": ("must be true or false", "write one of them"),
    "string_type": ("must be text", "put it in quotes"),
    "list_type": ("must be a list", "put it in [ ]"),
    "tuple_type": ("must be a list", "put it in [ ]"),
    "dict_type": ("must be a mapping of keys to values", "write key: value"),
    "model_type": ("must be a mapping of keys to values", "write key: value, or leave it out"),
    "missing": ("must be given", "add it"),
    "greater_than": ("must be above {gt:g}", "raise it"),
    "greater_than_equal": ("must be at least {ge:g}", "raise it"),
    "less_than_equal": ("must be at most {le:g}", "lower it"),
    "too_short": ("must hold at least {min_length}", "add one, or leave the key out"),
    "too_long": ("must hold at most {max_length}", "drop the rest"),
}


@dataclass(frozen=True)
class Locator:
    """Locates the values of a point in the file: where a sweep lists them, else in the base.

    `origins` maps a dotted key to where the sweep gives its value; empty for the file as a whole.
    """

    document: Document
    origins: Mapping[str, Steps]

    def in_file(self, steps: Steps) -> Steps:
        """Return where in the file a point's value comes from."""
        for n in range(len(steps), 0, -1):
            if (key := dotted(steps[:n])) in self.origins:
                return (*self.origins[key], *steps[n:])
        return steps

    def value(self, steps: Steps) -> Place:
        """Return the position of a value."""
        return self.document.place_of_value(self.in_file(steps))

    def key(self, steps: Steps) -> Place:
        """Return the position of a key."""
        return self.document.place_of_key(self.in_file(steps))

    def at_odds(self, candidates: Sequence[Steps]) -> Place:
        """Return where to show incompatible values: at a swept one, else a given one."""
        swept = [steps for steps in candidates if self.in_file(steps) != steps]
        given = [steps for steps in candidates if steps in self.document.values]
        return self.value([*swept, *given, candidates[0]][0])


def explain(error: ValidationError, locator: Locator, *, alone: bool = False) -> Iterator[Problem]:
    """Yield one problem per error; `alone`: only errors of single values."""
    for details in error.errors(include_url=False):
        if not (alone and details.get("ctx", {}).get("keys")):
            yield _problem(details, locator)


def _problem(details: ErrorDetails, locator: Locator) -> Problem:
    # The schema names a union's members in angle brackets; no file has such a key.
    steps: Steps = tuple(step for step in details["loc"] if not str(step).startswith("<"))
    context = details.get("ctx", {})
    if details["type"] == "extra_forbidden":
        text = f"must be a known key, but got {steps[-1]!r}; {_meant(steps)}"
        return Problem(locator.key(steps), dotted(steps), text)
    if steps and steps[-1] == "[key]":
        return Problem(locator.key(steps[:-1]), dotted(steps[:-1]), _text(details))
    if details["type"] == "spar_bench":
        candidates = [(*steps, key) for key in context["keys"]] or [steps]
        return Problem(locator.at_odds(candidates), dotted(candidates[0]), context["text"])
    return Problem(locator.value(steps), dotted(steps), _text(details))


def _meant(steps: Steps) -> str:
    """Suggest a key for an unknown one: a sibling, else one of another part."""
    place = ".".join(step for step in steps[:-1] if isinstance(step, str))
    if place.startswith("sweep.search.space."):
        place = "sweep.search.space"
    known = [name for model in _MODELS[place] for name in model.model_fields]
    last = str(steps[-1])
    elsewhere = meant_by(last) if nearest(last, known) is None else []
    return did_you_mean(*elsewhere) if elsewhere else way_out(last, known)


def _text(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    shown = show(None if kind == "missing" else details["input"])
    if kind == "literal_error":
        names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
        text = f"must be one of {', '.join(names)}, but got {shown}"
        near = nearest(str(details["input"]), names)
        return f"{text}; {'use one of them' if near is None else did_you_mean(near)}"
    if kind not in _RULES:
        return f"{details['msg'][0].lower()}{details['msg'][1:]}, but got {shown}; correct it"
    rule, way_out = _RULES[kind]
    return f"{rule.format(**context)}, but got {shown}; {way_out}"


def show(value: Any) -> str:
    """Write a value for a mistake's line: short, in one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
