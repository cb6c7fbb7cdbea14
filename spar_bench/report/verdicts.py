"""The words for how a number compares with what is expected of it, and the rules behind them."""

from dataclasses import dataclass
from typing import Literal

Word = Literal["reproduced", "within_noise", "off", "not_run", "not_comparable"]
WORDS: tuple[Word, ...] = ("reproduced", "within_noise", "off", "not_run", "not_comparable")
MARGIN = 0.1
ROUNDING = 1e-9
"""Points of mIoU by which a number may differ from a published one beyond how it was read; and what
arithmetic may add: 43.6 - 43.5 is a little above 0.1, 0.436 - 0.331 a little below 0.105."""


@dataclass(frozen=True)
class Verdict:
    """A word, and the reason where there is more to say."""

    word: Word
    reason: str = ""


def of_claim(value: float, expected: float, high: float | None) -> Verdict:
    """Judge a claim that a value is at least what is expected; `high` ends its 95 % interval.

    `reproduced` if it is; `within_noise` if it is not, but the interval contains what is expected.
    """
    if value >= expected - ROUNDING:
        return Verdict("reproduced")
    if high is not None and high >= expected - ROUNDING:
        return Verdict("within_noise")
    return Verdict("off")


def of_published(
    value: float, published: float, tolerance: float, interval: tuple[float, float] | None
) -> Verdict:
    """Judge a value against a published one.

    `reproduced` if they differ by no more than the tolerance; `within_noise` if they do, but the
    95 % interval of the value contains the published one.
    """
    if abs(value - published) <= tolerance + ROUNDING:
        return Verdict("reproduced")
    if interval is not None and interval[0] <= published <= interval[1]:
        return Verdict("within_noise")
    return Verdict("off")
