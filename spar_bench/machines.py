"""Which machine this is, remembered from when torch was last asked.

A sweep that finds everything finished need not import torch to know that its timings are from here.
"""

import json
import logging
import os
import platform
import sys
from pathlib import Path

from pydantic import JsonValue, ValidationError

from spar_bench.errors import StoreError
from spar_bench.files import cache_folder, replace_text
from spar_bench.libraries import installed_version
from spar_bench.stages.latency import Machine

log = logging.getLogger(__name__)

CPUINFO = Path("/proc/cpuinfo")

_FILE = "machine.json"
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Variables that torch heeds when it chooses device and threads by itself."""
_UNUSABLE = (OSError, RuntimeError, ValueError, TypeError, ValidationError)


def remembered() -> Machine | None:
    """Return the machine as torch had it by default under the present circumstances, if known."""
    try:
        found = json.loads((cache_folder() / _FILE).read_text(encoding="utf-8"))
        if found["circumstances"] == _circumstances():
            return Machine.model_validate(found["machine"])
    except (*_UNUSABLE, LookupError):  # nothing is lost: torch is asked
        pass
    return None


def remember(machine: Machine) -> None:
    """Note what torch says of this machine by default."""
    document = {"circumstances": _circumstances(), "machine": machine.model_dump(mode="json")}
    try:
        replace_text(cache_folder() / _FILE, json.dumps(document))
    except (*_UNUSABLE, StoreError) as error:
        log.info("the machine is not remembered: %s", error)


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU, as far as its devices tell."""
    return bool(_gpus())


def multiplies_16_bits(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether the processor has instructions for products of bfloat16; True if unknown."""
    words = _words(cpuinfo)
    return "flags" not in words or bool(words & {"amx_bf16", "avx512_bf16"})


def mkl_lacks_avx512(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether the processor has AVX-512 that Intel's library, MKL, leaves unused: AMD's."""
    return {"AuthenticAMD", "avx512f"} <= _words(cpuinfo)


def _words(cpuinfo: Path) -> set[str]:
    """Return the words in which the system describes the processor; none if it does not."""
    try:
        return set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return set()


def _gpus() -> list[str]:
    return sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))


def _circumstances() -> dict[str, JsonValue]:
    """Return what torch's answer depends on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "host": platform.node(),
        "cores": [*sorted(affinity(0))] if affinity else os.cpu_count(),
        "gpus": [*_gpus()],
        "environment": {name: os.environ.get(name) for name in _SETTINGS},
        "torch": installed_version("torch"),
        "python": sys.prefix,
    }
