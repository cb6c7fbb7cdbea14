"""Train the students of a sweep that another process runs; for all but `torchrun`'s first."""

from collections.abc import Callable
from pathlib import Path

from spar_bench.run.context import Context, ignore, prepare_device, resolve_workers
from spar_bench.run.distributed import joined, own_device
from spar_bench.run.student import join_students
from spar_bench.session.sweep import Options
from spar_bench.store import Store


def follow(options: Options, *, on_joined: Callable[[], None] = ignore) -> None:
    """Train what the first process names until it is done; write and print nothing.

    Raises:
        NotReady: the device is not available.
    """
    device = prepare_device(own_device(options.device), options.threads)
    with joined(device) as ranks:
        on_joined()
        context = Context(
            Store(Path(options.store), make=False),
            device,
            workers=resolve_workers(options.workers, device),
            ranks=ranks,
        )
        while (message := ranks.hear()) is not None:
            join_students(message, context)
