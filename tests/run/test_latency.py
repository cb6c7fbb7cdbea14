"""Timing with a clock that only passes advance: rounds, warm-up, percentiles, load, the lock."""

from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import torch
from torch import Tensor

from spar_bench.inference import SINGLE_PASS, Inference
from spar_bench.run.inference import WINDOW_BATCH
from spar_bench.run.latency import (
    FEWEST_PASSES,
    LONG_PASSES,
    MOST_PASSES,
    TimedReading,
    random_classifier,
    time_together,
    turns_of,
)
from spar_bench.run.load import Usage
from spar_bench.run.text import TextClassifier
from spar_bench.stages.latency import Stage, read_timings
from spar_bench.store import Store
from tests.run.tiny import CPU, plan_of, scheduler, settings
from tests.test_testing import ToyBackbone

WINDOWS = Inference("sliding_window", 16, 4, "logits")


class Clock:
    """Time that stands still unless advanced."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock that timing reads."""
    return Clock()


class Slow(ToyBackbone):
    """A toy that takes `seconds` per pass, and as long again for each of `hiccups`."""

    def __init__(self, clock: Clock, seconds: float, passes: list["Slow"] | None = None) -> None:
        super().__init__()
        self.clock, self.seconds, self.n_passes = clock, seconds, 0
        self.passes: list[Slow] = [] if passes is None else passes
        self.extra: Callable[[int], float] = lambda n: 0.0

    def features(self, images: Tensor) -> Tensor:
        self.clock.now += self.seconds + self.extra(self.n_passes)
        self.n_passes += 1
        self.passes.append(self)
        self.keeps_gradients = not torch.is_inference_mode_enabled()
        return super().features(images)


class SlowClassifier(TextClassifier):
    """Labels pixels in 7 ms."""

    clock: Clock

    def labels(self, scores: Tensor) -> Tensor:
        self.clock.now += 0.007
        return super().labels(scores)


def reading(
    backbone: Slow, inference: Inference = SINGLE_PASS, classifier: TextClassifier | None = None
) -> TimedReading:
    classifier = classifier or random_classifier(3, backbone.sizes.channels, CPU)
    return TimedReading(
        backbone, inference, (24, 32), classifier=classifier, device=CPU, clock=backbone.clock
    )


def test_warm_up_ends_when_three_passes_agree(clock: Clock) -> None:
    backbone = Slow(clock, 0.010)
    backbone.extra = lambda n: 0.005 * max(3 - n, 0)  # 25, 20, 15, 10, 10, 10 ms

    reading(backbone).warm_up(60.0)

    assert backbone.n_passes == 6


def test_warm_up_of_a_restless_machine_ends_with_its_time(clock: Clock) -> None:
    backbone = Slow(clock, 0.010)
    backbone.extra = lambda n: 0.010 * (n % 2)

    reading(backbone).warm_up(0.3)

    assert clock.now == pytest.approx(0.315, abs=0.02)


@pytest.mark.parametrize(
    ("seconds_a_pass", "expected"),
    [(0.001, MOST_PASSES), (0.1, 20), (1.5, FEWEST_PASSES), (3.0, LONG_PASSES)],
)
def test_passes_fit_the_time_given_within_bounds(
    clock: Clock, seconds_a_pass: float, expected: int
) -> None:
    timed = reading(Slow(clock, seconds_a_pass))
    timed.warm_up(1.0)

    assert timed.n_passes(2.0001) == expected


def test_long_pass_is_warmed_up_once(clock: Clock) -> None:
    backbone = Slow(clock, 3.0)

    reading(backbone).warm_up(1.0)

    assert backbone.n_passes == 1


def test_summary_is_percentiles_of_the_samples_in_milliseconds(clock: Clock) -> None:
    backbone = Slow(clock, 0.010)
    timed = reading(backbone)
    backbone.extra = lambda n: 0.001 * n  # 10, 11, ... 20 ms

    for _ in range(11):
        timed.sample()
    found = timed.summary()

    assert found.n == 11
    assert found.samples_ms == pytest.approx([10.0 + n for n in range(11)])
    assert found.latency_p10_ms == pytest.approx(11)
    assert found.latency_p50_ms == found.encoder_p50_ms == pytest.approx(15)
    assert found.latency_p90_ms == pytest.approx(19)
    assert found.floor_ms == pytest.approx(10)
    assert found.peak_mib > 0


def test_encoder_is_timed_inside_the_whole_pass(clock: Clock) -> None:
    SlowClassifier.clock = clock
    usual = random_classifier(3, 6, CPU)
    timed = reading(Slow(clock, 0.010), WINDOWS, SlowClassifier(**vars(usual)))

    timed.sample()
    found = timed.summary()

    # Windows of 16 px at stride 4 on 24 x 32: three rows of five, encoded in one batch.
    assert found.encoder_p50_ms == pytest.approx(10)
    assert found.latency_p50_ms == pytest.approx(17)


class Small(Slow):
    """A toy that runs out of memory if it is to encode more than three windows at once."""

    def features(self, images: Tensor) -> Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("Tried to allocate 7 GiB.")
        return super().features(images)


def test_summary_has_the_window_batch_of_its_own_passes_alone(clock: Clock) -> None:
    timed = [
        reading(Small(clock, 0.1), WINDOWS),
        reading(Slow(clock, 0.1), WINDOWS),
        reading(Slow(clock, 0.1)),
    ]
    for one in timed:
        one.warm_up(1.0)
        one.sample()

    # 16 px at stride 4 on 24 x 32: 15 windows, of which seven do not fit at once, but three do.
    assert [one.summary().window_batch for one in timed] == [3, WINDOW_BATCH["cpu"], None]


def test_readings_take_turns_in_an_order_that_changes(clock: Clock) -> None:
    passes: list[Slow] = []
    backbones = [Slow(clock, 0.1, passes) for _ in range(4)]

    time_together({str(i): reading(one) for i, one in enumerate(backbones)}, 1.0001)

    passes = passes[4 * 3 : 4 * (3 + 10)]  # after the warm-up, and before those for memory
    rounds = [passes[i : i + 4] for i in range(0, len(passes), 4)]
    assert len(rounds) == 10
    assert all({id(one) for one in turn} == {id(one) for one in backbones} for turn in rounds)
    assert len({tuple(map(id, turn)) for turn in rounds}) > 3


def test_drift_of_the_machine_meets_slow_and_fast_alike(clock: Clock) -> None:
    slow, fast = Slow(clock, 3.0), Slow(clock, 0.01)
    begun, lasts = 3.0 + 3 * 0.01, LONG_PASSES * 3.0 + 100 * 0.01  # after the warm-up
    # Twice as slow by the end.
    slow.extra = lambda n: 3.0 * max(clock.now - begun, 0) / lasts
    fast.extra = lambda n: 0.01 * max(clock.now - begun, 0) / lasts

    found = time_together({"slow": reading(slow), "fast": reading(fast)}, 1.0001).by_key

    assert (found["slow"].n, found["fast"].n) == (LONG_PASSES, 100)
    ratio = found["slow"].latency_p50_ms / found["fast"].latency_p50_ms
    assert ratio == pytest.approx(300, rel=0.15)


def test_turns_lie_evenly_over_the_session() -> None:
    turns = turns_of([3, 99])

    assert sorted(turns) == [0] * 3 + [1] * 99
    for third in (turns[:34], turns[34:68], turns[68:]):
        assert 32 <= third.count(1) <= 34


def test_latency_far_above_the_fastest_pass_is_noted(clock: Clock) -> None:
    quiet, loaded = Slow(clock, 0.010), Slow(clock, 0.010)
    quiet.extra = lambda n: 0.0049 if n >= 3 else 0.0  # from the end of the warm-up on
    loaded.extra = lambda n: 0.0931 if n >= 3 else 0.0

    several = {"quiet": reading(quiet), "loaded": reading(loaded)}
    found = time_together(several, 0.2, usage=lambda: Usage(0.0, None, 0.0, 0.0, 2))

    assert found.by_key["quiet"].latency_p50_ms == pytest.approx(14.9)
    assert found.by_key["quiet"].floor_ms == pytest.approx(10)
    assert found.note("quiet") == ""
    assert found.note("loaded") == "its median is 10.3 times its fastest pass"


@pytest.mark.parametrize(
    ("n_cores", "others_s", "note"),
    [
        (2, 0.3, ""),
        (2, 0.5, "others kept 0.2 of 2 cores busy"),
        (2, 2.6, "others kept 1.3 of 2 cores busy"),
        (64, 2.6, ""),  # on other cores than ours
        (64, 140.0, "others kept 70.0 of 64 cores busy"),
        (64, None, ""),
    ],
)
def test_other_load_than_ours_is_noted_where_it_needs_our_cores(
    clock: Clock, n_cores: int, others_s: float | None, note: str
) -> None:
    at_s, own_s = iter([100.0, 102.0]), iter([50.0, 53.5])
    busy_s = iter([None, None] if others_s is None else [700.0, 700.0 + 3.5 + others_s])

    def usage() -> Usage:
        return Usage(next(at_s), next(busy_s), next(own_s), load_average=1.5, n_cores=n_cores)

    found = time_together({"": reading(Slow(clock, 0.010))}, 0.1, usage=usage)

    assert found.load_average == (1.5, 1.5)
    if others_s is not None:
        assert found.other_cores == pytest.approx(others_s / 2)
    assert found.model_copy(update={"n_threads": 2}).note("") == note


def test_no_gradient_is_timed_and_weights_can_still_train(clock: Clock) -> None:
    backbone = Slow(clock, 0.1)
    timed = reading(backbone)

    timed.sample()
    assert not backbone.keeps_gradients

    backbone.features(torch.zeros(1, 3, 24, 32)).sum().backward()  # type: ignore[no-untyped-call]
    assert not any(parameter.is_inference() for parameter in backbone.visual.parameters())


def test_session_times_every_reading_of_a_plan(clip: Path, photographs: Path, store: Store) -> None:
    measure = {"latency": True, "seconds": 0.01, "image_hw": [[48, 64]]}
    plan = plan_of(settings(clip, photographs, measure=measure))
    assert plan.latency is not None
    making, _ = scheduler(plan, store)

    making.make([plan.latency])

    session = plan.stages[plan.latency]
    assert isinstance(session, Stage)
    finished = store.find(session)
    assert finished is not None
    found = read_timings(finished).by_key
    assert found.keys() == session.settings.timed.keys()
    assert finished.summary == {"n_timed": len(found)} == {"n_timed": 4}
    for timing in found.values():
        deciles = quantiles(timing.samples_ms, n=10, method="inclusive")
        assert timing.latency_p10_ms == pytest.approx(deciles[0])
        assert timing.latency_p50_ms == pytest.approx(deciles[4])
        assert timing.latency_p90_ms == pytest.approx(deciles[8])
        assert 0 < timing.floor_ms <= min(timing.samples_ms)
        assert timing.encoder_p50_ms > 0
        assert timing.n == len(timing.samples_ms) >= FEWEST_PASSES


def test_classes_and_thresholds_of_each_data_set_are_timed(
    clip: Path,
    photographs: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = {"name": "folder", "path": str(photographs), "templates": ["a {}."]}
    thresholds = {"background_threshold": 0.3, "area_threshold": 0.1}
    synonyms = [["sky", "cloud"], ["road", "street", "path"], ["tree"]]
    plan = plan_of(
        settings(
            clip,
            photographs,
            evaluate__datasets=[
                folder | {"label": "plain"},
                folder | thresholds | {"label": "strict", "classes": synonyms},
            ],
            evaluate__methods=["pretrained"],
            measure={"latency": True, "seconds": 0.01},
        )
    )
    labelled, labels = set[tuple[Any, ...]](), TextClassifier.labels

    def recorded(one: TextClassifier, cosines: Tensor) -> Tensor:
        n_queries, used = len(cosines), sorted(set(one.class_of.tolist()))
        labelled.add((n_queries, *used, one.background_threshold > 0, one.area_threshold > 0))
        return labels(one, cosines)

    assert plan.latency is not None
    monkeypatch.setattr(TextClassifier, "labels", recorded)
    scheduler(plan, store)[0].make([plan.latency])

    assert labelled == {(3, 0, 1, 2, False, False), (6, 0, 1, 2, True, True)}
