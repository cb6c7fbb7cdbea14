"""The mistakes a user can make, each shown as one line and exit code 2.

    SparBenchError
    ├── SpecError        a spec file says what cannot be run (several lines: one a mistake)
    ├── UnknownName      no plug-in, trial or experiment of that name
    ├── NotReady         weights, data or results that the work needs are missing
    ├── DataError        an image, a mask or a class list cannot be read
    ├── StoreError       the store is of another version, damaged for good, or cannot be written
    └── Diverged         a student's loss is no longer finite

Anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SparBenchError(Exception):
    """A mistake in the request, not in the program."""


class SpecError(SparBenchError):
    """A spec that cannot be run; `problems` holds one line a mistake."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class UnknownName(SparBenchError):
    """A name that nothing answers to."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownName":
        """Build the message: what is unknown, the nearest known name, and all of them."""
        names = sorted(known)
        near = did_you_mean(name, names)
        return cls(f"unknown {kind} {name!r}.{near} Known: {', '.join(names)}.")


class NotReady(SparBenchError):
    """Weights, data or results that the work needs are not there."""


class DataError(SparBenchError):
    """An image, a mask or a class list cannot be read."""


class StoreError(SparBenchError):
    """The store cannot be used as it is."""


class Diverged(SparBenchError):
    """A student's loss is no longer finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
