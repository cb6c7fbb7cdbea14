"""Ray: one worker a GPU, or a share of the CPUs, of this machine or of a cluster's.

Each slot is a Ray actor that keeps a worker process, the same as `subprocesses` starts. Messages
and events go through its methods as short strings: what is made lies in the store, which all nodes
see under one path, and never in Ray's object store. An actor dies with its owner, this process, and
its worker with it. Nothing is retried by Ray: what died is tried again here, and resumes from the
store.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from spar_bench.backends._link import Link
from spar_bench.backends._pool import Pool
from spar_bench.backends._ray_cluster import Cluster
from spar_bench.backends.base import Setup
from spar_bench.engine.events import Emit, Event
from spar_bench.stages.base import Stage

VERSION = 1


class Backend(Pool):
    """Makes batches in workers that Ray places; connects when the first is to be made."""

    WAITS_FOR = "Ray has been asked for a worker, but others may hold its GPUs or CPUs,"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._cluster: Cluster | None = None

    def n_slots(self) -> int:
        """Return how many workers the cluster has resources for now, at least 1."""
        return self.cluster.n_slots()

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Give a batch to a worker; one that takes the machine has this node to itself, in Ray too.

        Workers of this sweep are ended first, since those that idle hold what Ray must reserve.
        """
        if batch[0].alone and self._cluster is not None:
            super().close()
            tell = partial(Event, kind="waiting", fingerprint=batch[0].fingerprint)
            with self._cluster.whole_node(self.setup.check, lambda text: emit(tell(text=text))):
                super().submit(batch, emit)
        else:
            super().submit(batch, emit)

    def launch(
        self, slots: Sequence[int], command: list[str], places: Sequence[Mapping[str, str]]
    ) -> Link:
        """Ask Ray for a worker."""
        return self.cluster.place(command, places)

    @property
    def cluster(self) -> Cluster:
        """The cluster, connected to when it is first asked for."""
        if self._cluster is None:
            self._cluster = Cluster(self.setup)
        return self._cluster

    def close(self) -> None:
        """End all workers, and leave the cluster; a local one ends."""
        try:
            super().close()
        finally:
            if self._cluster is not None:
                self._cluster.leave()
                self._cluster = None
