"""Processes that train a student together, started by `torchrun` or as one worker of a sweep.

The first process (rank 0) does all else: with `torchrun` it plans and handles store, MLflow and
screen, as a worker it makes stages. The others wait for it to name a student, train that with it,
and end with it. They exchange JSON and numbers, never pickled objects.
"""

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]  # it is documented
from torch.nn.parallel import DistributedDataParallel

from spar_bench.errors import SparBenchError
from spar_bench.processes import is_launched, local_rank, meeting, n_processes, rank
from spar_bench.stage import Damaged

log = logging.getLogger(__name__)

_FOR_EVER = timedelta(days=365)
"""How long the others wait for the first, which may evaluate for days between students."""

T = TypeVar("T")
Trained = Callable[[Tensor, tuple[int, int]], Tensor]
"""Maps where an image enters a student, and its patch grid, to features `(1, C, h, w)`."""


class LeftOff(Exception):
    """The common work of all processes is given up; the first process says why."""


class OutOfStep(SparBenchError):
    """A process failed while others wait for it: all of them must end."""


@dataclass
class Ranks:
    """The processes that train together.

    `group` carries their messages, and is None in a process that trains alone;
    gradients use torch's own group.
    """

    rank: int = 0
    n: int = 1
    group: dist.ProcessGroup | None = None
    is_out_of_step: bool = False

    def say(self, value: Mapping[str, object] | None) -> None:
        """Tell the others what to train next; None tells them to end."""
        if self.group is not None:
            self._broadcast(json.dumps(value).encode())

    def hear(self) -> Any:
        """Wait for a message from the first process."""
        return json.loads(self._broadcast(None))

    def own(self, n_items: int) -> range:
        """Return which of a step's items belong to this process."""
        return range(self.rank, n_items, self.n)

    def agree(self, work: Callable[[], T]) -> T:
        """Do work that may fail in one process; if it does, no process continues.

        Raises:
            LeftOff: it failed; raised in all processes but the first.
            Exception: the failure; raised in the first process.
        """
        if self.group is None:
            return work()
        error: Exception | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        if self.sum(torch.tensor(0 if error is None else 1)).item() == 0:
            return result
        reports = [json.loads(text) for text in self._gather(json.dumps(_report(error)).encode())]
        if self.rank != 0:
            raise LeftOff
        raise error or _error(next(report for report in reports if report))

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, which lie on the CPU."""
        if self.group is not None:
            with self._reaching():
                dist.all_reduce(numbers, group=self.group)
        return numbers

    def joined(self, visual: nn.Module, trained: Trained) -> Trained:
        """Return what `trained` does with an image tower, but with gradients averaged over all."""
        if self.group is None:
            return trained
        # Parts that a read-out does not use have no gradient, such as MaskCLIP's last query and
        # key.
        return DistributedDataParallel(
            _Features(visual, trained), find_unused_parameters=True, broadcast_buffers=False
        )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say of a process that can no longer be reached that all must end.

        Raises:
            OutOfStep: it has ended.
        """
        try:
            yield
        except RuntimeError as error:
            self.is_out_of_step = True
            raise OutOfStep(
                "processes: must all be alive while they train together, but one has ended "
                f"({str(error).splitlines()[0]}); run the same command again: it resumes where it "
                "was last saved"
            ) from error

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Run a block in which all processes wait for each other.

        Raises:
            OutOfStep: it failed here, and there are other processes: they might wait for this one's
                gradients until torch gives up after half an hour, so the whole sweep must end now.
        """
        try:
            yield
        except Exception as error:
            if self.n == 1:
                raise
            self.is_out_of_step = True
            log.error("process %d failed within a step\n%s", self.rank, traceback.format_exc())
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise OutOfStep(
                f"processes: must keep in step, but process {self.rank} failed within one "
                f"({reason}); run the same command again: it resumes where it was last saved"
            ) from error

    def _broadcast(self, content: bytes | None) -> bytes:
        size = torch.tensor(len(content or b""))
        dist.broadcast(size, 0, group=self.group)
        data = _bytes(content) if content else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.group)
        return data.numpy().tobytes()

    def _gather(self, content: bytes) -> list[bytes]:
        """Return the message of each process, in rank order."""
        sizes = [torch.tensor(0) for _ in range(self.n)]
        dist.all_gather(sizes, torch.tensor(len(content)), group=self.group)
        longest = max(int(size) for size in sizes)
        padded = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(padded, _bytes(content.ljust(longest)), group=self.group)
        return [text.numpy().tobytes() for text in padded]


class _Features(nn.Module):
    """What trains of a backbone as a module with the parameters of the image tower."""

    def __init__(self, visual: nn.Module, trained: Trained) -> None:
        super().__init__()
        self.visual = visual
        self._trained = trained

    def forward(self, values: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return features `(B, C, h, w)`."""
        return self._trained(values, grid_hw)


def only_here(encode: Trained) -> AbstractContextManager[None]:
    """Return the context in which gradients accumulate in this process without averaging."""
    if isinstance(encode, DistributedDataParallel):
        context: AbstractContextManager[None] = encode.no_sync()
        return context
    return nullcontext()


def own_device(option: str) -> str:
    """Return this process's device among several processes: with CUDA, each has its own.

    Raises:
        SparBenchError: one device is named for all of them.
    """
    if n_processes() == 1 or option == "cpu":
        return option
    if option not in ("auto", "cuda"):
        raise SparBenchError(
            f"--device: must be auto, cpu or cuda where {n_processes()} processes train together, "
            f"but got {option!r}; leave it out: each takes the CUDA device with its number"
        )
    return f"cuda:{local_rank()}" if torch.cuda.is_available() else option


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes started with this one, and release the others at the end."""
    if not is_launched():
        yield Ranks()
        return
    if device.index is not None:  # else the current one
        torch.cuda.set_device(device)
    path = meeting()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=None if path is None else FileStore(str(path), n_processes()),
        rank=rank(),
        world_size=n_processes(),
    )
    group = dist.new_group(backend="gloo", timeout=_FOR_EVER)
    assert isinstance(group, dist.ProcessGroup), "every process is in it"
    ranks = Ranks(rank(), n_processes(), group)
    try:
        yield ranks
    finally:
        if not ranks.is_out_of_step:  # else this would wait for the others' waiting
            if ranks.rank == 0:
                with suppress(RuntimeError):  # they have already ended
                    ranks.say(None)
            dist.destroy_process_group()


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _report(error: Exception | None) -> dict[str, Any]:
    """Return the message about an error to the first process."""
    if error is None:
        return {}
    if isinstance(error, Damaged):
        damaged = {"detail": error.detail, "fingerprint": error.fingerprint}
        return {"damaged": damaged, "path": str(error.path)}
    if isinstance(error, SparBenchError):
        return {"mistake": str(error)}
    return {"bug": "".join(traceback.format_exception(error))}


def _error(report: dict[str, Any]) -> Exception:
    """Return the error that another process reported."""
    if "damaged" in report:
        return Damaged(Path(report["path"]), **report["damaged"])
    if "mistake" in report:
        return SparBenchError(report["mistake"])
    return RuntimeError(f"in another process:\n{report['bug']}")
