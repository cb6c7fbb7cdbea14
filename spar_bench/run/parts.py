"""The images of a stage in parts, which any number of processes take from each other's hands.

A part is a run of consecutive images, the same whoever makes the stage. Whoever takes it holds a
lease of its own, and writes its files into

    <store>/scratch/<fingerprint>/parts-<hash>/<part>.<owner>/   until it is done; after a kill, the
                                                                 next owner adopts it
    <store>/scratch/<fingerprint>/parts-<hash>/<part>/           then, by a rename that one wins

The process that holds the stage's lease gathers them in the end; those that help do parts until
none is free. The hash is that of all stages that are made together, the fingerprint the first's.
"""

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from spar_bench.errors import LeaseLost
from spar_bench.files import publish, read_json, replace_text, writing
from spar_bench.leases import POLL_S
from spar_bench.run.context import Context
from spar_bench.scratch import parts_folder
from spar_bench.stage import digest
from spar_bench.stages.base import MOST_PARTS, Stage

LEAST_IMAGES = 4
"""Images of a part, unless the stage has fewer."""
_TOOK_FILE = "took.json"


@dataclass(eq=False)
class Part:
    """A part that this process has taken, the files of which it writes into `folder`."""

    index: int
    images: range
    folder: Path
    lease: ExitStack = field(repr=False)


class Parts:
    """The parts of stages that are made together, as one process takes them.

    The owner of the stages needs all of them, whoever does them; a helper takes those that are free
    while there is an owner. Close it, so that others may take what is not done.
    """

    def __init__(
        self, stages: Sequence[Stage], n_images: int, context: Context, *, helps: bool = False
    ) -> None:
        self._first, self._context, self._helps = stages[0], context, helps
        self._name = digest([stage.fingerprint for stage in stages])[:16]
        self.folder = parts_folder(context.store.root, self._first.fingerprint, self._name)
        n_each = max(-(-n_images // MOST_PARTS), LEAST_IMAGES)
        self._images = [
            range(start, min(start + n_each, n_images)) for start in range(0, n_images, n_each)
        ]
        self._done, self._own, self._taken = set[int](), set[int](), dict[int, Part]()
        if not helps:
            with writing(context.store.root):
                self.folder.mkdir(parents=True, exist_ok=True)
        self._since = time.monotonic(), context.flops

    def take(self) -> Part | None:
        """Take the first part that is neither done nor taken, or return None if there is none.

        Raises:
            StoreError: the store is not writable.
        """
        store = self._context.store
        is_owned = not self._helps or (
            store.is_made_here(self._first.fingerprint) and self.folder.is_dir()
        )
        if not is_owned:
            return None  # all is done, or its owner has ended: the next one asks for help again
        for index in range(len(self._images)):
            if not self._is_done(index) and index not in self._taken:
                lease = ExitStack()
                own = lease.enter_context(store.here.hold_free([self._lease(index)]))
                part = None if self._is_done(index) or not own else self._open(index, lease)
                if part is not None:
                    return part
                lease.close()
        return None

    def finish(self, part: Part) -> None:
        """Publish a part of this process, unless another has; note what it took.

        Raises:
            LeaseLost: another process has taken over.
        """
        context, (begun, flops) = self._context, self._since
        self._since = time.monotonic(), context.flops
        took = {
            "seconds": self._since[0] - begun,
            "flops": context.flops - flops,
            "where": context.where,
        }
        try:
            context.store.here.require(self._lease(part.index))
        except LeaseLost:
            shutil.rmtree(part.folder, ignore_errors=True)
            raise
        replace_text(part.folder / _TOOK_FILE, json.dumps(took))
        if not publish(part.folder, self.folder / _named(part.index)):
            shutil.rmtree(part.folder, ignore_errors=True)
        self._done.add(part.index)
        self._own.add(part.index)
        del self._taken[part.index]
        part.lease.close()

    def are_done(self) -> bool:
        """Return whether every part is done, by whomever."""
        return all([self._is_done(index) for index in range(len(self._images))])

    def share(self, n_images: int = 0) -> float:
        """Return how much is done, 0 to 1, with images of parts that this process has taken."""
        done = sum(len(self._images[index]) for index in self._done)
        return (done + n_images) / max(sum(map(len, self._images)), 1)

    def wait(self) -> None:
        """Wait a moment for the parts of others; what is waited is no time of this stage.

        Raises:
            Interrupted, LeaseLost: as `Context.check`.
        """
        begun = time.monotonic()
        self._context.check()
        time.sleep(POLL_S)
        self._context.elsewhere_s -= time.monotonic() - begun
        self._since = time.monotonic(), self._context.flops

    def gathered(self) -> list[tuple[Path, range]]:
        """Return folder and images of each part in order, once the work of others is counted."""
        context = self._context
        folders = [self.folder / _named(index) for index in range(len(self._images))]
        for index, folder in enumerate(folders):
            if index not in self._own:
                took = read_json(folder / _TOOK_FILE)
                context.flops += took["flops"]
                context.elsewhere_s += took["seconds"]
                context.helped_by.add(took["where"])
        return list(zip(folders, self._images, strict=True))

    def discard(self) -> None:
        """Delete all parts, done or not."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give back what this process has taken and not finished; its files stay."""
        while self._taken:
            self._taken.popitem()[1].lease.close()

    def _is_done(self, index: int) -> bool:
        if index not in self._done and (self.folder / _named(index)).is_dir():
            self._done.add(index)
        return index in self._done

    def _lease(self, index: int) -> str:
        return f"{self._first.fingerprint}.{self._name}.{_named(index)}"

    def _open(self, index: int, lease: ExitStack) -> Part | None:
        """Return a part with the folder of its files so far: this process's, or the newest left.

        None if the owner has published all meanwhile.
        """
        own = self.folder / f"{_named(index)}.{self._context.store.leases.owner}"
        with writing(self.folder), suppress(FileNotFoundError):
            left = [one for one in self.folder.glob(f"{_named(index)}.*") if one != own]
            if left and not own.exists():
                os.rename(max(left, key=lambda one: one.stat().st_mtime_ns), own)
            own.mkdir(exist_ok=True)
            part = self._taken[index] = Part(index, self._images[index], own, lease)
            return part
        return None


class Line:
    """The images of free parts, one after another, for readers that work ahead.

    Iterate over their positions, taken part by part, and call `next` for each once it is read.
    `lacking` says which positions of a part are still to do. It `is_empty` if no part is free.
    """

    def __init__(self, parts: Parts, lacking: Callable[[Part], Iterable[int]]) -> None:
        self._parts, self._lacking = parts, lacking
        self._coming = deque[tuple[Part, int, bool]]()
        self._part = parts.take()
        self.is_empty = self._part is None

    def __iter__(self) -> Iterator[int]:
        while (part := self._part) is not None:
            positions = list(self._lacking(part))
            for place, position in enumerate(positions):
                self._coming.append((part, position, place == len(positions) - 1))
                yield position
            if not positions:
                self._parts.finish(part)
            self._part = self._parts.take()

    def next(self) -> tuple[Part, int, bool]:
        """Return the part of the next image, its position, and whether it is the part's last."""
        return self._coming.popleft()


def _named(index: int) -> str:
    return f"{index:03d}"
