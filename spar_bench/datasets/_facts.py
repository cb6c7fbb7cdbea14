"""What a data set's data file states, for every plug-in: a closed, frozen model."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from spar_bench.errors import DataFileError
from spar_bench.near import way_out
from spar_bench.spec.schema import Positive, PositiveNumber, Probability, ReadOut, mistake


def _distinct(classes: list[list[str]]) -> list[list[str]]:
    counts = Counter(name for names in classes for name in names)
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        raise mistake(f"must have each name once, but got {name!r} {count} times; rename one")
    return classes


Names = Annotated[list[str], Field(min_length=1)]
Classes = Annotated[list[Names], AfterValidator(_distinct)]


class Thresholds(NamedTuple):
    """A threshold for a class to count; 0 disables it."""

    background_threshold: float
    """A pixel whose best probability is lower becomes class 0."""
    area_threshold: float
    """A class that holds no more than this share of the foreground pixels is dropped."""


class Stated(BaseModel):
    """Base of a data file's models: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReadOutThresholds(Stated):
    """The thresholds of one read-out; those left out are the data set's."""

    background_threshold: Probability | None = None
    area_threshold: Probability | None = None


class Facts(Stated):
    """The facts of a data set: where it is from, its classes, and how it is evaluated.

    A data set without a data file has the defaults. The spec takes precedence.
    """

    license: str = Field("", description="In a word, for a table.")
    source: str = Field("", description="Where to get it.")
    classes: Classes | None = Field(
        None, description="Class names by label, synonyms after each; none: the plug-in's own."
    )
    image_hw: tuple[Positive, Positive] | None = Field(
        None, description="Typical size, height first: plans assume it where images are missing."
    )
    short_side_px: Positive = Field(256, description="Images are resized to it, ratio kept,")
    long_side_px: Positive | None = Field(
        None, description="or to this long side where that makes them smaller."
    )
    logit_scale: PositiveNumber | None = Field(
        None, description="Factor on cosines before the softmax; none: the spec's."
    )
    background_threshold: Probability = 0.0
    area_threshold: Probability = 0.0
    by_read_out: dict[ReadOut, ReadOutThresholds] = Field(
        {}, description="Thresholds of backbones with this read-out (`maskclip`), where they differ"
    )
    files: dict[str, Any] = Field({}, description="For the plug-in, which knows its keys.")

    @model_validator(mode="after")
    def _sides_are_in_order(self) -> Self:
        if self.long_side_px is not None and self.long_side_px < self.short_side_px:
            text = (
                f"must not be below short_side_px ({self.short_side_px}), but got "
                f"{self.long_side_px}; raise it, or leave it out"
            )
            raise mistake(text, "long_side_px")
        return self

    @property
    def has_background(self) -> bool:
        """Whether class 0 is the background: pixels below a given threshold belong to it."""
        return any(self.thresholds(one).background_threshold > 0 for one in ["", *self.by_read_out])

    def shown(self, classes: list[list[str]], threshold: float | None = None) -> list[str]:
        """Return each class's name in tables and figures: its first, or `background`.

        The names of a background class may be those of things that occur in it. `threshold` is the
        spec's background threshold, which takes precedence.
        """
        first, *others = [names[0] for names in classes]
        has_background = self.has_background if threshold is None else threshold > 0
        if has_background and "background" not in others:
            first = "background"
        return [first, *others]

    def thresholds(self, read_out: str) -> Thresholds:
        """Return the thresholds for a backbone of this read-out."""
        known: Mapping[Any, ReadOutThresholds] = self.by_read_out
        own = known.get(read_out, ReadOutThresholds())
        background, area = own.background_threshold, own.area_threshold
        return Thresholds(
            self.background_threshold if background is None else background,
            self.area_threshold if area is None else area,
        )


Model = TypeVar("Model", bound=Stated)


def read(model: type[Model], stated: dict[str, Any], place: str) -> Model:
    """Return the stated values as a model.

    Raises:
        DataFileError: a key is unknown or a value invalid; one line each, after `place`.
    """
    try:
        return model.model_validate(stated)
    except ValidationError as error:
        lines = [_line(details, model) for details in error.errors(include_url=False)]
        raise DataFileError("\n".join(f"{place}: {line}" for line in lines)) from error


def _line(details: ErrorDetails, model: type[Stated]) -> str:
    steps = [str(step) for step in details["loc"]]
    if details["type"] == "spar_bench":  # a whole sentence, and for a model the conflicting key
        return f"{'.'.join([*steps, *details['ctx']['keys']])}: {details['msg']}"
    if details["type"] == "extra_forbidden":
        return _unknown(steps, _known_keys(model, steps[:-1]))
    if steps[-1] == "[key]":  # of a map whose keys are a Literal
        return _unknown(steps[:-1], re.findall(r"'(\w+)'", details["ctx"]["expected"]))
    of_a_map = details["type"] in ("model_type", "dict_type")  # else the message would name a class
    reason = "must map keys to values" if of_a_map else details["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    got = "nothing" if details["type"] == "missing" else repr(details["input"])[:60]
    return f"{'.'.join(steps)}: {reason}, but got {got}; correct it"


def _unknown(steps: list[str], known: list[str]) -> str:
    last = steps[-1]
    return f"{'.'.join(steps)}: must be a known key, but got {last!r}; {way_out(last, known)}"


def _known_keys(model: type[Stated], steps: list[str]) -> list[str]:
    """Return the keys of the part that steps lead to."""
    for step in steps:
        if step in model.model_fields:
            model = _part(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _part(annotation: Any) -> type[Stated] | None:
    """Return the model that an annotation holds, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Stated):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _part(inner))), None)
