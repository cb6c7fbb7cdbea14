"""Finished evaluations of a store: pixel counts and previews, read when asked for."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from spar_bench.accuracy import Counts
from spar_bench.results import Preview
from spar_bench.stage import Damaged, Finished
from spar_bench.stages.evaluate import read_counts, read_features, read_preview
from spar_bench.store import Store

T = TypeVar("T")

_COUNTS_IN_MEMORY = 16


class Evaluations(Protocol):
    """Finished evaluations by fingerprint; None for one that is not there."""

    def counts(self, fingerprint: str) -> Counts | None:
        """Return the pixel counts of every image."""
        ...

    def preview(self, fingerprint: str) -> Preview | None:
        """Return the first images and their predictions."""
        ...

    def features(self, fingerprint: str) -> NDArray[np.floating[Any]] | None:
        """Return the features `(C, h, w)` of the first image."""
        ...


class StoredEvaluations:
    """The evaluations in a store; a file is read, and its checksum verified, when asked for.

    Few counts stay in memory, however many evaluations there are. `missing` has the fingerprints
    of those that were asked for, but are not in the store or are damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts = lru_cache(_COUNTS_IN_MEMORY)(lambda key: self._read(key, read_counts))
        self.missing = set[str]()

    def counts(self, fingerprint: str) -> Counts | None:
        """Return the pixel counts of every image."""
        return self._counts(fingerprint)

    def preview(self, fingerprint: str) -> Preview | None:
        """Return the first images and their predictions."""
        return self._read(fingerprint, read_preview)

    def features(self, fingerprint: str) -> NDArray[np.float16] | None:
        """Return the features `(C, h, w)` of the first image."""
        return self._read(fingerprint, read_features)

    def _read(self, fingerprint: str, read: Callable[[Finished], T]) -> T | None:
        try:
            finished = self._store.opened("evaluate", fingerprint)
            if finished is not None:
                return read(finished)
        except Damaged:
            pass
        self.missing.add(fingerprint)
        return None
