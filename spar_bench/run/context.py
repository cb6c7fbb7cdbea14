"""What every stage is made with: device, store, backbones and refiners that are built once."""

import os
import platform
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spar_bench import plugin_code, registry
from spar_bench.backbones.base import Backbone
from spar_bench.components.backbone import identity
from spar_bench.components.refiner import refiner_identity, refiner_weights
from spar_bench.errors import Interrupted, NotReady, SparBenchError
from spar_bench.libraries import RECORDED, installed_version
from spar_bench.run.distributed import Ranks
from spar_bench.run.images import Pictures
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Damaged, Finished, digest, read_manifest
from spar_bench.stages.base import Stage
from spar_bench.stages.latency import Machine
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store, is_store
from spar_bench.values import Precision

THREADS_A_CORE = 4
"""More threads only wait for each other; torch crashes if the system refuses more threads."""

MOST_WORKERS, CORES_A_WORKER = 4, 4
"""A few workers suffice to render images faster than a GPU reads them."""


def ignore(*_: Any) -> None:
    """Ignore a report."""


@dataclass
class Context:
    """Where stages are made, and how they report progress.

    `report` takes a stage and the share of it that is done; `prune` takes a student's epoch and its
    mean loss, and may raise Pruned; `stop` is set when the user asks to stop. `workers` is the
    number of processes that render images in advance; `ranks` are those that train a student
    together. `flops` counts the work done since `begin`, from which later plans estimate time, also
    that of processes that took parts of it; `elsewhere_s` are theirs and those of earlier attempts,
    less those for which they were waited for, and `helped_by` says on which other devices they ran.
    `window_batch` is how many windows were encoded at once, None if none were.
    """

    store: Store
    device: torch.device
    report: Callable[[Stage, float], None] = ignore
    prune: Callable[[int, float], None] = ignore
    stop: threading.Event = field(default_factory=threading.Event)
    workers: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    flops: float = 0.0
    elsewhere_s: float = 0.0
    helped_by: set[str] = field(default_factory=set)
    window_batch: int | None = None
    _backbones: dict[tuple[str, str | None], Backbone] = field(default_factory=dict)
    _refiners: dict[str, object] = field(default_factory=dict)
    _pictures: dict[str, Pictures] = field(default_factory=dict)

    def begin(self) -> None:
        """Count work from here."""
        self.flops, self.elsewhere_s, self.window_batch = 0.0, 0.0, None
        self.helped_by.clear()

    def check(self) -> None:
        """Stop here if the user asked to, or if the work is another process's now.

        Raises:
            Interrupted: the user asked to stop.
            LeaseLost: another process has taken over what is being made here.
        """
        if self.stop.is_set():
            raise Interrupted
        self.store.leases.require_unbroken()

    def finished(self, stage: Stage, role: str) -> Finished:
        """Return the finished stage that fills a role of `stage`.

        Raises:
            Damaged: it is no longer in the store, since something else has deleted it.
        """
        fingerprint = stage.inputs[role]
        found = self.store.find_by_fingerprint(fingerprint)
        if found is None:
            folder = self.store.root / "stages" / role / fingerprint
            raise Damaged(folder, "was deleted", fingerprint=fingerprint)
        return found

    @property
    def machine(self) -> Machine:
        """What timings depend on besides what is timed."""
        return Machine(
            host=platform.node(),
            device=device_name(self.device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )

    @property
    def where(self) -> str:
        """The device and the host, for a reader."""
        return f"{device_name(self.device)} ({platform.node()})"

    def pictures(self, fingerprint: str, build: Callable[[], Pictures]) -> Pictures:
        """Return the rendered images of an `images` stage; those of the latest stage are cached."""
        if fingerprint not in self._pictures:
            self._pictures = {fingerprint: build()}
        return self._pictures[fingerprint]

    def backbone(self, spec: BackboneSpec, student: Finished | None = None) -> Backbone:
        """Return a backbone on the device, as pretrained or with a student's weights.

        The latest of each is kept, so that weights are read once, not once a stage; read again,
        though, where their files have changed between two plans of a search.
        """
        decisive = [spec.model_dump(mode="json"), identity(spec).model_dump(mode="json")]
        key = (digest(decisive), student.fingerprint if student else None)
        if key not in self._backbones:
            is_student = student is not None
            for old in [k for k in self._backbones if (k[1] is not None) == is_student]:
                del self._backbones[old]
            self._backbones[key] = build_backbone(spec, self.device, student)
        return self._backbones[key]

    def refiner(self, spec: PluginSpec) -> object:
        """Return a refiner on the device; the latest is kept, as of backbones."""
        decisive = [spec.model_dump(mode="json"), refiner_identity(spec).model_dump(mode="json")]
        key = digest(decisive)
        if key not in self._refiners:
            self._refiners.clear()
            self._refiners[key] = build_refiner(spec, self.device)
        return self._refiners[key]

    def made(self, **more: Any) -> dict[str, Any]:
        """Return how stages were made here since `begin`, for a manifest."""
        helpers = sorted(self.helped_by - {self.where})
        return {
            "device": device_name(self.device),
            "host": platform.node(),
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "processes": self.ranks.n,
            "versions": {name: installed_version(name) for name in RECORDED},
            "commit": _commit(),
            **({"helped_by": helpers} if helpers else {}),
            **more,
        }


def build_backbone(
    spec: BackboneSpec, device: torch.device, student: Finished | None = None
) -> Backbone:
    """Build a backbone on a device, as pretrained or with a student's weights.

    Raises:
        Damaged: the student's weights were altered.
    """
    backbone: Backbone = registry.load("backbones", spec.name)(spec)
    if student is not None:
        trained = load_file(student.path(TRAINED_FILE))
        backbone.load_visual({**backbone.visual.state_dict(), **trained})
    backbone.to(device)
    return backbone


def build_refiner(spec: PluginSpec, device: torch.device) -> object:
    """Build a refiner on a device, with its weights and settings.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are missing.
    """
    make = registry.configured("refiners", spec.name, spec.settings)
    refiner: object = make(device, refiner_weights(spec))
    return refiner


def open_student(folder: Path, device: torch.device) -> tuple[Backbone, BackboneSpec]:
    """Build a finished student from its folder, and say of which backbone it is.

    Raises:
        NotReady: the pretrained weights are missing, or not the ones it was trained from.
        Damaged: the student's weights were altered.
        StoreError: the code of a plug-in has changed since, under the same VERSION, or it is in a
            store of another format.
    """
    above = folder.absolute().parents
    if len(above) > 2 and is_store(above[2]):
        Store(above[2], make=False)
    student = Finished(folder, read_manifest(folder))
    plugin_code.require_unedited([student.plugins])
    spec = BackboneSpec.model_validate(student.summary["backbone"])
    if identity(spec).model_dump(mode="json") != student.manifest["settings"]["backbone"]:
        raise NotReady(
            f"{folder}: needs the backbone it was trained from, but {spec.path or spec.name} "
            "has changed since; put the old weights back"
        )
    return build_backbone(spec, device, student), spec


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; one from the CPU goes to a GPU while that goes on computing."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which forward passes on a device run in `precision`."""
    dtype = getattr(torch, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")


def prepare_device(option: str, threads: int | None) -> torch.device:
    """Set torch up for reproducible numbers, and return the device that an option stands for.

    The option is `auto`, `cpu`, `cuda` or `cuda:1`. TF32 is switched off for the whole process, so
    that rows marked float32 are computed in float32, and the number of CPU threads is set.

    Raises:
        NotReady: CUDA is asked for but not available.
        SparBenchError: this machine cannot run that many threads.
    """
    if threads is not None:
        set_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if option == "auto":
        option = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(option)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise NotReady(
            f"device: must be one that torch can use here, but got {option!r}: {reason}; use cpu"
        ) from error
    return device


def resolve_workers(option: int | None, device: torch.device) -> int:
    """Return how many processes render images in advance: by default none on the CPU."""
    if option is not None:
        return option
    return 0 if device.type == "cpu" else min(MOST_WORKERS, (os.cpu_count() or 1) // CORES_A_WORKER)


def set_threads(threads: int) -> None:
    """Have torch compute with this many CPU threads.

    Raises:
        SparBenchError: the number is 0, or far above this machine's cores.
    """
    n_cores = os.cpu_count() or 1
    if not 1 <= threads <= THREADS_A_CORE * n_cores:
        raise SparBenchError(
            f"--threads: must be 1 to {THREADS_A_CORE * n_cores}, {THREADS_A_CORE} for each core "
            f"of this machine, but got {threads}; {n_cores} is the most that helps"
        )
    torch.set_num_threads(threads)


def device_name(device: torch.device) -> str:
    """Return what the device is: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu {_processor()} x{torch.get_num_threads()}"


def device_number(device: torch.device) -> str:
    """Return the device by its number on this machine, where Ray or Slurm shows some GPUs alone."""
    if device.type != "cuda":
        return str(device)
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = device.index or 0
    return f"cuda:{shown[index] if index < len(shown) else index}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


@cache
def _commit() -> str | None:
    """Return the commit that the package runs from, with "+" if its files differ, or None.

    The repository around a user's environment does not count: this file is not tracked there.
    """
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
