"""What only CUDA decides: precision, timing by events, the allocator's peak, exact resuming."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import spar_bench as sb
from spar_bench.engine.events import Emit, Event
from spar_bench.errors import Interrupted, SparBenchError
from spar_bench.plan.trials import Plan
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.results import Results, Row
from spar_bench.run import lockstep
from spar_bench.run.context import (
    Context,
    build_backbone,
    build_refiner,
    prepare_device,
)
from spar_bench.run.inference import WINDOW_BATCH, WindowBatch, single_pass, sliding_window
from spar_bench.run.latency import Stopwatch
from spar_bench.run.memory import MIB
from spar_bench.session.sweep import Options, sweep
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.stages.targets import file_of
from spar_bench.store import Store
from tests.run.conftest import clip, photographs
from tests.run.test_distributed import student
from tests.run.test_distributed import sweep as launched
from tests.run.tiny import of_kind, plan_of, scheduler, settings
from tests.small import UNTIMED, write_spec
from tests.test_real import SMALLER, real, swept

__all__ = ["clip", "photographs", "real"]

CUDA = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.filterwarnings("default"),  # a driver's warnings are not ours
]
SCENES = UNTIMED.replace("short_side_px: [72]", "short_side_px: [256]").replace(
    "{name: patchwork, count: 2}", "{name: patchwork, count: 6}"
)


def swept_on(device: str, text: str) -> list[Row]:
    """Run a sweep on a device, with a store of its own; every row must be finished."""
    outcome = sweep(Path(write_spec(text)), Options(device=device, store=Path(f"on_{device}")))
    assert outcome.unfinished == []
    return outcome.rows


def test_bfloat16_scores_as_float32_does(here: Path) -> None:
    rows = swept_on(
        CUDA,
        SCENES
        + """\
sweep:
  - grid: {evaluate.precision: [float32, bfloat16]}
    set: {evaluate.methods: [pretrained, teacher]}
""",
    )

    exact, rounded = (
        {row.method: row.miou for row in rows if row.dtype == dtype}
        for dtype in ("float32", "bfloat16")
    )
    assert exact.keys() == {"pretrained", "teacher"}
    assert rounded == pytest.approx(exact, abs=0.01)
    assert rounded != exact


def test_sweep_scores_as_on_the_cpu(here: Path) -> None:
    text = SCENES + "sweep: [{grid: {evaluate.average: [logits, features]}}]\n"

    expected, found = swept_on("cpu", text), swept_on(CUDA, text)

    assert [(row.trial, row.method) for row in found] == [
        (row.trial, row.method) for row in expected
    ]
    assert {row.method for row in found} == {"pretrained", "teacher", "student"}
    assert [row.miou for row in found] == pytest.approx([row.miou for row in expected], abs=1e-3)


@pytest.mark.parametrize("stride_px", [None, 32])
def test_passes_are_timed_by_events(stride_px: int | None) -> None:
    backbone = sb.load_backbone("patchwork", device=CUDA)

    found = sb.measure(backbone, (64, 96), stride_px=stride_px, seconds=0.05)

    assert isinstance(Stopwatch(torch.device(CUDA)).mark(), torch.cuda.Event)
    assert 0 < found["latency_p10_ms"] <= found["latency_p50_ms"] <= found["latency_p90_ms"]
    assert 0 < found["encoder_p50_ms"] <= found["latency_p90_ms"]
    assert all(sample > 0 for sample in found["samples_ms"])


def test_peak_memory_holds_the_weights_and_grows_with_the_image() -> None:
    backbone = sb.load_backbone("patchwork", device=CUDA)
    weights_mib = sum(p.numel() * p.element_size() for p in backbone.visual.parameters()) / MIB

    small, large = (
        sb.measure(backbone, image_hw, seconds=0.01)["peak_mib"]
        for image_hw in [(64, 96), (256, 384)]
    )

    assert weights_mib < small < large


def made(plan: Plan, context: Context, notify: Emit | None = None) -> Finished:
    """Make the one student of a plan."""
    [stage] = of_kind(plan, "student")
    making, notes = scheduler(plan, context.store, context=context)
    making.notify = notify or notes
    making.make([stage.fingerprint])
    finished = context.store.find(stage)
    assert finished is not None
    return finished


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_student_stopped_midway_ends_with_the_weights_of_an_undisturbed_one(
    clip: Path, photographs: Path, tmp_path: Path, precision: str
) -> None:
    # No gradient goes through attention, whose backward pass may sum in any order.
    trainable = "mlp_of_last_2_blocks"
    changes = {"student__trainable": trainable, "student__precision": precision}
    plan = plan_of(settings(clip, photographs, student__epochs=4, **changes))
    device, stop = prepare_device(CUDA, threads=None), threading.Event()
    store = Store(tmp_path / "stopped")

    def stop_midway(event: Event) -> None:
        if plan.stages[event.fingerprint].kind == "student" and event.share >= 0.5:
            stop.set()

    with pytest.raises(Interrupted):
        made(plan, Context(store, device, stop=stop), stop_midway)
    checkpoints = list(store.root.rglob("resume.safetensors"))
    resumed = made(plan, Context(store, device))
    undisturbed = made(plan, Context(Store(tmp_path / "undisturbed"), device))

    assert len(checkpoints) == 1
    found, expected = (load_file(one.path(TRAINED_FILE)) for one in (resumed, undisturbed))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert resumed.summary == undisturbed.summary


def test_steps_between_two_readings_of_losses_do_not_wait_for_the_device(
    clip: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(settings(clip, photographs, student__epochs=4, student__trainable="all"))
    take, unwaited = lockstep._step, list[int]()

    def step(group: lockstep.Group, first: int) -> None:
        n_steps = group.schedule.steps_an_epoch
        waits = group.step < n_steps or (group.step + 1) % n_steps == 0  # the first warm up
        torch.cuda.set_sync_debug_mode("default" if waits else "error")
        try:
            take(group, first)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        unwaited.extend([] if waits else [group.step])

    monkeypatch.setattr(lockstep, "_step", step)
    made(plan, Context(Store(tmp_path / "store"), prepare_device(CUDA, threads=None)))

    assert len(unwaited) > 2


def test_worker_process_makes_what_this_process_makes(here: Path) -> None:
    expected = swept_on(CUDA, UNTIMED)

    outcome = sweep(
        Path(write_spec(UNTIMED)),
        Options(device=CUDA, store=Path("elsewhere"), backend="subprocesses"),
    )

    assert outcome.unfinished == []
    assert [row.miou for row in outcome.rows] == pytest.approx([row.miou for row in expected])


def test_torchrun_trains_with_nccl_the_student_of_one_process(tmp_path: Path) -> None:
    for name, n_launched in (("one", None), ("launched", 1)):
        result = launched(tmp_path / name, n_launched, device=CUDA)
        assert result.returncode == 0, result.stderr
        assert "1 of 1 trial finished" in result.stdout

    one, other = (student(tmp_path / name) for name in ("one", "launched"))

    assert one[0].name == other[0].name
    assert other[2] == pytest.approx(one[2], rel=1e-5)


@pytest.mark.parametrize(
    "name", ["openclip-b16-laion2b", "siglip2-b16-512", "siglip2-b16-naflex", "dinov3txt-l16"]
)
def test_backbone_of_true_size_has_the_features_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSpec(name=name, weights="random"), torch.device("cpu"))
    images = torch.randn(2, 3, 224, 336)
    expected = single_pass(backbone, images)
    backbone.visual.to(CUDA)

    found = single_pass(backbone, images.to(CUDA)).cpu()

    assert found.shape == expected.shape
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_windows_that_do_not_fit_into_the_memory_are_halved_until_they_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backbone = sb.load_backbone("patchwork", device=CUDA)
    read = partial(sliding_window, backbone, stride_px=16)
    images = torch.randn(1, 3, 256, 2048, device=CUDA)
    large = torch.randn(1, 3, 4096, 4096, device=CUDA)
    expected = read(images, window_px=256)
    batch = WindowBatch(images.device)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 280 * 2**20  # a row of 113 windows takes more
    total = torch.cuda.get_device_properties(images.device).total_memory

    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        found = read(images, window_px=256, batch=batch)
        with pytest.raises(SparBenchError, match="must have memory for one window"):
            read(large, window_px=4096)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert batch.used is not None
    assert batch.used < WINDOW_BATCH[CUDA]
    assert "do not fit into the memory of cuda" in caplog.text
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "lposs_self", "k": 9},
        {"name": "lposs_self", "k": 9, "pixels": True, "neighbourhood_px": 5},
        {"name": "lposs", "weights": "random", "k": 9},
        {"name": "anyup", "weights": "random", "of": "features", "cell_px": 2},
        {"name": "anyup", "weights": "random", "of": "scores"},
        {"name": "naf", "weights": "random", "cell_px": 2},
    ],
)
def test_refiner_gives_the_maps_of_the_cpu_within_a_thousandth(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 6, 9, generator=generator)
    queries = F.normalize(torch.randn(3, 8, generator=generator), dim=1)
    cosines = torch.einsum("qc,chw->qhw", queries, F.normalize(maps, dim=0))
    pixels = torch.rand(3, 96, 144, generator=generator)
    refined = []
    for device in (torch.device("cpu"), prepare_device(CUDA, threads=None)):
        guidance = Guidance(pixels.to(device), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        refiner = build_refiner(PluginSpec.model_validate(settings), device)
        features, scores = maps.to(device), cosines.to(device)
        with torch.inference_mode():
            if isinstance(refiner, RefinesFeatures):
                refined.append(refiner.features(features, guidance, (90, 140)).cpu())
            if isinstance(refiner, RefinesScores):
                refined.append(refiner.scores(scores, features, guidance, (90, 140)).cpu())

    expected, found = refined
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_probe_scores_as_on_the_cpu(here: Path) -> None:
    text = (
        SCENES
        + """\
sweep:
  - cases:
      - evaluate.methods: [pretrained]
        evaluate.classifier: {name: linear, count: 4, epochs: 2, batch: 2, learning_rate: 0.02}
"""
    )

    [expected], [found] = swept_on("cpu", text), swept_on(CUDA, text)

    assert found.miou == pytest.approx(expected.miou, abs=1e-3)


def test_targets_in_half_precision_are_those_in_float32_but_for_rounding(
    clip: Path, photographs: Path, tmp_path: Path
) -> None:
    device, features = prepare_device(CUDA, threads=None), {}
    for precision in ("float32", "float16", "bfloat16"):
        plan = plan_of(settings(clip, photographs, teacher__precision=precision))
        [stage] = of_kind(plan, "targets")
        store = Store(tmp_path / precision)
        making, _ = scheduler(plan, store, context=Context(store, device))
        making.make([stage.fingerprint])
        finished = store.find(stage)
        assert finished is not None
        features[precision] = load_file(finished.path(file_of(0)))["features"].double()

    exact = features["float32"]
    for precision, tolerance in (("float16", 0.01), ("bfloat16", 0.05)):
        difference = (features[precision] - exact).norm() / exact.norm()
        assert 0 < difference < tolerance


def test_real_experiment_runs_with_random_weights_in_half_precision(spec: str) -> None:
    swept(spec, SMALLER, "--device", CUDA)

    rows = Results.load(Path(".spar_bench/results/real")).rows
    assert [(row.method, row.status) for row in rows] == [
        ("teacher", "finished"), ("teacher", "finished"),
        ("pretrained", "finished"), ("student", "finished"),
    ]  # fmt: skip
    assert all(row.cost.peak_mib for row in rows)
    assert not any((row.cost.device or "cpu").startswith("cpu") for row in rows)
