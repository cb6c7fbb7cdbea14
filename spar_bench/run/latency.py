"""Time all ways to read an image in one session: interleaved after a warm-up, a pass at a time.

End to end is from a normalised image on the device to its label map of the same size: windows,
encoder, stitching, products with queries, upsampling, thresholds. The encoder's share is timed
inside the same passes.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.files import replace_text
from spar_bench.inference import Inference
from spar_bench.protocol import LOGIT_SCALE
from spar_bench.run.classifier import Classifier
from spar_bench.run.context import Context, ignore
from spar_bench.run.load import Usage, other_cores, usage_now
from spar_bench.run.memory import held_bytes, peak_mib
from spar_bench.run.segment import NO_REFINER, Segmenter
from spar_bench.run.text import TextClassifier
from spar_bench.spec.plugins import PluginSpec
from spar_bench.stages import cost, latency
from spar_bench.values import Precision

LONG_PASS_S, LONG_PASSES = 2.0, 3
"""What takes longer a pass gets one warm-up pass and is timed this many times."""
FEWEST_PASSES, MOST_PASSES = 5, 100
WARM_PASSES, WARM_SPREAD = 3, 0.02
"""Warm when this many passes in a row are within this share of their median, or time is up."""
_WARMING, _TIMING = 0.3, 0.6
"""Shares of a session's work, for its progress."""


def make_latency(stages: list[latency.Stage], context: Context) -> list[latency.Summary]:
    """Write samples, percentiles in milliseconds and peak memory of each, and the other load."""
    return [_make_latency(stage, context) for stage in stages]


def _make_latency(stage: latency.Stage, context: Context) -> latency.Summary:
    def progress(share: float) -> None:
        context.check()
        context.report(stage, share)

    timed, places = stage.settings.timed, stage.places.timed
    # Those of the same backbone and refiner follow each other, so that they share them.
    ordered = sorted(timed, key=lambda key: places[key].model_dump_json())
    made = {key: _reading(timed[key], places[key], context) for key in ordered}
    readings = {key: made[key] for key in timed}
    timings = time_together(readings, stage.settings.seconds, progress=progress)
    output = context.store.output(stage) / latency.LATENCY_FILE
    replace_text(output, timings.model_dump_json())
    return latency.Summary(n_timed=len(readings))


def _reading(timed: latency.Timed, places: cost.Places, context: Context) -> "TimedReading":
    settings = timed.reading
    return TimedReading(
        context.backbone(places.backbone),
        settings.inference,
        settings.image_hw,
        classifier=random_classifier(
            settings.n_queries,
            settings.known_sizes.channels,
            context.device,
            n_classes=timed.n_classes,
            has_background_threshold=timed.has_background_threshold,
            has_area_threshold=timed.has_area_threshold,
        ),
        refiner=places.refiner,
        built=context.refiner(places.refiner),
        precision=settings.precision,
        device=context.device,
    )


def time_together(
    readings: Mapping[str, "TimedReading"],
    seconds: float,
    *,
    progress: Callable[[float], None] = ignore,
    usage: Callable[[], Usage] = usage_now,
) -> latency.Timings:
    """Warm up each reading, then time all in turns, each for at most about `seconds`.

    `progress` takes the share that is done before each pass, and may raise.
    """
    before, several = usage(), list(readings.values())
    for done, reading in enumerate(several):
        progress(_WARMING * done / len(several))
        reading.warm_up(seconds / 2)
    turns = turns_of([reading.n_passes(seconds) for reading in several])
    for done, turn in enumerate(turns):
        progress(_WARMING + _TIMING * done / len(turns))
        several[turn].sample()
    after = usage()
    return latency.Timings(
        load_average=(before.load_average, after.load_average),
        other_cores=other_cores(before, after),
        n_cores=after.n_cores,
        n_threads=torch.get_num_threads(),
        by_key={key: reading.summary() for key, reading in readings.items()},
    )


def turns_of(n_passes: list[int]) -> list[int]:
    """Return the order of turns: the passes of each are spread over the session, with jitter.

    The k-th of n passes is at a random time in the k-th of n equal parts of the session, so that
    few slow passes and many fast ones see the same machine.
    """
    jitter = random.Random(0)
    at = [((k + jitter.random()) / n, one) for one, n in enumerate(n_passes) for k in range(n)]
    return [one for _, one in sorted(at)]


@dataclass
class Stopwatch:
    """Marks in time on a device: events on CUDA, a clock in seconds elsewhere."""

    device: torch.device
    clock: Callable[[], float] = time.perf_counter

    def mark(self) -> Any:
        if self.device.type != "cuda":
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))  # not device 0's
        return event

    def seconds(self, start: Any, end: Any) -> float:
        if self.device.type != "cuda":
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@dataclass
class _TimedBackbone:
    """A backbone that notes when it encodes."""

    inner: Backbone
    watch: Stopwatch
    spans: list[tuple[Any, Any]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def features(self, images: Tensor) -> Tensor:
        start = self.watch.mark()
        features = self.inner.features(images)
        self.spans.append((start, self.watch.mark()))
        return features


class TimedReading:
    """One way of reading one image of one size, and the times of its passes."""

    def __init__(
        self,
        backbone: Backbone,
        inference: Inference,
        image_hw: tuple[int, int],
        *,
        classifier: Classifier,
        refiner: PluginSpec = NO_REFINER,
        built: object | None = None,
        precision: Precision = "float32",
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._watch = device, Stopwatch(device, clock)
        self._inference, self._image_hw = inference, image_hw
        self._timed = _TimedBackbone(backbone, self._watch)
        self._segmenter = Segmenter(
            self._timed,  # type: ignore[arg-type]  # it has all that a segmenter uses
            classifier,
            refiner=refiner,
            built=built,
            precision=precision,
            device=device,
        )
        parameters = list(backbone.visual.parameters())
        self._weights_bytes = sum(p.numel() * p.element_size() for p in parameters)
        self._weights_bytes += held_bytes(self._segmenter.refiner)
        self._image = torch.randn(3, *image_hw, device=device)
        self._samples: list[tuple[float, float]] = []
        self._pass_s, self._floor_s = 0.0, math.inf

    def warm_up(self, seconds: float) -> None:
        """Run until passes agree, for at most about `seconds`; keeps no samples."""
        clock, passes = self._watch.clock, list[float]()
        begun = clock()
        while True:
            passes.append(self._pass()[0])
            latest = passes[-WARM_PASSES:]
            self._pass_s = statistics.median(latest)
            spread = max(abs(one - self._pass_s) for one in latest)
            warm = len(latest) == WARM_PASSES and spread <= WARM_SPREAD * self._pass_s
            if warm or clock() - begun > seconds:
                return

    def n_passes(self, seconds: float) -> int:
        """Return how many timed passes fit in the given time."""
        if self._pass_s > LONG_PASS_S:
            return LONG_PASSES
        return min(max(int(seconds / self._pass_s), FEWEST_PASSES), MOST_PASSES)

    def sample(self) -> None:
        """Time one pass."""
        self._samples.append(self._pass())

    def summary(self) -> latency.Timing:
        """Return percentiles in milliseconds, the samples behind them, and peak memory."""
        whole, encoder = (np.array(column) * 1e3 for column in zip(*self._samples, strict=True))
        p10, p50, p90 = np.percentile(whole, [10, 50, 90]).tolist()
        return latency.Timing(
            latency_p10_ms=p10,
            latency_p50_ms=p50,
            latency_p90_ms=p90,
            encoder_p50_ms=float(np.median(encoder)),
            floor_ms=self._floor_s * 1e3,
            peak_mib=peak_mib(self._read, self._device, self._weights_bytes),
            window_batch=self._segmenter.batch.used,
            n=len(whole),
            samples_ms=whole.tolist(),
        )

    def _pass(self) -> tuple[float, float]:
        """Return the seconds of one pass, end to end and in the encoder."""
        self._timed.spans.clear()
        start = self._watch.mark()
        self._read()
        whole = self._watch.seconds(start, self._watch.mark())
        self._floor_s = min(self._floor_s, whole)
        return whole, sum(self._watch.seconds(*span) for span in self._timed.spans)

    @torch.inference_mode()
    def _read(self) -> Tensor:
        segmenter, image_hw = self._segmenter, self._image_hw
        guidance = segmenter.guidance(self._image)
        [scores] = segmenter.scores(self._image, [self._inference], guidance, image_hw)
        return segmenter.labels(scores, guidance, image_hw)


def random_classifier(
    n_queries: int,
    channels: int,
    device: torch.device,
    *,
    n_classes: int | None = None,
    has_background_threshold: bool = False,
    has_area_threshold: bool = False,
) -> TextClassifier:
    """Return a classifier that takes the time of a real one: its content does not affect it.

    `n_classes` is by default one for each query. A linear probe is timed as one of a query a class:
    its product is the same.
    """
    n_classes = n_classes or n_queries
    return TextClassifier(
        queries=F.normalize(torch.randn(n_queries, channels, device=device), dim=1),
        class_of=torch.arange(n_queries, device=device) % n_classes,
        n_classes=n_classes,
        logit_scale=LOGIT_SCALE,
        background_threshold=0.5 if has_background_threshold else 0.0,
        area_threshold=0.01 if has_area_threshold else 0.0,
    )
