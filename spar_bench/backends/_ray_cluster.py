"""Ray as a sweep is connected to it: this machine's own, or a cluster; and what a worker takes."""

import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from spar_bench.backends._link import Link, Together
from spar_bench.backends._pool import POLL_S
from spar_bench.backends._ray_actors import GROUPS, Actor, Holder, Slot, reason
from spar_bench.backends.base import Setup
from spar_bench.backends.subprocesses import LOOPBACK
from spar_bench.errors import NotReady
from spar_bench.track.uri import masked

LOCAL = "ray"
"""The address of a cluster of this machine alone, which ends with this process."""
LOCALHOST = "127.0.0.1"
OBJECT_STORE_BYTES = 100 << 20
"""Of the local cluster: nothing but short strings is in it. Less than 75 MiB, Ray refuses."""
CONNECT_S = 5.0
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a late call after the end starts a cluster anew
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` uploads the working folder, store and all
}
"""What Ray must find in its environment before it is imported, unless the user has set it."""
LOCAL_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""With this, too, a local cluster listens on 127.0.0.1 alone. Else it replaces that address by the
network's, on all systems but the two in the name."""
PASSED_ON = ("GLOO_", "HF_", "NCCL_", "SPAR_BENCH_", "PYTHON", "XDG_")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Beginnings of the variables that workers on other nodes need, since Ray passes none on; and what
is in the names of those that it must not show to all of a cluster, as a URI with a password."""


class Cluster:
    """Ray as this process is connected to it, and what a worker takes of it."""

    def __init__(self, setup: Setup) -> None:
        is_local = setup.on in (None, LOCAL)
        for name, value in (SETTINGS | (LOCAL_SETTINGS if is_local else {})).items():
            os.environ.setdefault(name, value)
        if setup.on is not None and not is_local:
            _require_answer(setup.on)
        try:
            import ray
        except ModuleNotFoundError as error:
            raise NotReady(
                "--on: must have Ray, but it is not installed; pip install 'ray>=2.60'"
            ) from error
        self._ray: Any = ray
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
                f"{reason(error)}; if it asks for a token, set RAY_AUTH_MODE=token, or use --on "
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
        if (most := self._n_fitting()) < setup.processes:
            raise NotReady(
                f"--processes: must be at most the workers that the nodes have room for, {most}, "
                f"but got {setup.processes}; give fewer"
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

    def place(self, command: list[str], places: Sequence[Mapping[str, str]]) -> Link:
        """Return a worker, or several processes that train together, which Ray starts as one.

        `places` has variables of the environment of each.
        """
        if not places[1:]:
            return Actor(self._actor(command, places[0]))
        needed = {"CPU": self._cpus, **({"GPU": 1} if self._has_gpus else {})}
        group = self._ray.util.placement_group([needed] * len(places))  # on few nodes, if it fits
        strategies = self._ray.util.scheduling_strategies
        actors = [
            Actor(
                self._actor(
                    command,
                    {**(LOOPBACK if self._folder else {}), **place},
                    scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(group, index),
                )
            )
            for index, place in enumerate(places)
        ]
        return Together(actors, partial(self._ray.util.remove_placement_group, group))

    def _actor(self, command: list[str], place: Mapping[str, str], **options: Any) -> Any:
        """Return the actor of a process, which Ray starts where there is room."""
        device = "cuda" if self._has_gpus else "cpu"
        command = [*command[1:], "--device", device, "--threads", str(self._cpus)]
        actor = self._ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)(
            Slot
        )
        resources = {"num_cpus": self._cpus, "num_gpus": int(self._has_gpus)}
        return actor.options(**resources, **options, runtime_env={"env_vars": passed_on()}).remote(
            command, os.getcwd(), place, has_gpu=self._has_gpus
        )

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


def passed_on() -> dict[str, str]:
    """Return the variables of this process that workers get, wherever they are."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON)
        and not any(word in name for word in SECRET)
        and masked(value) == value
    }


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
