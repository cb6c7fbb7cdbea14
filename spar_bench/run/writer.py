"""Write tensors to files in the background, while the next ones are computed."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors.torch import save
from torch import Tensor

from spar_bench.files import replace_bytes

AHEAD = 4
"""Files waiting to be written: bounds memory if the disk is slower than the device."""


class Writer:
    """Writes one file after another in its own thread; a kill leaves only complete ones.

    Errors there are raised by a later `put`, or at the end of the block, which waits for the last
    file.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: deque[Future[None]] = deque()

    def put(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Queue CPU tensors for writing to a safetensors file; wait if too many are queued.

        Raises:
            StoreError: an earlier file could not be written.
        """
        self._pending.append(self._thread.submit(_write, path, tensors))
        while len(self._pending) > AHEAD:
            self._pending.popleft().result()

    def flush(self) -> None:
        """Wait until everything is written; raises as `put`."""
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.flush()


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    replace_bytes(path, save(tensors))
