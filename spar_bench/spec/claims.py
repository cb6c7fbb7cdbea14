"""Claims in a spec: what is said of its rows, and the rows that are meant.

Rows are selected by `method`, by `dataset` and `short_side_px` if there are several, and by any
dotted key of a spec; keys of a claim's `where` hold for all its rows.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from spar_bench.claims import Form
from spar_bench.validation import Part, Raw, Steps, mistake
from spar_bench.values import Number, PositiveNumber, Text

Quantity = Literal["miou", "gflops", "latency_p50_ms", "peak_mib", "params_m", "train_gflops"]
ROW_KEYS = ("method", "dataset", "short_side_px")
"""The keys of a row that are none of a spec."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Side = Annotated[
    list[Raw], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Raw | list[Raw])
]
"""The rows of a side, or several whose values are added."""


class ShareSpec(Part):
    """How far on the way from `start` to `end` something is."""

    of: Raw
    start: Raw
    end: Raw
    at_least: Number = Field(description="1 is at the end.")


class ClaimSpec(Part):
    """A claim of the paper as a check on rows; give higher and lower, or rising, or share."""

    claim: Text
    paper: Text = Field("", description="What the paper reports of it.")
    tried: Text = Field("", description="What was tried where it does not hold.")
    quantity: Quantity = "miou"
    where: Raw = Field({}, description="What all rows have in common.")
    higher: Side | None = None
    lower: Side | None = Field(None, description="What is taken from higher, or divides it.")
    by: Number | None = Field(
        None,
        description="The least difference or step, in the quantity's unit, mIoU as a fraction; "
        "default: 0.",
    )
    times: PositiveNumber | None = Field(None, description="The least ratio of higher to lower.")
    rising: Annotated[list[Raw], Field(min_length=2)] | None = Field(
        None, description="Rows of which each is at least as high as the one before."
    )
    share: ShareSpec | None = None

    @model_validator(mode="after")
    def _is_of_one_form(self) -> Self:
        pair = self.higher is not None or self.lower is not None
        if pair + (self.rising is not None) + (self.share is not None) != 1:
            text = "must have one of higher with lower, rising, share, but got"
            given = [name for name in ("higher", "rising", "share") if getattr(self, name)]
            raise mistake(f"{text} {' and '.join(given) or 'none'}; keep one", *given[:1])
        if pair and (self.higher is None or self.lower is None):
            alone, other = ("higher", "lower") if self.higher else ("lower", "higher")
            raise mistake(f"must come with {other}, but got it alone; add the other", alone)
        if self.times is not None and (not pair or self.by is not None):
            raise mistake(
                "must be given with higher and lower alone; drop it, or the rest", "times"
            )
        if self.by is not None and self.share is not None:
            raise mistake("must be left out where share is given; use share.at_least", "by")
        return self

    @property
    def form(self) -> Form:
        """How its sides are compared."""
        if self.share is not None:
            return "share"
        if self.rising is not None:
            return "rising"
        return "difference" if self.times is None else "ratio"

    @property
    def expected(self) -> float:
        """The least that is to be measured."""
        if self.share is not None:
            return self.share.at_least
        return self.times if self.times is not None else self.by or 0.0

    def sides(self) -> list[list[tuple[Raw, Steps]]]:
        """Return the rows of each side as written, and where in the claim they are."""
        if self.share is not None:
            share = self.share
            named = (("of", share.of), ("start", share.start), ("end", share.end))
            return [[(value, ("share", name))] for name, value in named]
        if self.rising is not None:
            return [[(value, ("rising", index))] for index, value in enumerate(self.rising)]
        return [
            [(value, (name, index)) for index, value in enumerate(side or [])]
            for name, side in (("higher", self.higher), ("lower", self.lower))
        ]
