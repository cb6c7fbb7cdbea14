"""What only CUDA decides: precision, timing by events, the allocator's peak, exact resuming."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import spar_bench as sb
from spar_bench.plan.trials import Plan
from spar_bench.results import Row
from spar_bench.run.context import Context, Interrupted, prepare_device
from spar_bench.run.latency import Stopwatch
from spar_bench.run.memory import MIB
from spar_bench.session.sweep import Options, sweep
from spar_bench.stage import Finished
from spar_bench.stages.base import Stage
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.conftest import clip, photographs
from tests.run.tiny import of_kind, plan_of, scheduler, settings
from tests.small import UNTIMED, write_spec

__all__ = ["clip", "photographs"]

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


def made(plan: Plan, context: Context) -> Finished:
    """Make the one student of a plan."""
    [stage] = of_kind(plan, "student")
    scheduler(plan, context.store, context=context)[0].make([stage.fingerprint])
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

    def stop_midway(stage: Stage, share: float) -> None:
        if stage.kind == "student" and share >= 0.5:
            stop.set()

    with pytest.raises(Interrupted):
        made(plan, Context(store, device, report=stop_midway, stop=stop))
    checkpoints = list(store.root.rglob("resume.safetensors"))
    resumed = made(plan, Context(store, device))
    undisturbed = made(plan, Context(Store(tmp_path / "undisturbed"), device))

    assert len(checkpoints) == 1
    found, expected = (load_file(one.path(TRAINED_FILE)) for one in (resumed, undisturbed))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert resumed.summary == undisturbed.summary
