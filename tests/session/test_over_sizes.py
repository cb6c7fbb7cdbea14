"""Costs over the sizes of images: closed forms image by image, and the curve of latencies."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spar_bench.components.backbone import known_sizes
from spar_bench.datasets import image_sizes
from spar_bench.errors import DataError
from spar_bench.inference import SINGLE_PASS, Inference, Resize
from spar_bench.plan.cost import image_flops, windows_of
from spar_bench.plan.sizes import spanning
from spar_bench.plan.suite import SuitePlan
from spar_bench.plan.trials import Plan
from spar_bench.resolve import Resolver
from spar_bench.session.over_sizes import Curve, Point, fitted, left_out_error, over_sizes
from spar_bench.session.selection import select_trials, time_only
from spar_bench.spec.schema import BackboneSpec, DatasetSpec, Settings
from spar_bench.stages import latency
from spar_bench.stages.latency import Timing, Timings
from spar_bench.store import Store
from tests.run.probes import probes_of, write_labelled
from tests.run.tiny import CLASSES, of_type, plan_of, settings
from tests.small import spar_bench, write_spec

SIZES = [(40, 70), (70, 40), (40, 70), (64, 48), (90, 60), (40, 70), (64, 48)]
"""Sizes of photographs, one for each; four distinct ones."""

READ = [(48, 72), (72, 48), (48, 48), (48, 72)]
WINDOWS = Inference("sliding_window", 48, 24, "logits")


def write_varied(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """Write a folder of labelled noise, one photograph of each size."""
    generator = np.random.default_rng(0)
    for name in ("val_images", "val_masks"):
        (folder / name).mkdir(parents=True)
    for index, image_hw in enumerate(sizes):
        image = generator.integers(0, 256, (*image_hw, 3), dtype=np.uint8)
        mask = generator.integers(0, len(CLASSES), image_hw, dtype=np.uint8)
        Image.fromarray(image).save(folder / "val_images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "val_masks" / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """A folder of labelled photographs of several sizes."""
    return write_varied(tmp_path / "varied", SIZES)


def asked(clip: Path, photographs: Path, varied: Path, **changes: object) -> Settings:
    """Return settings that ask for the costs of a teacher over the sizes of photographs."""
    dataset = {"name": "folder", "path": str(varied), "templates": ["a {}."]}
    measure: dict[str, object] = {"over_sizes": True, "latency": True}
    return settings(
        clip,
        photographs,
        evaluate__methods=["pretrained", "teacher"],
        evaluate__datasets=[dataset],
        measure=measure,
        **changes,
    )


def timed(plan: Plan, ms: float | dict[str, float], *, floor_ms: float = 1.0) -> Timings:
    """Return timings of all that a plan times; one median, or one for each key."""
    [session] = of_type(plan, latency.Stage)
    return Timings(
        load_average=(0.1, 0.2), other_cores=None, n_cores=2, n_threads=2,
        by_key={
            key: Timing(
                latency_p10_ms=p50, latency_p50_ms=p50, latency_p90_ms=p50, encoder_p50_ms=p50,
                floor_ms=min(floor_ms, p50), peak_mib=1, window_batch=None, n=1, samples_ms=[p50],
            )
            for key in session.settings.timed
            for p50 in [ms if isinstance(ms, float) else ms[key]]
        },
    )  # fmt: skip


def test_gflops_are_those_of_a_loop_over_the_images(
    clip: Path, photographs: Path, varied: Path
) -> None:
    plan = plan_of(asked(clip, photographs, varied))
    single, teacher = plan.sizes
    sizes = teacher.point.backbone.sizes

    for line in (single, teacher):
        found = over_sizes(line, None)

        inference = line.point.inference(line.method)
        each = [
            image_flops(sizes, inference, Resize(40).of(image_hw), n_queries=3) / 1e9
            for image_hw in SIZES
        ]
        assert (found.n_images, found.n_sizes) == (len(SIZES), 4)
        assert found.gflops_sum == pytest.approx(sum(each), rel=1e-12)
        assert found.gflops_mean == pytest.approx(sum(each) / len(SIZES), rel=1e-12)
        percentiles = [found.gflops_p10, found.gflops_p50, found.gflops_p90]
        assert percentiles == pytest.approx(np.percentile(each, [10, 50, 90]).tolist(), rel=1e-12)
        assert found.latency_mean_ms is None


def test_probe_has_a_score_for_each_class_and_not_for_each_synonym(
    clip: Path, tmp_path: Path
) -> None:
    labelled = write_labelled(tmp_path / "labelled")
    (labelled / "classes.txt").write_text("sky, heaven, clouds\nroad, street\ntree")
    plan = probes_of(clip, labelled, measure={"over_sizes": True, "latency": False})
    [line] = plan.sizes

    found = over_sizes(line, None)

    sizes = [Resize(40).of(image_hw) for image_hw in [(40, 70), (46, 70), (52, 70)]]
    each = [
        image_flops(line.point.backbone.sizes, SINGLE_PASS, image_hw, n_queries=3) / 1e9
        for image_hw in sizes
    ]
    assert found.gflops_sum == pytest.approx(sum(each), rel=1e-12)


def test_sizes_that_are_resized_to_one_are_one() -> None:
    sizes = {(100, 200): 3, (50, 100): 2, (200, 100): 1}

    assert Resize(40).of_all(sizes) == {(40, 80): 5, (80, 40): 1}


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [1]),
        (2, [1, 2]),
        (5, [1, 2, 3, 4, 5]),
        (6, [1, 2, 3, 4, 6]),
        (101, [1, 26, 51, 76, 101]),
    ],
)
def test_timed_sizes_are_few_evenly_spread_and_have_both_ends(n: int, expected: list[int]) -> None:
    sizes = {(height, 10): 1 for height in range(n, 0, -1)}

    assert spanning(sizes) == [(height, 10) for height in expected]


def test_curve_recovers_the_factors_of_exact_timings() -> None:
    work = [(10.0, 0.1), (20.0, 0.15), (45.0, 0.4), (60.0, 0.35), (90.0, 0.8)]
    points = [Point(gflops, pixels, 2.5 + 0.3 * gflops + 4.0 * pixels) for gflops, pixels in work]

    curve = fitted(points)

    factors = (curve.base_ms, curve.ms_a_gflop, curve.ms_a_megapixel)
    assert factors == pytest.approx((2.5, 0.3, 4.0), rel=1e-9)
    assert left_out_error(points) == pytest.approx(0, abs=1e-9)


def test_no_factor_of_the_curve_is_negative() -> None:
    points = [Point(10.0, 0.1, 1.0), Point(20.0, 0.2, 4.0), Point(40.0, 0.4, 10.0)]

    curve = fitted(points)

    # The line through them begins at -2 ms; without a constant, least squares give sum(xy)/sum(xx).
    assert curve.base_ms == 0
    expected = (10 * 1 + 20 * 4 + 40 * 10) / (10**2 + 20**2 + 40**2)
    assert curve.at(40.0, 0.4) == pytest.approx(40 * expected, rel=1e-9)


@pytest.mark.parametrize(
    ("points", "curve"),
    [
        ([Point(10.0, 0.1, 5.0)], Curve(0.0, 0.5, 0.0)),
        ([Point(10.0, 0.1, 5.0), Point(20.0, 0.3, 7.0)], Curve(3.0, 0.2, 0.0)),
        ([Point(None, 0.1, 5.0)], Curve(5.0, 0.0, 0.0)),
        ([Point(None, 0.1, 5.0), Point(None, 0.3, 7.0)], Curve(4.0, 0.0, 10.0)),
    ],
)
def test_few_points_have_as_many_terms(points: list[Point], curve: Curve) -> None:
    found = fitted(points)

    assert vars(found) == pytest.approx(vars(curve), rel=1e-9, abs=1e-9)


def test_error_is_that_of_each_point_left_out_in_turn() -> None:
    points = [Point(10.0, 0.1, 5.0), Point(20.0, 0.2, 7.0), Point(40.0, 0.4, 13.0)]

    # Lines through two of the points, at the third: by hand, since none begins below zero.
    at_first = 7 + (13 - 7) / (40 - 20) * (10 - 20)
    at_second = 5 + (13 - 5) / (40 - 10) * (20 - 10)
    at_third = 5 + (7 - 5) / (20 - 10) * (40 - 10)
    errors = [abs(at_first / 5 - 1), abs(at_second / 7 - 1), abs(at_third / 13 - 1)]

    assert left_out_error(points) == pytest.approx(sum(errors) / 3, rel=1e-9)
    assert left_out_error(points[:1]) is None


def test_latency_of_all_images_is_that_of_the_curve_image_by_image(
    clip: Path, photographs: Path, varied: Path
) -> None:
    plan = plan_of(asked(clip, photographs, varied))
    _, line = plan.sizes
    sizes, inference = line.point.backbone.sizes, line.point.inference("teacher")

    def ms(image_hw: tuple[int, int]) -> float:
        gflops = image_flops(sizes, inference, image_hw, n_queries=3) / 1e9
        return 2.0 + 3.0 * gflops + 5.0 * math.prod(image_hw) / 1e6

    by_key = {key: ms(image_hw) for image_hw, key in line.spanning.items()}
    others = dict.fromkeys(plan.session.settings.timed, 1.0)

    found = over_sizes(line, timed(plan, others | by_key, floor_ms=100.0))

    each = [ms(Resize(40).of(image_hw)) for image_hw in SIZES]
    assert found.n_timed == len(line.spanning) == 4
    assert found.latency_mean_ms == pytest.approx(sum(each) / len(each), rel=1e-6)
    assert found.images_per_s == pytest.approx(1e3 * len(each) / sum(each), rel=1e-6)
    assert found.fit_note == ""


def test_note_of_a_timing_is_that_of_the_curve(clip: Path, photographs: Path, varied: Path) -> None:
    plan = plan_of(asked(clip, photographs, varied))

    found = over_sizes(plan.sizes[0], timed(plan, 3.0, floor_ms=1.5))

    assert found.fit_note == "its median is 2.0 times its fastest pass"


def test_sizes_are_timed_in_the_session_of_all_and_only_where_asked_for(
    clip: Path, photographs: Path, varied: Path
) -> None:
    plan = plan_of(asked(clip, photographs, varied))
    usual = plan_of(
        asked(clip, photographs, varied).model_copy(
            update={"measure": Settings().measure.model_copy(update={"latency": True})}
        )
    )

    keys = {key for line in plan.sizes for key in line.spanning.values()}
    rows = {row.timed for trial in plan.trials for row in trial.rows}

    # Two methods at four sizes; those of the rows, of the first image, are among them.
    assert set(plan.session.settings.timed) == keys | rows == keys
    assert len(keys) == 8
    assert usual.sizes == []
    assert set(usual.session.settings.timed) == rows
    assert {s.fingerprint for s in usual.stages.values()} - {usual.latency} == {
        s.fingerprint for s in plan.stages.values()
    } - {plan.latency}


def test_images_of_one_size_are_timed_no_further(clip: Path, photographs: Path) -> None:
    one = settings(
        clip,
        photographs,
        evaluate__methods=["pretrained"],
        evaluate__datasets=[{"name": "patchwork", "count": 5}],
        measure={"over_sizes": True},
    )

    plan = plan_of(one)

    [line], [trial] = plan.sizes, plan.trials
    assert dict(line.sizes) == {(40, 50): 5}
    assert set(plan.session.settings.timed) == {row.timed for row in trial.rows}
    found = over_sizes(line, timed(plan, 4.0))
    assert found.latency_mean_ms == pytest.approx(4.0)
    assert found.fit_error is None


def test_without_timings_there_are_flops_alone(clip: Path, photographs: Path, varied: Path) -> None:
    one = asked(clip, photographs, varied)
    one = one.model_copy(update={"measure": one.measure.model_copy(update={"latency": False})})

    plan = plan_of(one)

    assert plan.latency is None
    found = over_sizes(plan.sizes[0], None)
    assert found.gflops_mean is not None
    assert (found.n_timed, found.latency_mean_ms, found.images_per_s) == (0, None, None)


def test_plan_without_the_data_assumes_the_size_that_its_file_states() -> None:
    resolver = Resolver(provisional=True)

    found = resolver.image_sizes(DatasetSpec(name="voc21", count=12))

    facts = resolver.facts(DatasetSpec(name="voc21"))
    assert found == {facts.image_hw: 12}
    assert len(resolver.missing) == 1


def test_trials_that_are_timed_alone_have_their_sizes_timed(
    clip: Path, photographs: Path, varied: Path, tmp_path: Path
) -> None:
    plan = plan_of(
        asked(clip, photographs, varied), asked(clip, photographs, varied, teacher__stride_px=16)
    )
    lines = [line for line in plan.sizes if line.point.group == "g1"]

    time_only(plan, select_trials(plan.trials, "g1"), Store(tmp_path / "store"))

    keys = {key for line in lines for key in line.spanning.values()}
    assert set(plan.session.settings.timed) == keys


def test_suite_has_the_sizes_of_each_experiment(
    clip: Path, photographs: Path, varied: Path
) -> None:
    plan = plan_of(asked(clip, photographs, varied))

    whole = SuitePlan({"a": plan, "b": plan}).whole

    groups = [line.point.group for line in whole.sizes]
    assert groups == ["a/g0", "a/g0", "b/g0", "b/g0"]


def test_images_of_a_plug_in_that_does_not_say_are_read_and_unreadable_ones_left_out() -> None:
    class Silent:
        def __len__(self) -> int:
            return 3

        def image(self, index: int) -> np.ndarray[Any, Any]:
            if index == 1:
                raise DataError("x.png: must be an image, but is none; replace it")
            return np.zeros((4, 6, 3), np.uint8)

    found = image_sizes(Silent())  # type: ignore[arg-type]  # it has all that is asked of it

    assert found == {(4, 6): 2}


def test_image_whose_header_cannot_be_read_is_not_counted(varied: Path) -> None:
    (varied / "val_images" / "1.png").write_bytes(b"no image")

    found = Resolver().image_sizes(DatasetSpec(name="folder", path=str(varied)))

    assert found == {(40, 70): 3, (64, 48): 2, (90, 60): 1}


SPEC = """\
backbone: patchwork
teacher: {window_px: 48, stride_px: 24}
evaluate:
  datasets: [{name: folder, path: varied, classes: [[stripes], [dots], [waves]]}]
  templates: ["a photo of a {}."]
  short_side_px: [48]
  methods: [pretrained, teacher]
measure: {seconds: 0.01, over_sizes: true}
"""


def test_photographs_of_three_sizes_are_swept_and_reported(here: Path) -> None:
    write_varied(here / "varied", [(48, 72), (72, 48), (96, 96), (48, 72)])
    path = write_spec(SPEC)

    spar_bench("sweep", path)
    spar_bench("report", path)

    with (here / "reports" / "tiny" / "sizes.csv").open() as file:
        single, teacher = csv.DictReader(file)
    page = (here / "reports" / "tiny" / "README.md").read_text(encoding="utf-8")
    # Read at 48x72 twice, 72x48 and 48x48.
    sizes = known_sizes(BackboneSpec(name="patchwork"))
    each = [image_flops(sizes, SINGLE_PASS, hw, n_queries=3) for hw in READ]
    assert float(single["gflops_sum"]) == pytest.approx(sum(each) / 1e9, rel=1e-12)
    for line, n_windows in ((single, [1, 1, 1, 1]), (teacher, [2, 2, 1, 2])):
        assert (line["n_images"], line["n_sizes"], line["n_timed"]) == ("4", "3", "3")
        curve = Curve(*(float(line[name]) for name in vars(Curve(0, 0, 0))))
        inference = SINGLE_PASS if line is single else WINDOWS
        works = [image_flops(sizes, inference, hw, n_queries=3) / 1e9 for hw in READ]
        assert [windows_of(sizes, inference, hw) for hw in READ] == n_windows
        mean = sum(curve.at(w, math.prod(hw) / 1e6) for w, hw in zip(works, READ, strict=True)) / 4
        assert float(line["latency_mean_ms"]) == pytest.approx(mean, rel=1e-9)
        assert float(line["images_per_s"]) == pytest.approx(1e3 / mean, rel=1e-9)
        assert float(line["fit_error"]) >= 0
    assert "Cost over all images: varied" in page
    assert "[sizes.csv](sizes.csv)" in page
