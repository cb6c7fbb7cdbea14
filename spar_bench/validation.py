"""Refuse values in one line each: the base of all models, and what pydantic's errors say."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from spar_bench.errors import DataFileError
from spar_bench.suggest import did_you_mean, nearest, suggest

Steps = tuple[str | int, ...]
"""The path to a value: the keys and indices that lead to it."""
Raw = dict[str, Any]
"""A mapping as a file has it, before it is validated: any value under any key."""

SHOWN_CHARACTERS = 60
MAX_MISTAKES = 100
"""As many as a user reads at once; a suggestion for each of 50,000 would take a minute."""
MISTAKE = "spar_bench"
"""The type of our own validators' errors."""
TAG = "\0"
"""Begins the name of a union's member, which pydantic puts among the steps; no key has it."""

_RULES: dict[str, tuple[str, str]] = {
    "int_type": ("must be a whole number", "write digits only"),
    "int_parsing": ("must be a whole number", "write digits only"),
    "int_parsing_size": ("must be a whole number of a few digits", "lower it"),
    "int_from_float": ("must be a whole number", "round it"),
    "float_type": ("must be a number", "write it as 1.0e-3"),
    "float_parsing": ("must be a number", "write it as 1.0e-3"),
    "finite_number": ("must be finite", "write a number"),
    "bool_type": ("must be true or false", "write one of them"),
    "bool_parsing": ("must be true or false", "write one of them"),
    "string_type": ("must be text", "put it in quotes"),
    "string_too_long": ("must have at most {max_length:,} characters", "shorten it"),
    "string_too_short": ("must have at least {min_length} characters", "fill it, or drop it"),
    "list_type": ("must be a list", "put it in [ ]"),
    "tuple_type": ("must be a list", "put it in [ ]"),
    "dict_type": ("must be a mapping of keys to values", "write key: value"),
    "model_type": ("must be a mapping of keys to values", "write key: value, or leave it out"),
    "missing": ("must be given", "add it"),
    "greater_than": ("must be above {gt:,.12g}", "raise it"),
    "greater_than_equal": ("must be at least {ge:,.12g}", "raise it"),
    "less_than_equal": ("must be at most {le:,.12g}", "lower it"),
    "too_short": ("must hold at least {min_length}", "add one, or leave the key out"),
    "too_long": ("must hold at most {max_length:,}", "drop the rest"),
}


class Part(BaseModel):
    """Base of every part of a spec or data file: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mistake(NamedTuple):
    """What is wrong with a value, or with a key itself; `keys` are those of conflicting values."""

    steps: Steps
    text: str
    is_about_key: bool = False
    keys: tuple[Steps, ...] = ()


def mistake(text: str, *keys: str) -> PydanticCustomError:
    """Return a validator's error; `text` is all that is shown after the key.

    `keys` are the conflicting keys of the model, the one to name first: the mistake is shown at the
    first of them that is swept, else at the first in the file.
    """
    return PydanticCustomError(MISTAKE, "{text}", {"text": text, "keys": list(keys)})


def mistakes(
    error: ValidationError,
    model: type[Part] | None = None,
    suggest_key: Callable[[str, list[str]], str] = suggest,
) -> Iterator[Mistake]:
    """Yield what pydantic found; `model` says which keys there are in place of an unknown one."""
    for details in error.errors(include_url=False)[:MAX_MISTAKES]:
        steps = tuple(step for step in details["loc"] if not str(step).startswith(TAG))
        context = details.get("ctx", {})
        if details["type"] == "extra_forbidden":
            known = suggest_key(str(steps[-1]), known_keys(model, steps[:-1]) if model else [])
            text = f"must be a known key, but got {show(steps[-1])}; {known}"
            yield Mistake(steps, text, is_about_key=True)
        elif steps and steps[-1] == "[key]":
            yield Mistake(steps[:-1], _text(details), is_about_key=True)
        elif details["type"] == MISTAKE:
            keys = tuple((*steps, key) for key in context["keys"])
            yield Mistake(keys[0] if keys else steps, context["text"], keys=keys)
        else:
            yield Mistake(steps, _text(details))


def data_file_error(
    error: ValidationError, place: str, model: type[Part] | None = None
) -> DataFileError:
    """Return what a user is shown of a data file's mistakes: one line each, after its place."""
    lines = [f"{place}: {dotted(wrong.steps)}: {wrong.text}" for wrong in mistakes(error, model)]
    return DataFileError("\n".join(lines))


def known_keys(model: type[Part], steps: Iterable[str | int]) -> list[str]:
    """Return the keys of the part of a model that steps lead to."""
    models = [model]
    for step in steps:
        fields = [part.model_fields[step] for part in models if step in part.model_fields]
        models = [part for field in fields for part in _parts(field.annotation)] or models
    return [name for part in models for name in part.model_fields]


def _parts(annotation: Any) -> list[type[Part]]:
    """Return the models that an annotation holds, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


def _text(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == MISTAKE:
        return str(context["text"])
    shown = show(None if kind == "missing" else details["input"])
    if kind == "literal_error":
        names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
        text = f"must be one of {', '.join(names)}, but got {shown}"
        closest = nearest(str(details["input"]), names)
        return f"{text}; {'use one of them' if closest is None else did_you_mean(closest)}"
    if kind not in _RULES:
        return f"{details['msg'][0].lower()}{details['msg'][1:]}, but got {shown}; correct it"
    rule, change = _RULES[kind]
    return f"{rule.format(**context)}, but got {shown}; {change}"


def dotted(steps: Steps) -> str:
    """Write steps as in `evaluate.datasets[0].name`, in one line for any keys."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            shown = step if step.isprintable() and len(step) <= SHOWN_CHARACTERS else show(step)
            text += "." * bool(text) + shown
    return text


def show(value: Any) -> str:
    """Write a value for a mistake's line: short, in one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    # Cut before it is written, since it may be huge.
    text = repr(value[:SHOWN_CHARACTERS] if isinstance(value, str | list) else value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def is_text(value: str) -> bool:
    """Whether a text can be written to a file and be part of a path: no NUL, no half characters."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # a surrogate, as Python reads a byte that is not UTF-8
        return False
