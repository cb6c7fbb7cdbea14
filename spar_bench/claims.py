"""A claim as a check on measured rows: which rows it compares, how, and what it expects of them."""

from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["difference", "ratio", "rising", "share"]
"""How sides are compared: the first less the second; the first over the second; the smallest step
from each to the next; the part of the way from the second to the third at which the first is."""


@dataclass(frozen=True)
class Selected:
    """The rows of one method in some groups of an experiment; None stands for all.

    `text` is how a spec writes it.
    """

    text: str
    groups: list[str]
    method: str
    dataset: str | None = None
    short_side_px: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim about a quantity of rows; it holds if what is measured is at least `expected`.

    A side is a sum over what it selects. `paper` says what the paper reports, `line` where the spec
    makes the claim, `tried` what was tried where it does not hold.
    """

    text: str
    paper: str
    quantity: str
    form: Form
    sides: list[list[Selected]]
    expected: float
    line: int
    tried: str = ""

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Claim":
        """Read back what `dataclasses.asdict` gave."""
        sides = [[Selected(**one) for one in side] for side in values["sides"]]
        return cls(**values | {"sides": sides})
