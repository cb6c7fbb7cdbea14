"""What makes the stages of plans: a device here, or a backend of workers; and what came of it."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from spar_bench import machines, registry
from spar_bench.backends.base import Backend, Setup
from spar_bench.engine.events import Emit, Event
from spar_bench.engine.scheduler import Outcome, Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import Interrupted, Pruned, SparBenchError
from spar_bench.plan.trials import Plan
from spar_bench.processes import is_launched, n_processes
from spar_bench.session.options import Options
from spar_bench.session.watcher import Watcher
from spar_bench.stages.latency import Machine
from spar_bench.store import Store

if TYPE_CHECKING:
    import torch

    from spar_bench.run.context import Context
    from spar_bench.run.work import Worker

log = logging.getLogger(__name__)

Prune = Callable[[int, float], str]
"""Takes a student's epoch and mean loss; returns why it is given up, or ""."""


class AnotherMachine(Exception):
    """The plan was made for the machine that is remembered, but torch finds another."""


class Making:
    """Makes stages while it is `open`; torch is imported when something must be made.

    `outcomes` has how each stage of this run ended, `failures` kind and reason of those that
    failed, `n_made` the number of those made now. `prune` may give up a student after an epoch.
    """

    def __init__(
        self, store: Store, options: Options, watcher: Watcher, stop: threading.Event
    ) -> None:
        self.store = store
        self.failures: dict[str, tuple[str, str]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.n_made = 0
        self.prune: Prune = keep
        self._reasons: dict[str, str] = {}
        self._options, self._watcher, self._stop = options, watcher, stop
        self._is_default = (options.device, options.devices, options.threads) == ("auto", (), None)
        self._device = None if self._is_default else _prepared_device(options)
        self._backend: Backend | None = None

    @cached_property
    def machine(self) -> Machine:
        """The machine on which timings are made: as torch says, or as it said by default before.

        What is remembered is looked at again as soon as torch is needed.
        """
        asks = "torch" in sys.modules or is_launched() or not self._is_default
        return (None if asks else machines.remembered()) or self._context.machine

    @cached_property
    def _context(self) -> "Context":
        """What stages are made with here."""
        from spar_bench.run.context import Context, resolve_workers

        device = self._device or _prepared_device(self._options)
        context = Context(
            self.store,
            device,
            prune=self._raise_pruned,
            stop=self._stop,
            workers=resolve_workers(self._options.workers, device),
        )
        if self._is_default:
            machines.remember(context.machine)
        if self.__dict__.get("machine", context.machine) != context.machine:
            raise AnotherMachine
        return context

    @contextmanager
    def open(self) -> Iterator[None]:
        """Use the store, join the processes of `torchrun`, and have workers until the end."""
        in_use = self.store.in_use(on_wait=_say_store_waits, poll=self.check)
        with self._joined(), in_use, closing(self._open_backend()) as self._backend:
            yield

    def check(self) -> None:
        """Stop here if the user asked to, or if the work is another process's now.

        Raises:
            Interrupted: the user asked to stop.
            LeaseLost: another process has taken over.
        """
        if self._stop.is_set():
            raise Interrupted
        self.store.leases.require_unbroken()

    def scheduler(self, plan: Plan, wanted: set[str]) -> Scheduler:
        """Return what makes stages of a plan, of which those wanted are asked for sometime."""
        assert self._backend is not None, "it is open"
        retries = Retries(retry=self._options.retry, keep_pruned=plan.keep_pruned)
        self._backend.use(WorkPlan(plan.stages, retries))
        return Scheduler(
            plan,
            self.store,
            self._backend,
            wanted,
            notify=self._note(plan),
            retries=retries,
            check=self.check,
            fail_fast=self._options.fail_fast,
            outcomes=self.outcomes,
            reasons=self._reasons,
        )

    def _joined(self) -> AbstractContextManager[None]:
        return self._with_others() if is_launched() else nullcontext()

    @contextmanager
    def _with_others(self) -> Iterator[None]:
        """Join the processes that `torchrun` started."""
        from spar_bench.run.distributed import joined

        with joined(self._context.device) as self._context.ranks:
            yield

    def _worker(self, plan: WorkPlan) -> "Worker":
        """Return what makes stages in this process."""
        from spar_bench.run.work import Worker

        return Worker(plan, self._context)

    def _open_backend(self) -> Backend:
        """Return what makes stages: this process, or a worker process a device or job."""
        options = self._options
        devices = options.devices or (options.device,) * options.jobs
        by_number = "in_process" if len(devices) == 1 else "subprocesses"
        name = options.backend or ("ray" if options.on else by_number)
        self._require_one_way(name, devices)
        threads = options.threads
        if threads is None and options.jobs > 1 and not options.on:
            threads = max(1, self.machine.threads // options.jobs)
        setup = Setup(
            store=self.store,
            devices=devices,
            threads=threads,
            workers=options.workers,
            make=lambda plan, batch, emit: self._worker(plan).make(batch, emit),
            help=lambda plan, batch, emit: self._worker(plan).help(batch, emit),
            check=self.check,
            prune=lambda epoch, loss: self.prune(epoch, loss),
            on=options.on,
            processes=options.processes,
        )
        backend: Backend = registry.load("backends", name)(setup)
        return backend

    def _require_one_way(self, backend: str, devices: Sequence[str]) -> None:
        """Refuse options that do not go together.

        Raises:
            SparBenchError: which, and why.
        """
        options = self._options
        if n_processes() > 1 and backend != "in_process":
            raise SparBenchError(
                "--devices, --jobs, --on: must be left out under torchrun, whose processes train "
                "all students together, but are given; drop them, or torchrun"
            )
        if options.on and (options.devices or options.device != "auto"):
            raise SparBenchError(
                "--device, --devices: must be left out with --on, since Ray says which device a "
                "worker has, but are given; drop them"
            )
        if options.on not in (None, "ray") and not self.store.is_shared_by_folder:
            raise SparBenchError(
                f"--on: must be ray, this machine alone, with {self.store.place}, since nodes of a "
                "cluster share a folder; give one by --store, or a sweep to each machine"
            )
        if not options.on and options.processes > len(devices):
            raise SparBenchError(
                f"--processes: must be at most the number of --devices or --jobs, {len(devices)}, "
                f"but got {options.processes}; give more of these, or --on"
            )
        is_shared = not options.on and len(set(devices)) < len(devices)
        if options.processes > 1 and is_shared and self._context.device.type == "cuda":
            raise SparBenchError(
                "--processes: must have a device each, but share one; name several by --devices"
            )

    def _raise_pruned(self, epoch: int, loss: float) -> None:
        reason = self.prune(epoch, loss)
        if reason:
            raise Pruned(reason)

    def _note(self, plan: Plan) -> Emit:
        def note(event: Event) -> None:
            stage = plan.stages[event.fingerprint]
            self.n_made += event.kind == "made"
            if event.kind == "failed":
                self.failures[stage.fingerprint] = stage.kind, event.text
            self._watcher.note(event, stage)

        return note


def keep(epoch: int, loss: float) -> str:
    """Give up no student."""
    return ""


def _prepared_device(options: Options) -> "torch.device":
    """Return the device of what no worker makes: the first of those named, which must all be there.

    Raises:
        NotReady: one is not.
    """
    from spar_bench.run.context import prepare_device
    from spar_bench.run.distributed import own_device

    named = options.devices or (own_device(options.device),)
    first, *_ = [prepare_device(name, options.threads) for name in named]
    return first


def _say_store_waits(_: str) -> None:
    log.info("another process starts on this store or cleans it up; waiting for it")
