"""The kinds of value in specs and data files, each validated alone and refused in one line."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from spar_bench.suggest import suggest
from spar_bench.validation import TAG, is_text, mistake, show

Method = Literal["pretrained", "teacher", "student"]
METHODS: tuple[Method, ...] = ("pretrained", "teacher", "student")
Average = Literal["logits", "features"]
Precision = Literal["float32", "bfloat16", "float16"]
PositionRule = Literal["scale_factor", "size", "rope"]
OddSides = Literal["floor", "pad", "stretch"]
LinearOptimiser = Literal["adamw", "sgd"]
Optimiser = Literal["adamw", "muon", "sgd"]
Schedule = Literal["constant", "one_cycle", "cosine"]
TRAINABLE = (
    r"^(all|position_embedding|patch_embedding|((attention|mlp)_of_)?last_[1-9][0-9]{0,3}_blocks)$"
)

MAX_SIDE_PX = 65_536
MAX_COUNT = 1_000_000_000
MAX_IMAGES = 100_000_000
MAX_EPOCHS = 10_000
MAX_SECONDS = 86_400
MAX_SEED = 2**32 - 1
MAX_NUMBER = 1e30
"""Beyond these no machine holds an image, no sweep ends, and no float32 is finite."""
MAX_POINTS = MAX_TRIALS = MAX_ROWS = 100_000
"""Points of all blocks of a sweep, its trials, and its rows of results and costs: a plan holds them
all in memory, which takes 3 GB."""
MAX_SEARCHED = 10_000
"""Trials of a search."""
MAX_TEXT = 1_000
MAX_PATH_BYTES, MAX_NAME_BYTES = 4_095, 255
"""What Linux and macOS allow in a path, and in each name of it."""


def not_bool(value: Any) -> Any:
    """Refuse `true` as a number: pydantic would read it as 1."""
    if isinstance(value, bool):
        raise mistake(f"must be a number, but got {show(value)}; write a number")
    return value


@dataclass(frozen=True)
class TrainedPart:
    """What a student trains; `n_blocks` is 0 if it does not count last blocks."""

    part: Literal["all", "position_embedding", "patch_embedding", "blocks", "attention", "mlp"]
    n_blocks: int = 0


def parse_trainable(name: str) -> TrainedPart:
    """Read `student.trainable`.

    Raises:
        ValueError: the name is none that a spec may have.
    """
    match = re.fullmatch(r"(?:(attention|mlp)_of_)?last_([1-9][0-9]*)_blocks", name)
    if match:
        part = match[1] or "blocks"
        return TrainedPart(part, int(match[2]))  # type: ignore[arg-type]  # the pattern's own words
    if re.fullmatch(TRAINABLE, name) is None:
        raise ValueError(f"student.trainable must match {TRAINABLE}, but got {name!r}")
    return TrainedPart(name)  # type: ignore[arg-type]  # the pattern's own words


def _trainable(value: str) -> str:
    if not re.fullmatch(TRAINABLE, value):
        known = ["all", "position_embedding", "patch_embedding", "last_2_blocks",
                 "attention_of_last_2_blocks", "mlp_of_last_2_blocks"]  # fmt: skip
        raise mistake(f"must be a trainable part, but got {show(value)}; {suggest(value, known)}")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that holds a value twice."""
    seen = set[Any]()
    for value in values:
        key = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
        if key in seen:
            raise mistake(f"must hold each value once, but got {show(value)} again; keep one")
        seen.add(key)
    return values


def _distinct_names(classes: list[list[str]]) -> list[list[str]]:
    """Refuse an empty class name, and one that is in the list twice."""
    seen = set[str]()
    for name in (name for names in classes for name in names):
        if not name.strip():
            raise mistake(f"must hold names, but got {show(name)}; fill it, or drop it")
        if name in seen:
            raise mistake(f"must have each name once, but got {show(name)} again; rename one")
        seen.add(name)
    return classes


def _templates(value: Any) -> Any:
    if isinstance(value, str) and value != "openclip_80":
        raise mistake(f"must be 'openclip_80' or a list of prompts, but got {show(value)}; "
                      "put the prompts in [ ]")  # fmt: skip
    if isinstance(value, list):
        for template in value:
            if isinstance(template, str) and template.count("{}") != 1:
                raise mistake(f"must have one {{}} in each prompt, but got {show(template)}; "
                              "put {} where the class name goes")  # fmt: skip
    return value


def side_or(word: str, change: str) -> BeforeValidator:
    """Read a side in pixels, or a word that stands for one."""

    def check(value: Any) -> Any:
        is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
        given = int(value) if is_digits and len(value) < 20 else value
        is_side = isinstance(given, int) and not isinstance(given, bool)
        if given != word and not (is_side and 0 < given <= MAX_SIDE_PX):
            raise mistake(f"must be {word!r} or a whole number from 1 to {MAX_SIDE_PX:,}, but got "
                          f"{show(value)}; {change}")  # fmt: skip
        return given

    return BeforeValidator(check)


def path_text(path: str) -> str:
    """Refuse what no file can be called, and expand `~`."""
    if not path:
        raise mistake("must name a folder, but got an empty text; name it, or leave the key out")
    if not is_text(path):
        raise mistake(f"must be UTF-8 without NUL, but got {show(path)}; rename it")
    expanded = os.path.expanduser(path)
    names = expanded.encode().split(b"/")
    if len(expanded.encode()) > MAX_PATH_BYTES or max(map(len, names)) > MAX_NAME_BYTES:
        raise mistake(f"must have at most {MAX_PATH_BYTES:,} bytes, {MAX_NAME_BYTES} a name, but "
                      f"got {show(path)}; shorten it")  # fmt: skip
    return expanded


def named(shorthand: Any) -> BeforeValidator:
    """Read `patchwork` as `{name: patchwork}`; `shorthand` is the type of either, for editors."""

    def write_out(value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    return BeforeValidator(write_out, json_schema_input_type=shorthand)


def one_of(tags: tuple[str, str], is_first: Callable[[Any], bool]) -> Discriminator:
    """Choose a union's member by hand, so that a mistake is reported once, not once per member."""
    return Discriminator(lambda value: tags[0] if is_first(value) else tags[1])


# Bounds come before `not_bool`: the JSON Schema leaves out those after a validator.
Positive = Annotated[int, Field(gt=0, le=MAX_COUNT), BeforeValidator(not_bool)]
Place = Annotated[int, Field(ge=0, le=MAX_IMAGES), BeforeValidator(not_bool)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES), BeforeValidator(not_bool)]
Epochs = Annotated[int, Field(gt=0, le=MAX_EPOCHS), BeforeValidator(not_bool)]
Searched = Annotated[int, Field(gt=0, le=MAX_SEARCHED), BeforeValidator(not_bool)]
Step = Annotated[float, Field(gt=0, le=MAX_COUNT), BeforeValidator(not_bool)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS), BeforeValidator(not_bool)]
Side = Annotated[int, Field(gt=0, le=MAX_SIDE_PX), BeforeValidator(not_bool)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(not_bool)]
Number = Annotated[float, BeforeValidator(not_bool)]
PositiveNumber = Annotated[float, Field(gt=0, le=MAX_NUMBER), BeforeValidator(not_bool)]
Ratio = Annotated[float, Field(ge=1, le=MAX_SIDE_PX), BeforeValidator(not_bool)]
Weight = Annotated[float, Field(ge=0, le=MAX_NUMBER), BeforeValidator(not_bool)]
Probability = Annotated[float, Field(ge=0, le=1), BeforeValidator(not_bool)]
ImageHW = tuple[Side, Side]
FolderPath = Annotated[str, AfterValidator(path_text)] | None
Text = Annotated[str, Field(max_length=MAX_TEXT)]
FILLED = (Field(min_length=1), AfterValidator(_distinct))
"""A constraint of lists: not empty, and no value twice."""
Names = Annotated[list[Text], Field(min_length=1)]
Classes = Annotated[list[Names], AfterValidator(_distinct_names)]
Templates = Annotated[
    Annotated[Annotated[list[Text], Field(min_length=1)], Tag(f"{TAG}list")]
    | Annotated[Literal["openclip_80"], Tag(f"{TAG}name")],
    one_of((f"{TAG}list", f"{TAG}name"), lambda value: isinstance(value, list)),
    BeforeValidator(_templates),
]
Trainable = Annotated[
    str, AfterValidator(_trainable), Field(json_schema_extra={"pattern": TRAINABLE})
]
Resolution = Annotated[
    Literal["own"] | Side,
    side_or("own", "write own for the data set's own rule"),
]
Upsample = Annotated[
    Literal["auto"] | Side,
    side_or("auto", "leave it out for the paper's rule"),
]
