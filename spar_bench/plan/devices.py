"""How fast a device works: as measured in a store, as probed, or as its maker states it."""

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

from spar_bench.errors import UnknownName
from spar_bench.machines import has_gpu
from spar_bench.stage import Finished
from spar_bench.stages.base import Stage

STARTUP_S, STAGE_S = 20.0, 1.0
"""Seconds that a sweep takes before its first stage (imports, mostly), and each stage besides its
arithmetic; measured on two laptop cores."""
TELLING_GFLOPS = 50.0
"""The time of a smaller stage is mostly loading, so it does not measure speed."""
SUSTAINED = 0.4
"""Share of a device's peak that a transformer is assumed to reach; in training, 0.21 to 0.46 is
reported (PaLM, arXiv:2204.02311, table 3)."""
_OF_A_PRODUCT = 0.45
"""Share of the speed of a large matrix product that stages reach on a CPU: 0.4 to 0.6, measured
with `patchwork` on two cores, what is no arithmetic included."""
_PROBED_N, _PROBES = 768, 5
"""Sides of the products of the probe, and their number: 50 ms on two cores."""


@dataclass(frozen=True)
class Speed:
    """GFLOP/s of a device: by kind of stage where measured, else by precision.

    `float32` is without TF32, and 0 if unknown; `is_here`: this host measured it.
    """

    device: str
    float32: float = 0.0
    half: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    is_here: bool = False

    def of(self, kind: str, precision: str) -> float:
        """Return the speed at which stages of a kind are made."""
        if kind in self.measured:
            return self.measured[kind]
        if self.float32:
            return self.float32 if precision == "float32" else self.half
        if self.is_here and self.device.startswith("cpu "):  # this kind was not made here yet
            return probed_speed().of(kind, precision)
        return min(self.measured.values())

    def seconds(self, batch: Sequence[Stage], stages: Mapping[str, Stage]) -> float:
        """Return how long stages that are made together take; `stages` are those of the plan."""
        first, of_all = batch[0], [stage.estimate(stages) for stage in batch]
        rate = self.of(first.kind, first.precision)
        computed = first.gflops_of_batch(batch, stages) / rate
        return max(computed, sum(one.seconds for one in of_all)) + STAGE_S * len(batch)

    def __str__(self) -> str:
        """Say what is assumed."""
        if self.measured:
            return f"speeds measured on {self.device}"
        half = "" if self.half == self.float32 else f", {self.half:,.0f} in 16 bits"
        return f"assuming {self.device}: {self.float32:,.0f} GFLOP/s{half}"


def _stated(device: str, float32_tflops: float, half_tflops: float) -> Speed:
    return Speed(device, 1e3 * SUSTAINED * float32_tflops, 1e3 * SUSTAINED * half_tflops)


# Peaks in TFLOP/s from NVIDIA's datasheets: float32 of the plain cores (TF32 is off wherever a row
# says float32), and dense FP16 or BF16 with float32 sums of the tensor cores.
DEVICES = {
    "h200": _stated("h200", 67, 989),
    "h100": _stated("h100", 67, 989),  # SXM
    "a100": _stated("a100", 19.5, 312),
    "v100": _stated("v100", 15.7, 125),  # SXM2
    "l40s": _stated("l40s", 91.6, 362),
    "rtx4090": _stated("rtx4090", 82.6, 165),
    "t4": _stated("t4", 8.1, 65),
}


def measured_speeds(finished: Iterable[Finished]) -> dict[str, Speed]:
    """Return the speed of each device that made stages, that of this host's newest stage first.

    A kind's speed is the median over its stages that are large enough.
    """
    rates: dict[str, dict[str, list[float]]] = {}
    newest: dict[str, int] = {}
    for stage in finished:
        made = stage.manifest["made"]
        if made.get("gflops", 0.0) < TELLING_GFLOPS or not made.get("seconds"):
            continue
        of_kind = rates.setdefault(made["device"], {}).setdefault(stage.manifest["kind"], [])
        of_kind.append(made["gflops"] / made["seconds"])
        if made["host"] == platform.node():
            newest[made["device"]] = max(newest.get(made["device"], 0), made["ended_ms"])
    return {
        device: Speed(
            device=device,
            measured={kind: median(values) for kind, values in rates[device].items()},
            is_here=device in newest,
        )
        for device in sorted(rates, key=lambda device: -newest.get(device, 0))
    }


def assumed_speed(finished: Iterable[Finished], name: str | None) -> Speed:
    """Return the speed of a device by name; by default of the one that this host used last.

    Raises:
        UnknownName: no device of that name is known or was measured.
    """
    measured = measured_speeds(finished)
    if name is None:
        here = next((speed for speed in measured.values() if speed.is_here), None)
        return here or probed_speed()
    known = DEVICES | measured
    if name not in known:
        raise UnknownName.among("device", name, known)
    return known[name]


@cache
def probed_speed() -> Speed:
    """Return the speed of this machine where nothing was measured: its GPU's, or a short probe's.

    The probe is a matrix product in float32, without torch, which takes seconds to import.
    """
    name = _gpu_name()
    known = next((key for key in DEVICES if key in name.lower().replace(" ", "")), None)
    if known is not None:
        return DEVICES[known]
    speed = _OF_A_PRODUCT * _product_gflops()
    return Speed(f"{os.cpu_count() or 1} cores, as a probe found them", speed, speed)


def _gpu_name() -> str:
    """Return what the first NVIDIA GPU is called; "" without one."""
    if not has_gpu():
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.partition("\n")[0]


def _product_gflops() -> float:
    """Return the speed of a matrix product: that of the fastest of a few."""
    import numpy as np  # late: a plan of what was measured does without

    factor = np.ones((_PROBED_N, _PROBED_N), np.float32)
    seconds = list[float]()
    for _ in range(_PROBES):
        began = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - began)
    return 2 * _PROBED_N**3 / min(seconds) / 1e9
