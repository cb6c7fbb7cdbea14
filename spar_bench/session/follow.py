"""Train the students that another process names: for all but the first of several together."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from spar_bench.opening import open_store
from spar_bench.processes import meeting
from spar_bench.run.context import Context, ignore, prepare_device, resolve_workers
from spar_bench.run.distributed import joined, own_device
from spar_bench.run.printing import printing_to
from spar_bench.run.student import join_students


def follow(
    store: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    on_joined: Callable[[], None] = ignore,
) -> None:
    """Train what the first process names until it is done; write and print nothing.

    Raises:
        NotReady: the device is not available.
    """
    at = prepare_device(own_device(device) if meeting() is None else device, threads)
    with joined(at) as ranks:
        on_joined()
        context = Context(
            open_store(store, make=False), at, workers=resolve_workers(workers, at), ranks=ranks
        )
        while (message := ranks.hear()) is not None:
            printing = nullcontext if meeting() is None else printing_to
            with printing(context.store.failures.log(message["stages"][0]["fingerprint"])):
                join_students(message, context)
