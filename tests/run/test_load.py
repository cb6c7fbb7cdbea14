"""How busy others keep the machine, from its own figures."""

import os
from pathlib import Path

from spar_bench.run.load import Usage, other_cores, usage_now

BEFORE = Usage(at_s=10.0, busy_s=500.0, own_s=3.0, load_average=0.1, n_cores=4)


def test_others_kept_busy_what_is_neither_idle_nor_ours() -> None:
    after = Usage(at_s=14.0, busy_s=512.0, own_s=9.0, load_average=2.5, n_cores=4)

    assert other_cores(BEFORE, after) == (512 - 500 - (9 - 3)) / (14 - 10)


def test_rounding_of_a_quiet_machine_is_no_load() -> None:
    after = Usage(at_s=14.0, busy_s=507.99, own_s=11.0, load_average=2.5, n_cores=4)

    assert other_cores(BEFORE, after) == 0


def test_system_that_does_not_tell_is_unknown() -> None:
    unknown = Usage(at_s=14.0, busy_s=None, own_s=11.0, load_average=2.5, n_cores=4)

    assert other_cores(BEFORE, unknown) is None


def test_busy_time_is_all_but_idle_and_waiting_with_guests_counted_once(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    # user, nice, system, idle, iowait, irq, softirq, steal; then guests, part of user and nice
    stat.write_text("cpu  1000 20 300 90000 5000 4 50 600 700 8\ncpu0 1 2 3\n")

    found = usage_now(stat)

    ticks = 1000 + 20 + 300 + 4 + 50 + 600
    assert found.busy_s == ticks / os.sysconf("SC_CLK_TCK")
    assert found.n_cores == os.cpu_count()


def test_system_without_the_file_does_not_tell(tmp_path: Path) -> None:
    assert usage_now(tmp_path / "stat").busy_s is None
