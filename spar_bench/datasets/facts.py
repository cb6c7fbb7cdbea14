"""What a data set's data file states, whichever plug-in reads it: a closed, frozen model."""

from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from spar_bench.errors import DataError

Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[list[str], Field(min_length=1)]


class Thresholds(NamedTuple):
    """What a class must reach to be seen; 0 asks nothing of it."""

    background_threshold: float
    """A pixel whose best probability is lower becomes class 0."""
    area_threshold: float
    """A class that holds no more than this share of the foreground pixels is taken out."""


class Stated(BaseModel):
    """Base of what a data file states: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReadOutThresholds(Stated):
    """The thresholds of one read-out; what is left out is the data set's."""

    background_threshold: Share | None = None
    area_threshold: Share | None = None


class Facts(Stated):
    """What belongs to a data set: where it is from, its classes, and how it is evaluated.

    A data set without a data file has the defaults. What a spec says goes before.
    """

    license: str = Field("", description="In a word, for a table.")
    source: str = Field("", description="Where to get it.")
    tree: str = Field("", description="The expected files, as text.")
    classes: list[Names] | None = Field(
        None, description="Class names by label, synonyms after each; none: the plug-in's own."
    )
    short_side_px: int = Field(256, gt=0, description="Images are resized to it, ratio kept,")
    long_side_px: int | None = Field(
        None, gt=0, description="or to this long side where that makes them smaller."
    )
    logit_scale: float | None = Field(
        None, gt=0, description="Factor on cosines before the softmax; none: the spec's."
    )
    background_threshold: Share = 0.0
    area_threshold: Share = 0.0
    by_read_out: dict[str, ReadOutThresholds] = Field(
        {}, description="Thresholds of backbones with this read-out (`maskclip`), where they differ"
    )
    files: dict[str, Any] = Field({}, description="For the plug-in, which knows its keys.")

    def thresholds(self, read_out: str) -> Thresholds:
        """Return the thresholds for a backbone of this read-out."""
        own = self.by_read_out.get(read_out, ReadOutThresholds())
        background, area = own.background_threshold, own.area_threshold
        return Thresholds(
            self.background_threshold if background is None else background,
            self.area_threshold if area is None else area,
        )


Model = TypeVar("Model", bound=Stated)


def read(model: type[Model], stated: dict[str, Any], place: str) -> Model:
    """Return what is stated as a model.

    Raises:
        DataError: a key is not known or a value makes no sense; one line for each, after `place`.
    """
    try:
        return model.model_validate(stated)
    except ValidationError as error:
        lines = [_line(details, model) for details in error.errors(include_url=False)]
        raise DataError("\n".join(f"{place}: {line}" for line in lines)) from error


def _line(details: ErrorDetails, model: type[Stated]) -> str:
    steps = [str(step) for step in details["loc"]]
    if details["type"] == "extra_forbidden":
        known = _known_keys(model, steps[:-1])
        near = get_close_matches(steps[-1], known, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        return f"{'.'.join(steps)}: must be a known key, but got {steps[-1]!r}; {way_out}"
    reason = details["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    got = "nothing" if details["type"] == "missing" else repr(details["input"])[:60]
    return f"{'.'.join(steps)}: {reason}, but got {got}; correct it"


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
