"""The kinds of value in a spec: each validated alone, each mistake reported in one line."""

import os
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from spar_bench.near import way_out
from spar_bench.spec.trainable import PATTERN


class Part(BaseModel):
    """Base of every part of a spec: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def mistake(text: str, *keys: str) -> PydanticCustomError:
    """Return a validator's error; `text` is all that is shown after the key.

    `keys` are the conflicting keys of the model, the one to name first: the mistake is shown at the
    first of them that is swept, else at the first in the file.
    """
    return PydanticCustomError("spar_bench", "{text}", {"text": text, "keys": list(keys)})


def not_bool(value: Any) -> Any:
    """Refuse `true` as a number: pydantic would read it as 1."""
    if isinstance(value, bool):
        raise mistake(f"must be a number, but got {str(value).lower()}; write a number")
    return value


def plugin(family: str) -> AfterValidator:
    """Accept one of `context[family]`, any name without a context, or a data file's path."""

    def check(name: str, info: ValidationInfo) -> str:
        known = (info.context or {}).get(family, [name])
        if name not in known and not name.endswith((".yaml", ".yml")):
            is_folder = "/" in name and family in ("backbones", "datasets")
            near = f"write {{path: {name}}}" if is_folder else way_out(name, known)
            raise mistake(f"must be one of the {family}, but got {name!r}; {near}")
        return name

    return AfterValidator(check)


def _trainable(value: str) -> str:
    if not re.fullmatch(PATTERN, value):
        known = ["all", "position_embedding", "patch_embedding", "last_2_blocks",
                 "attention_of_last_2_blocks", "mlp_of_last_2_blocks"]  # fmt: skip
        raise mistake(f"must be a trainable part, but got {value!r}; {way_out(value, known)}")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that holds a value twice."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise mistake(f"must hold each value once, but got {value!r} again; keep one")
    return values


def _templates(value: Any) -> Any:
    if isinstance(value, str) and value != "openclip_80":
        raise mistake(f"must be 'openclip_80' or a list of prompts, but got {value!r}; "
                      "put the prompts in [ ]")  # fmt: skip
    if isinstance(value, list):
        for template in value:
            if isinstance(template, str) and template.count("{}") != 1:
                raise mistake(f"must have one {{}} in each prompt, but got {template!r}; "
                              "put {} where the class name goes")  # fmt: skip
    return value


def _upsample(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not is_number and not (isinstance(value, str) and (value == "auto" or value.isdigit())):
        raise mistake(f"must be 'auto' or a whole number above 0, but got {value!r}; "
                      "leave it out for the paper's rule")  # fmt: skip
    return int(value) if isinstance(value, str) and value != "auto" else value


def _resolution(value: Any) -> Any:
    given = int(value) if isinstance(value, str) and value.isdecimal() else value
    is_number = isinstance(given, int) and not isinstance(given, bool) and given > 0
    if not is_number and given != "own":
        raise mistake(f"must be 'own' or a whole number above 0, but got {value!r}; "
                      "write own for the data set's own rule")  # fmt: skip
    return given


def _home(path: str | None) -> str | None:
    if path == "":
        raise mistake("must name a folder, but got an empty text; name it, or leave the key out")
    return None if path is None else os.path.expanduser(path)


def named(shorthand: Any) -> BeforeValidator:
    """Read `patchwork` as `{name: patchwork}`; `shorthand` is the type of either, for editors."""

    def write_out(value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    return BeforeValidator(write_out, json_schema_input_type=shorthand)


def one_of(tags: tuple[str, str], is_first: Callable[[Any], bool]) -> Discriminator:
    """Choose a union's member by hand, so that a mistake is reported once, not once per member."""
    return Discriminator(lambda value: tags[0] if is_first(value) else tags[1])


# Bounds come before `not_bool`: the JSON Schema leaves out those after a validator.
Positive = Annotated[int, Field(gt=0), BeforeValidator(not_bool)]
Seed = Annotated[int, Field(ge=0), BeforeValidator(not_bool)]
Number = Annotated[float, BeforeValidator(not_bool)]
PositiveNumber = Annotated[float, Field(gt=0), BeforeValidator(not_bool)]
Probability = Annotated[float, Field(ge=0, le=1), BeforeValidator(not_bool)]
ImageHW = tuple[Positive, Positive]
FolderPath = Annotated[str | None, AfterValidator(_home)]
FILLED = (Field(min_length=1), AfterValidator(_distinct))
"""A constraint of lists: not empty, and no value twice."""
Templates = Annotated[
    Annotated[Annotated[list[str], Field(min_length=1)], Tag("<list>")]
    | Annotated[Literal["openclip_80"], Tag("<name>")],
    one_of(("<list>", "<name>"), lambda value: isinstance(value, list)),
    BeforeValidator(_templates),
]
Trainable = Annotated[
    str, AfterValidator(_trainable), Field(json_schema_extra={"pattern": PATTERN})
]
Resolution = Annotated[Literal["own"] | Positive, BeforeValidator(_resolution)]
Upsample = Annotated[Literal["auto"] | Positive, BeforeValidator(_upsample)]
