"""Students: what trains, plain regression, exact resume, and a golden loss curve."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.flops import training_flops
from spar_bench.errors import Diverged, Interrupted, SparBenchError
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.images import normalise
from spar_bench.run.student import make_students
from spar_bench.run.teach import open_images, read_target
from spar_bench.run.training import order
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages.student import TRAINED_FILE, Stage, Summary
from spar_bench.store import Store
from tests.run.tiny import CPU, losses, of_kind, of_type, plan_of, scheduler, settings

GOLDEN = Path(__file__).parent.parent / "golden" / "distill_cpu.txt"
GOLDEN_TOLERANCE = 1e-4
"""Relative; losses are bit-identical on one machine, and differ by rounding between machines."""


@pytest.fixture(scope="module")
def taught(clip: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that holds images and targets of seed 0."""
    store = Store(tmp_path_factory.mktemp("taught"))
    plan = plan_of(settings(clip, photographs))
    targets = [stage.fingerprint for stage in of_kind(plan, "targets")]
    scheduler(plan, store)[0].make(targets)
    return store


@pytest.fixture
def stage_of(clip: Path, photographs: Path) -> Any:
    """Return the student stage of settings."""

    def build(**changes: Any) -> Stage:
        named = {f"student__{key}": value for key, value in changes.items()}
        plan: Plan = plan_of(settings(clip, photographs, **named))
        [stage] = of_type(plan, Stage)
        return stage

    return build


def train(stage: Stage, store: Store, **options: Any) -> tuple[Summary, Path]:
    """Make a student's files; returns its summary and the folder that they are in."""
    context = Context(store, CPU, **options)
    store.discard_unfinished(stage.fingerprint)
    [summary] = make_students([stage], context)
    if isinstance(summary, Exception):
        raise summary
    return summary, store.output(stage)


@pytest.mark.parametrize(
    ("trainable", "prefixes"),
    [
        ("all", [""]),
        ("last_1_blocks", ["transformer.resblocks.2."]),
        ("last_2_blocks", ["transformer.resblocks.1.", "transformer.resblocks.2."]),
        ("position_embedding", ["positional_embedding"]),
        ("patch_embedding", ["conv1."]),
        ("attention_of_last_1_blocks", [f"transformer.resblocks.2.{n}." for n in ("attn", "ln_1")]),
        (
            "mlp_of_last_2_blocks",
            [f"transformer.resblocks.{i}.{n}." for i in (1, 2) for n in ("mlp", "ln_2")],
        ),
    ],
)
def test_only_what_is_asked_for_moves(
    stage_of: Any, taught: Store, clip: Path, trainable: str, prefixes: list[str]
) -> None:
    before = OpenClip(BackboneSpec(name="openclip", path=str(clip))).visual.state_dict()

    summary, folder = train(stage_of(trainable=trainable, epochs=1, weight_decay=0.1), taught)

    trained = load_file(folder / TRAINED_FILE)
    expected = {name for name in before if name.startswith(tuple(prefixes))}
    assert expected
    assert trained.keys() == expected
    assert all(not torch.equal(trained[name], before[name]) for name in expected)
    assert summary.trained_params == sum(before[name].numel() for name in expected)


def by_hand(clip: Path, stage: Stage, store: Store, *, accumulate: int) -> list[float]:
    """Train all parameters as the settings say, in plain torch; return the loss of each step."""
    context = Context(store, CPU)
    pictures = open_images(stage, context)
    targets = context.finished(stage, "targets")
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))
    optimiser = torch.optim.AdamW(backbone.visual.parameters(), lr=1e-3, weight_decay=1e-4)
    found = []
    for epoch in range(2):
        positions = order(3, 0, epoch)
        for first in range(0, 3, accumulate):
            optimiser.zero_grad()
            batch = positions[first : first + accumulate]
            one_by_one = []
            for position in batch:
                image = normalise(pictures[position], backbone.mean, backbone.std)
                features = backbone.features(image[None])[0]
                loss = (features - read_target(targets, position)).square().mean()
                (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
                one_by_one.append(loss.item())
            optimiser.step()
            found.append(sum(one_by_one) / len(batch))
    return found


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_training_is_plain_regression_of_the_targets(
    stage_of: Any, taught: Store, clip: Path, accumulate: int
) -> None:
    stage = stage_of(trainable="all", accumulate=accumulate)

    summary, folder = train(stage, taught)

    expected = by_hand(clip, stage, taught, accumulate=accumulate)
    assert [loss for _, loss in losses(folder)] == pytest.approx(expected, rel=1e-4)
    assert [step for step, _ in losses(folder)] == list(range(summary.n_steps))
    last_epoch = expected[len(expected) // 2 :]
    assert summary.final_loss == pytest.approx(sum(last_epoch) / len(last_epoch), rel=1e-4)


def test_cost_of_training_is_summed_over_every_picture_seen(stage_of: Any, taught: Store) -> None:
    stage = stage_of(epochs=2)

    summary, _ = train(stage, taught)

    context = Context(taught, CPU)
    pictures = open_images(stage, context)
    sizes = context.backbone(stage.places.backbone).sizes
    shapes = [pictures[i].shape[-2:] for i in range(3)]
    flops = 2 * sum(training_flops(sizes, (h, w), "last_2_blocks") for h, w in shapes)
    assert summary.train_gflops == pytest.approx(flops / 1e9)


def stopping_at(step: int) -> Iterator[bool]:
    """Return False this many times, then True."""
    yield from [False] * step
    while True:
        yield True


@pytest.mark.parametrize("step", [0, 1, 3, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {"trainable": "all", "schedule": "one_cycle"},
        {"optimiser": "sgd", "schedule": "cosine", "learning_rate": 0.1},
        {"trainable": "all", "optimiser": "muon"},
        {"optimiser": "muon", "precision": "float16"},
        {"precision": "bfloat16", "accumulate": 1},
        {"precision": "float16"},
    ],
)
def test_resumed_student_is_the_uninterrupted_one_bit_for_bit(
    stage_of: Any,
    taught: Store,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    step: int,
) -> None:
    stage = stage_of(epochs=3, **changes)
    _, folder = train(stage, taught)
    expected, curve = load_file(folder / TRAINED_FILE), losses(folder)
    taught.discard_unfinished(stage.fingerprint)
    looks = stopping_at(step)

    def check(self: Context) -> None:
        if next(looks):
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Context, "check", check)
        with pytest.raises(Interrupted):
            make_students([stage], Context(taught, CPU))

    make_students([stage], Context(taught, CPU))

    resumed = load_file(folder / TRAINED_FILE)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert losses(folder) == curve


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{", b"x" * 100])
def test_student_whose_resume_state_is_corrupt_is_trained_anew(
    stage_of: Any, taught: Store, content: bytes
) -> None:
    stage = stage_of()
    _, folder = train(stage, taught)
    curve = losses(folder)
    (folder.parent / "resume.safetensors").write_bytes(content)

    make_students([stage], Context(taught, CPU))

    assert losses(folder) == curve


def test_students_losses_are_the_golden_ones(stage_of: Any, taught: Store) -> None:
    _, folder = train(stage_of(trainable="all", epochs=4, schedule="one_cycle"), taught)

    golden = [line.split() for line in GOLDEN.read_text().splitlines() if line[:1] != "#"]
    assert [step for step, _ in losses(folder)] == [int(step) for step, _ in golden]
    expected = [float(loss) for _, loss in golden]
    assert [loss for _, loss in losses(folder)] == pytest.approx(expected, rel=GOLDEN_TOLERANCE)
    assert expected[-1] < expected[0]


def test_loss_that_is_not_finite_ends_the_student(stage_of: Any, taught: Store) -> None:
    stage = stage_of(learning_rate=1e30)

    with pytest.raises(Diverged, match=r"loss must stay finite, but is (nan|inf) at step 1 of 4"):
        train(stage, taught)


@pytest.mark.parametrize(
    ("distance", "found"),
    [
        (lambda student, teacher: (student - teacher).mean((1, 2, 3)), r"\(1,\), with gradient"),
        (lambda student, teacher: (student - teacher).mean().detach(), r"\(\), without gradient"),
        (lambda student, teacher: 0.5, "float"),
    ],
)
def test_loss_that_is_no_scalar_with_a_gradient_is_named(
    stage_of: Any, taught: Store, monkeypatch: pytest.MonkeyPatch, distance: Any, found: str
) -> None:
    monkeypatch.setattr("spar_bench.losses.mse.loss", distance)

    with pytest.raises(SparBenchError, match=rf"^loss 'mse': must .* but got {found}; fix .*mse"):
        train(stage_of(), taught)


def test_weights_that_the_last_step_broke_end_the_student(
    stage_of: Any, taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finite_without_a_gradient(student: Tensor, teacher: Tensor) -> Tensor:
        return (student * 0).abs().sqrt().sum() + teacher.sum()

    monkeypatch.setattr("spar_bench.losses.mse.loss", finite_without_a_gradient)
    stage = stage_of(epochs=1, accumulate=3)

    with pytest.raises(Diverged, match="weights must stay finite, but is nan at step 1 of 1"):
        train(stage, taught)


def test_pruner_is_told_the_mean_loss_of_each_epoch(stage_of: Any, taught: Store) -> None:
    told = list[tuple[int, float]]()

    _, folder = train(stage_of(epochs=3), taught, prune=lambda *args: told.append(args))

    curve = [loss for _, loss in losses(folder)]
    means = [sum(curve[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert [loss for _, loss in told] == pytest.approx(means)


def test_student_is_distilled_on_half_precision_targets(
    stage_of: Any, taught: Store, clip: Path
) -> None:
    stage = stage_of()
    context = Context(taught, CPU)
    targets = context.finished(stage, "targets")

    assert load_file(targets.path("000000.safetensors"))["features"].dtype == torch.float16
    assert read_target(targets, 0).dtype == torch.float32
