"""Ray: one worker a GPU, or a share of the CPUs, of this machine or of a cluster's.

Each slot is a Ray actor that keeps a worker process, the same as `subprocesses` starts. Messages
and events go through its methods as short strings: what is made lies in the store, which all nodes
see under one path, and never in Ray's object store. An actor dies with its owner, this process, and
its worker with it. Nothing is retried by Ray: what died is tried again here, and resumes from the
store.
"""

import contextlib
import math
import os
import platform
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spar_bench.backends._pool import POLL_S, Pool
from spar_bench.backends.base import Setup
from spar_bench.backends.subprocesses import Process
from spar_bench.engine.events import Emit, Event
from spar_bench.errors import NotReady
from spar_bench.stages.base import Stage

VERSION = 1
LOCAL = "ray"
"""The address of a cluster of this machine alone, which ends with this process."""
LOCALHOST = "127.0.0.1"
OBJECT_STORE_BYTES = 100 << 20
"""Of the local cluster: nothing but short strings is in it. Less than 75 MiB, Ray refuses."""
CONNECT_S = 5.0
HEAR_S = 10.0
"""Longest time that a call for a worker's lines waits for one."""
GROUPS = {"tell": 1, "hear": 1}
"""Calls of an actor that do not wait for each other; those of one group keep their order."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a late call after the end starts a cluster anew
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` uploads the working folder, store and all
}
"""What Ray must find in its environment before it is imported, unless the user has set it."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""With this, too, a local cluster listens on 127.0.0.1 alone. Else it replaces that address by the
network's, on all systems but the two in the name."""
PASSED_ON = ("HF_", "SPAR_BENCH_", "PYTHON", "XDG_")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Beginnings of the variables that workers on other nodes need, since Ray passes none on; and what
is in the names of those that it must not show to all of a cluster."""


class Backend(Pool):
    """Makes batches in workers that Ray places; connects when the first is to be made."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._cluster: _Cluster | None = None

    def n_slots(self) -> int:
        """Return how many workers the cluster has resources for now, at least 1."""
        return self.cluster.n_slots()

    WAITS_FOR = "Ray has been asked for a worker, but others may hold its GPUs or CPUs,"

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

    def launch(self, index: int, command: list[str]) -> "Actor":
        """Ask Ray for a worker."""
        return Actor(self.cluster.place(command))

    @property
    def cluster(self) -> "_Cluster":
        """The cluster, connected to when it is first asked for."""
        if self._cluster is None:
            self._cluster = _Cluster(self.setup)
        return self._cluster

    def close(self) -> None:
        """End all workers, and leave the cluster; a local one ends."""
        try:
            super().close()
        finally:
            if self._cluster is not None:
                self._cluster.leave()
                self._cluster = None


class _Cluster:
    """Ray as this process is connected to it, and what a worker takes of it."""

    def __init__(self, setup: Setup) -> None:
        is_local = setup.on in (None, LOCAL)
        for name, value in (SETTINGS | (LOOPBACK if is_local else {})).items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ModuleNotFoundError as error:
            raise NotReady(
                "--on: must have Ray, but it is not installed; pip install 'ray>=2.60'"
            ) from error
        self._ray: Any = ray
        if setup.on is not None and not is_local:
            _require_answer(setup.on)
        self._folder = tempfile.mkdtemp("", "spar-", "/tmp") if is_local else None  # a short path
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**self._connection(setup.on), log_to_driver=False, logging_level="ERROR")
            self._has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            self._cpus = setup.threads or self._share_of_cpus(len(setup.devices))
            self._require_use(setup)
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            self.leave()
            raise NotReady(
                f"--on {setup.on}: must be a Ray cluster that answers, but does not: "
                f"{_reason(error)}; if it asks for a token, set RAY_AUTH_MODE=token, or use --on "
                "ray for this machine"
            ) from error
        except NotReady:
            self.leave()
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # which ray.init has replaced

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node that may have workers: with GPUs, if any has."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [one for one in nodes if one.get("GPU" if self._has_gpus else "CPU", 0) > 0]

    def _share_of_cpus(self, n_jobs: int) -> int:
        """Return the CPUs of a worker: a node's by its GPUs, or by the jobs that share it.

        Of several nodes, that with the smallest share decides.
        """
        shares = [one.get("CPU", 0) // one.get("GPU", n_jobs) for one in self._nodes()]
        return max(int(min(shares, default=1)), 1)

    def _require_use(self, setup: Setup) -> None:
        """Refuse a cluster that cannot have a worker, or is not on the loopback though local.

        Raises:
            NotReady: why.
        """
        if self._folder and self._ray.util.get_node_ip_address() != LOCALHOST:
            raise NotReady(
                f"--on {LOCAL}: must listen on {LOCALHOST} alone, but Ray was imported before it "
                "could be told; import it after the sweep"
            )
        if self._n_fitting() == 0:
            most = int(max((one.get("CPU", 0) for one in self._nodes()), default=0))
            raise NotReady(
                f"--threads: must be what a node has, at most {most} CPUs, but got {self._cpus}; "
                "leave it out"
            )
        if self._has_gpus and len(setup.devices) > 1:
            raise NotReady(
                "--jobs: must be left out on a cluster with GPUs, where each has one worker, but "
                f"got {len(setup.devices)}; leave it out"
            )

    def n_slots(self) -> int:
        """Return how many workers there can be now, at least 1; nodes may come and go."""
        return max(self._n_fitting(), 1)

    def _n_fitting(self) -> int:
        """Return how many workers fit into the nodes."""
        return sum(
            int(min(one.get("GPU", 0) if self._has_gpus else math.inf, one["CPU"] // self._cpus))
            for one in self._nodes()
            if one.get("CPU", 0) > 0
        )

    def place(self, command: list[str]) -> Any:
        """Return the actor of a worker, which Ray starts where there is room."""
        device = "cuda" if self._has_gpus else "cpu"
        command = [*command[1:], "--device", device, "--threads", str(self._cpus)]
        actor = self._ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)(
            Slot
        )
        passed = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED_ON) and not any(word in name for word in SECRET)
        }
        return actor.options(
            num_cpus=self._cpus, num_gpus=int(self._has_gpus), runtime_env={"env_vars": passed}
        ).remote(command, os.getcwd(), has_gpu=self._has_gpus)

    @contextmanager
    def whole_node(
        self, check: Callable[[], None], on_wait: Callable[[str], None]
    ) -> Iterator[None]:
        """Hold all GPUs and CPUs of this node, so that Ray starts nothing else on it meanwhile.

        A node that offers nothing to Ray, such as a head kept free, has nothing to hold.
        """
        node_id = self._ray.get_runtime_context().get_node_id()
        node = next(node["Resources"] for node in self._ray.nodes() if node["NodeID"] == node_id)
        if not node.get("CPU") and not node.get("GPU"):
            yield
            return
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        holder = (
            self._ray.remote(max_restarts=0)(Holder)
            .options(
                num_cpus=node.get("CPU", 0),
                num_gpus=node.get("GPU", 0),
                scheduling_strategy=strategy(node_id, soft=False),
            )
            .remote()
        )
        try:
            held, told_at = holder.hold.remote(), time.monotonic() + CONNECT_S
            while not self._ray.wait([held], timeout=POLL_S)[0]:
                check()
                if time.monotonic() > told_at:
                    on_wait("others hold GPUs or CPUs of this node in Ray")
                    told_at = math.inf
            yield
        finally:
            self._ray.kill(holder)

    def leave(self) -> None:
        """Disconnect; what this process has started ends."""
        self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connection(self, address: str | None) -> dict[str, Any]:
        """Return how `ray.init` reaches the user's cluster, or starts one of this machine alone."""
        if self._folder is None:
            return {"address": address}
        return {
            "address": "local",  # else it would join whatever Ray it finds
            "include_dashboard": False,
            "_node_ip_address": LOCALHOST,
            "_temp_dir": self._folder,  # one of all users' belongs to whoever came first
            "object_store_memory": OBJECT_STORE_BYTES,
        }


def _reason(error: BaseException) -> str:
    """Return the last line of an error, which Ray begins with what it did itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _require_answer(address: str) -> None:
    """Look whether anybody listens, which Ray takes two minutes for, and then ends this process.

    Raises:
        NotReady: nobody does, or it is no address.
    """
    where = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        if address != "auto":
            socket.create_connection((where.hostname or "", where.port or 0), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise NotReady(
            f"--on {address}: must be a Ray cluster that answers, as HOST:PORT, but does not: "
            f"{error}; start one with ray start --head, or use --on ray for this machine alone"
        ) from error


class Slot:
    """The actor: keeps a worker process on its node; runs there without torch."""

    def __init__(self, command: list[str], folder: str, *, has_gpu: bool) -> None:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} must be seen by every node, but is not by this one")
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        if not has_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self._process = Process([sys.executable, *command], folder=folder, environment=environment)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._process.lines():
                self._lines.put(line)
        finally:
            self._lines.put(None)

    def tell(self, line: str) -> None:
        """Write a line to the worker's input."""
        self._process.tell(line)

    def hear(self) -> list[str | None]:
        """Return the lines since the last call, at most after HEAR_S; None at the end."""
        found = list[str | None]()
        with contextlib.suppress(queue.Empty):
            found.append(self._lines.get(timeout=HEAR_S))
            while True:
                found.append(self._lines.get_nowait())
        return found

    def hang_up(self) -> None:
        """Close the worker's input, which ends it soon."""
        self._process.close()

    def ending(self) -> str:
        """Wait for the worker's end, and return how it ended."""
        self._process.has_ended(HEAR_S)
        return f"{self._process.ending} on {platform.node()}"


class Holder:
    """The actor that holds a node while something is timed there."""

    def hold(self) -> None:
        """Return once it is held."""


class Actor:
    """A worker behind a Ray actor; whatever ends the actor ends the worker, within seconds."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self._ended = threading.Event()
        self._how = "its worker ended"

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        self._call("tell", line)

    def _call(self, name: str, *given: str) -> None:
        """Call a method in the order of such calls, without waiting for it."""
        getattr(self._slot, name).options(concurrency_group="tell").remote(*given)

    def lines(self) -> Iterator[str]:
        """Yield the lines of its output, until it ends."""
        import ray

        try:
            while True:
                for line in ray.get(self._slot.hear.options(concurrency_group="hear").remote()):
                    if line is None:
                        self._how = ray.get(self._slot.ending.remote())
                        return
                    yield line
        except ray.exceptions.RayError as error:
            self._how = f"Ray lost its worker ({_reason(error)})"
        finally:
            self._ended.set()

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end."""
        return self._ended.wait(timeout_s)

    def kill(self) -> None:
        """End it; the worker itself, whose input ends with the actor, within seconds."""
        import ray

        ray.kill(self._slot)
        self._ended.wait(CONNECT_S)

    def close(self) -> None:
        """Close its input, and give its resources back."""
        self._call("hang_up")
        if self._ended.is_set():
            self.kill()

    @property
    def ending(self) -> str:
        """How it ended."""
        return self._how
