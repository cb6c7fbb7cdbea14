"""The mistakes a user can make, each shown as one line and exit code 2.

    SparBenchError
    ├── SpecError        a spec cannot be run (several lines: one per mistake)
    ├── UnknownName      no plug-in, trial or experiment of that name
    ├── NotReady         weights, data or results that the work needs are missing
    ├── DataError        an image, a mask or a class list cannot be read
    │   └── DataFileError    a data file, which describes a data set or a backbone, is invalid
    ├── StoreError       the store has another version, or cannot be written to
    │   ├── Damaged      a file of a finished stage is missing or altered (`stage.py`)
    │   ├── Unreadable   a file of the store is there, but cannot be read now
    │   └── LeaseLost    another process has taken over the work
    ├── FilesChanged     weights or images have changed since the work was planned
    ├── MixedProtocols   rows of one table would have different evaluation protocols
    └── Diverged         a student's loss is no longer finite

Anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spar_bench.suggest import suggest


class SparBenchError(Exception):
    """A mistake in the request, not in the program."""


class SpecError(SparBenchError):
    """A spec that cannot be run; `problems` holds one line per mistake."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@contextmanager
def naming(spec: Path) -> Iterator[None]:
    """Put a spec's path in front of each line of a mistake in it; for work on several specs.

    Damage to the store is no spec's mistake and stays as it is.
    """
    try:
        yield
    except StoreError:
        raise
    except SparBenchError as error:
        own = f"{spec}:"
        lines = [
            line if line.startswith(own) else f"{own} {line}" for line in str(error).splitlines()
        ]
        if isinstance(error, SpecError):
            raise SpecError(*lines) from error
        raise type(error)("\n".join(lines)) from error


class UnknownName(SparBenchError):
    """A name that does not exist."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownName":
        """Build the message: what is unknown, and the nearest known name or else the first few."""
        return cls(f"{kind}: must be a known name, but got {name!r}; {suggest(name, known)}")


class NotReady(SparBenchError):
    """Weights, data or results that the work needs are missing."""


class DataError(SparBenchError):
    """An image, a mask or a class list cannot be read."""


class DataFileError(DataError):
    """A data file, which describes a data set or a backbone, is invalid."""


class StoreError(SparBenchError):
    """The store cannot be used as it is."""


class Unreadable(StoreError):
    """A file of the store is there, but cannot be read now."""


class LeaseLost(StoreError):
    """Another process has taken over the work, since this one was paused for too long."""


class FilesChanged(SparBenchError):
    """Weights or images are not those that the work was planned for."""


class MixedProtocols(SparBenchError):
    """Rows of one table would have different evaluation protocols."""


class Diverged(SparBenchError):
    """A student's loss is no longer finite."""


class Interrupted(Exception):
    """The user asked to stop; raised only where nothing is half-written."""


class Pruned(Exception):
    """A search stopped a student whose loss lags behind the others'."""
