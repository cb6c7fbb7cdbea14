"""The speed that a plan assumes: measured on one device, or a maker's peak and a share of it."""

from pathlib import Path
from platform import node

import pytest

from spar_bench.errors import UnknownName
from spar_bench.plan.devices import DEVICES, LAPTOP, assumed_speed
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


def test_kind_that_was_not_measured_is_as_fast_as_the_slowest() -> None:
    speed = assumed_speed([made("student", 100.0, 10.0), made("evaluate", 90.0, 1.0)], None)

    assert speed.of("targets", "float32") == 10.0


def test_devices_are_not_pooled_and_that_of_this_hosts_newest_stage_counts() -> None:
    stages = [
        made("student", 100.0, 10.0, "cpu A", ended_ms=1),
        made("student", 5_000.0, 10.0, "gpu B", ended_ms=2),
        made("student", 90_000.0, 10.0, "gpu C", "elsewhere", ended_ms=3),
    ]

    assert assumed_speed(stages, None).of("student", "float32") == 500.0
    assert assumed_speed(stages, "gpu C").of("student", "float32") == 9_000.0
    assert assumed_speed(stages[2:], None) == LAPTOP


def test_stage_of_little_arithmetic_measures_no_speed() -> None:
    assert assumed_speed([made("student", 10.0, 20.0)], None) == LAPTOP


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
