"""The speed that a plan assumes: measured on one device, or a maker's peak and a share of it."""

import time
from pathlib import Path
from platform import node

import numpy as np
import pytest

from spar_bench.errors import UnknownName
from spar_bench.plan import devices
from spar_bench.plan.devices import DEVICES, assumed_speed, probed_speed
from spar_bench.stage import Finished


def made(
    kind: str, gflops: float, seconds: float, device: str = "cpu A", host: str | None = None, *,
    ended_ms: int = 0,
) -> Finished:  # fmt: skip
    """Return a stage that took `seconds` for `gflops`."""
    how = {
        "gflops": gflops,
        "seconds": seconds,
        "device": device,
        "host": host or node(),
        "ended_ms": ended_ms,
    }
    return Finished(Path("stage"), {"kind": kind, "made": how})


def test_speed_of_a_kind_is_the_median_over_its_stages() -> None:
    stages = [made("student", gflops, 10.0) for gflops in (100.0, 300.0, 1_000.0)]

    speed = assumed_speed([*stages, made("evaluate", 90.0, 1.0)], None)

    assert speed.of("student", "float32") == 30.0
    assert speed.of("evaluate", "float32") == 90.0
    assert str(speed) == "speeds measured on cpu A"


def test_kind_that_was_not_measured_here_is_as_fast_as_a_probe() -> None:
    speed = assumed_speed([made("student", 100.0, 10.0), made("evaluate", 90.0, 1.0)], None)

    assert speed.of("targets", "float32") == probed_speed().of("targets", "float32")


def test_kind_that_was_not_measured_on_another_device_is_as_fast_as_the_slowest() -> None:
    stages = [made("student", 100.0, 10.0, "gpu B"), made("evaluate", 90.0, 1.0, "gpu B")]

    assert assumed_speed(stages, "gpu B").of("targets", "float32") == 10.0


def test_probe_is_a_share_of_what_numpy_multiplies() -> None:
    probed_speed.cache_clear()
    factor, seconds = np.random.default_rng(0).random((1500, 1500), np.float32), list[float]()
    for _ in range(7):
        began = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - began)

    speed = probed_speed().of("student", "float32")

    # Other work disturbs either; what must not be wrong is the unit, or the count.
    assert 0.25 < speed / (0.45 * 2 * 1500**3 / min(seconds) / 1e9) < 4
    probed_speed.cache_clear()


@pytest.mark.parametrize(
    ("told", "device"),
    [
        ("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"), ("Tesla V100-SXM2-16GB", "v100"),
    ],
)  # fmt: skip
def test_gpu_that_is_known_is_assumed_without_a_probe(
    monkeypatch: pytest.MonkeyPatch, told: str, device: str
) -> None:
    probed_speed.cache_clear()
    monkeypatch.setattr(devices, "_gpu_name", lambda: told)

    assert probed_speed() == DEVICES[device]
    probed_speed.cache_clear()


def test_devices_are_not_pooled_and_that_of_this_hosts_newest_stage_counts() -> None:
    stages = [
        made("student", 100.0, 10.0, "cpu A", ended_ms=1),
        made("student", 5_000.0, 10.0, "gpu B", ended_ms=2),
        made("student", 90_000.0, 10.0, "gpu C", "elsewhere", ended_ms=3),
    ]

    assert assumed_speed(stages, None).of("student", "float32") == 500.0
    assert assumed_speed(stages, "gpu C").of("student", "float32") == 9_000.0
    assert assumed_speed(stages[2:], None) == probed_speed()


def test_stage_of_little_arithmetic_measures_no_speed() -> None:
    assert assumed_speed([made("student", 10.0, 20.0)], None) == probed_speed()


def test_named_device_has_two_fifths_of_its_peak_by_precision() -> None:
    speed = assumed_speed([], "a100")

    assert speed.of("student", "float32") == pytest.approx(0.4 * 19_500)
    assert speed.of("student", "bfloat16") == pytest.approx(0.4 * 312_000)
    assert str(speed) == "assuming a100: 7,800 GFLOP/s, 124,800 in 16 bits"


def test_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"got 'a10'; did you mean 'a100'\?"):
        assumed_speed([], "a10")


def test_no_device_is_slower_in_16_bits() -> None:
    assert [name for name, speed in DEVICES.items() if speed.half <= speed.float32] == []
