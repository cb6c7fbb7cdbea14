"""What a data set's data file states, for every plug-in: a closed, frozen model."""

from typing import Annotated, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from spar_bench import registry
from spar_bench.suggest import suggest
from spar_bench.validation import Part, Raw, data_file_error, mistake, show
from spar_bench.values import Classes, PositiveNumber, Probability, Side


def _read_out(name: str) -> str:
    known = registry.names("read_outs")
    if name not in known:
        raise mistake(f"must be a known name, but got {show(name)}; {suggest(name, known)}")
    return name


ReadOut = Annotated[str, AfterValidator(_read_out)]


class Thresholds(NamedTuple):
    """A threshold for a class to count; 0 disables it."""

    background_threshold: float
    """A pixel whose best probability is lower becomes class 0."""
    area_threshold: float
    """A class that holds no more than this share of the foreground pixels is dropped."""


class ReadOutThresholds(Part):
    """The thresholds of one read-out; those left out are the data set's."""

    background_threshold: Probability | None = None
    area_threshold: Probability | None = None


class Facts(Part):
    """The facts of a data set: where it is from, its classes, and how it is evaluated.

    A data set without a data file has the defaults. The spec takes precedence.
    """

    license: str = Field("", description="In a word, for a table.")
    source: str = Field("", description="Where to get it.")
    classes: Classes | None = Field(
        None, description="Class names by label, synonyms after each; none: the plug-in's own."
    )
    image_hw: tuple[Side, Side] | None = Field(
        None, description="Typical size, height first: plans assume it where images are missing."
    )
    short_side_px: Side = Field(256, description="Images are resized to it, ratio kept,")
    long_side_px: Side | None = Field(
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
    files: Raw = Field({}, description="For the plug-in, which knows its keys.")

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
        own = self.by_read_out.get(read_out, ReadOutThresholds())
        background, area = own.background_threshold, own.area_threshold
        return Thresholds(
            self.background_threshold if background is None else background,
            self.area_threshold if area is None else area,
        )


Model = TypeVar("Model", bound=Part)


def read(model: type[Model], stated: Raw, place: str) -> Model:
    """Return the stated values as a model.

    Raises:
        DataFileError: a key is unknown or a value invalid; one line each, after `place`.
    """
    try:
        return model.model_validate(stated)
    except ValidationError as error:
        raise data_file_error(error, place, model) from error
