"""How fast a device works: as measured in a store, or as its maker states it."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from spar_bench.errors import UnknownName
from spar_bench.stage import Finished

STARTUP_S, STAGE_S = 20.0, 1.0
"""Seconds that a sweep takes before its first stage (imports, mostly), and each stage besides its
arithmetic; measured on two laptop cores."""
TELLING_GFLOPS = 50.0
"""The time of a smaller stage is mostly loading, so it does not measure speed."""
SUSTAINED = 0.4
"""Share of a device's peak that a transformer is assumed to reach; in training, 0.21 to 0.46 is
reported (PaLM, arXiv:2204.02311, table 3)."""


@dataclass(frozen=True)
class Speed:
    """GFLOP/s of a device: by kind of stage where measured, else by precision.

    `float32` is without TF32; `is_here`: this host measured it.
    """

    device: str
    float32: float = 0.0
    half: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    is_here: bool = False

    def of(self, kind: str, precision: str) -> float:
        """Return the speed at which stages of a kind are made."""
        if self.measured:  # an unmeasured kind is assumed to be no faster than any other
            return self.measured.get(kind, min(self.measured.values()))
        return self.float32 if precision == "float32" else self.half

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
LAPTOP = Speed("two cores of a laptop", 60.0, 60.0)
"""Measured in float32 with `patchwork`; the guess where nothing was measured."""


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
        return next((speed for speed in measured.values() if speed.is_here), LAPTOP)
    known = DEVICES | measured
    if name not in known:
        raise UnknownName.among("device", name, known)
    return known[name]
