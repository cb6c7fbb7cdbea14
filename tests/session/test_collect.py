"""How rows are put together from what the store has."""

from pathlib import Path

import pytest

from spar_bench.run.context import ignore
from spar_bench.session.collect import Collector, clipped
from spar_bench.session.run_records import flat
from spar_bench.stages import latency
from spar_bench.stages.latency import Timing, Timings
from spar_bench.store import Store
from tests.run.conftest import clip, photographs, store
from tests.run.tiny import of_type, plan_of, scheduler, settings

__all__ = ["clip", "photographs", "store"]


@pytest.mark.parametrize(
    ("window_px", "image_hw", "remark"),
    [
        (None, (48, 64), ""),
        (48, (48, 64), ""),
        (64, (48, 96), "the window of 64 px is clipped to the image of 48x96 px"),
        (64, (96, 48), "the window of 64 px is clipped to the image of 96x48 px"),
    ],
)
def test_window_that_exceeds_an_image_is_remarked_on(
    window_px: int | None, image_hw: tuple[int, int], remark: str
) -> None:
    assert clipped(window_px, image_hw) == remark


def test_nested_settings_lie_flat_under_dotted_keys() -> None:
    settings = {"teacher": {"stride_px": 12}, "evaluate": {"short_side_px": [256]}, "seed": 0}

    assert flat(settings) == {
        "teacher.stride_px": 12,
        "evaluate.short_side_px": [256],
        "seed": 0,
    }


def test_row_and_line_of_costs_have_their_timing_its_window_batch_and_note(
    clip: Path, photographs: Path, store: Store
) -> None:
    measure = {"latency": True, "image_hw": [[64, 80]]}
    plan = plan_of(settings(clip, photographs, evaluate__methods=["teacher"], measure=measure))
    [session], [line], [trial] = of_type(plan, latency.Stage), plan.costs, plan.trials
    [row] = trial.rows
    usual = Timing(
        latency_p10_ms=9, latency_p50_ms=10, latency_p90_ms=12, encoder_p50_ms=8, floor_ms=9,
        peak_mib=3.5, window_batch=64, n=3, samples_ms=[9, 10, 12],
    )  # fmt: skip
    slow = usual.model_copy(update={"latency_p50_ms": 18.0, "window_batch": 32})
    timings = Timings(
        load_average=(0.1, 0.2), other_cores=None, n_cores=2, n_threads=2,
        by_key={row.timed: usual, line.timed: slow},
    )  # fmt: skip
    scheduler(plan, store)[0].make([row.cost, line.cost])
    with store.lock([session.fingerprint], on_wait=ignore, poll=ignore):
        (store.output(session) / latency.LATENCY_FILE).write_text(timings.model_dump_json())
        store.finish(session, summary=latency.Summary(n_timed=2), made={})
    collector = Collector("x", plan, store)

    [found], further = collector.rows(trial), collector.cost_row(line)

    assert (found.cost.latency_p50_ms, found.cost.peak_mib, found.cost.window_batch) == (
        10,
        3.5,
        64,
    )
    assert (found.cost.latency_note, found.cost.cost_status) == ("", "finished")
    assert (further.cost.latency_p50_ms, further.cost.window_batch) == (18, 32)
    assert further.cost.latency_note == "its median is 2.0 times its fastest pass"
    assert (further.dataset, further.cost.image_h) == ("noise", 64)
