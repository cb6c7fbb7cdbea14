"""Targets: the teacher's features on each drawn image, and how an attempt resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.flops import encoder_flops
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context, autocast
from spar_bench.run.images import normalise
from spar_bench.run.inference import sliding_window
from spar_bench.run.teach import open_images, read_target
from spar_bench.spec.schema import BackboneSpec, Settings
from spar_bench.stages import student
from spar_bench.stages import targets as targets_stage
from spar_bench.store import Store
from spar_bench.values import Precision
from tests.run.tiny import CPU, S, make_stage, of_type, plan_of, scheduler, settings


def only(plan: Plan, kind: type[S]) -> S:
    [stage] = of_type(plan, kind)
    return stage


@pytest.mark.parametrize("changes", [{}, {"teacher__stride_px": 16}, {"teacher__upsample": 4}])
def test_targets_are_the_sliding_windows_features_in_half_precision(
    clip: Path, photographs: Path, store: Store, changes: dict[str, Any]
) -> None:
    one = settings(clip, photographs, **changes)
    plan = plan_of(one)
    targets = make_stage(plan, store, only(plan, targets_stage.Stage))

    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))
    pictures = open_images(only(plan, student.Stage), Context(store, CPU))
    assert sorted(targets.manifest["files"]) == [f"{i:06d}.safetensors" for i in range(3)]
    n_windows = 0
    for position in range(3):
        image = normalise(pictures[position], backbone.mean, backbone.std)
        expected = sliding_window(
            backbone,
            image[None],
            window_px=32,
            stride_px=one.teacher.stride_px,
            upsample=4 if changes.get("teacher__upsample") else None,
        )[0]
        found = read_target(targets, position)
        assert torch.allclose(found, expected, atol=2e-3)
        assert found.shape == (12, image.shape[1] // 8, image.shape[2] // 8)
        tops, lefts = (
            len({*range(0, side - 31, one.teacher.stride_px), side - 32})
            for side in image.shape[-2:]
        )
        n_windows += tops * lefts
    gflops = n_windows * encoder_flops(backbone.sizes, (32, 32)) / 1e9
    assert targets.summary == {
        "n_images": 3,
        "n_windows": n_windows,
        "gflops": pytest.approx(gflops, rel=1e-12),
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_windows_are_encoded_in_the_teachers_precision_and_stitched_in_float32(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    encoded, stitched = set[torch.dtype](), set[torch.dtype]()
    features, sliding = OpenClip.features, sliding_window

    def spied_features(self: OpenClip, windows: Tensor) -> Tensor:
        found = features(self, windows)
        encoded.add(found.dtype)
        return found

    def spied_sliding(*arguments: Any, **options: Any) -> Tensor:
        found = sliding(*arguments, **options)
        stitched.add(found.dtype)
        return found

    monkeypatch.setattr(OpenClip, "features", spied_features)
    monkeypatch.setattr("spar_bench.run.teach.sliding_window", spied_sliding)

    targets_of(settings(clip, photographs, teacher__precision=precision), store)

    assert encoded == {getattr(torch, precision)}
    assert stitched == {torch.float32}


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the types of the operands of every matrix product, attention and convolution."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operands: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in {"mm", "addmm", "bmm", "baddbmm", "convolution"} or "attention" in name:
            self.operands |= {(name, one.dtype) for one in args if isinstance(one, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_of_float32_products_has_no_say_in_16_bits_for_none_is_left(
    clip: Path, precision: Precision
) -> None:
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))

    with torch.no_grad(), autocast(CPU, precision), Products() as products:
        backbone.features(torch.rand(2, 3, 32, 32))

    assert {"addmm", "convolution"} <= {name for name, _ in products.operands}
    assert {dtype for _, dtype in products.operands} == {getattr(torch, precision)}


def targets_of(one: Settings, store: Store) -> Tensor:
    """Make the targets of settings; return those of the second image as they are stored."""
    made = make_stage(plan := plan_of(one), store, only(plan, targets_stage.Stage))
    return read_target(made, 1)


def test_targets_of_16_bits_differ_from_those_of_float32_by_their_rounding(
    clip: Path, photographs: Path, store: Store
) -> None:
    exact, bfloat16, float16 = (
        targets_of(settings(clip, photographs, teacher__precision=one), store)
        for one in ("float32", "bfloat16", "float16")
    )

    # One rounding is by 2^-9 and 2^-12 of a value at most; a few layers add up some.
    relative = [((one - exact).norm() / exact.norm()).item() for one in (bfloat16, float16)]
    assert 2**-10 < relative[0] < 2**-5
    assert 2**-13 < relative[1] < 2**-8


def test_normalised_targets_have_length_one_after_stitching(
    clip: Path, photographs: Path, store: Store
) -> None:
    raw = targets_of(settings(clip, photographs), store)

    found = targets_of(settings(clip, photographs, teacher__normalise=True), store)

    lengths = raw.square().sum(dim=0).sqrt()
    assert not torch.allclose(lengths, torch.ones(()), rtol=0.1)
    assert torch.allclose(found, raw / lengths, rtol=2e-3, atol=1e-4)


def test_half_written_target_of_an_earlier_attempt_is_written_again(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs))
    stage = only(plan, targets_stage.Stage)
    (store.output(stage) / "000001.safetensors").write_bytes(b"\x00" * 100)

    targets = make_stage(plan, store, stage)

    assert load_file(targets.path("000001.safetensors"))["features"].isfinite().all()


@pytest.mark.parametrize(
    ("precision", "way_out"),
    [("float32", "check the backbone's weights"), ("float16", "use teacher.precision: float32")],
)
def test_features_beyond_half_precision_are_told(
    clip: Path,
    photographs: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    way_out: str,
) -> None:
    real = OpenClip.features
    monkeypatch.setattr(OpenClip, "features", lambda self, images: 1e6 * real(self, images))
    plan = plan_of(settings(clip, photographs, teacher__precision=precision))
    making, notes = scheduler(plan, store)

    making.make([only(plan, targets_stage.Stage).fingerprint])

    assert notes.kinds("failed") == ["targets"]
    assert (
        "must be finite in half precision, but those of image 0 are not; " + way_out
        in notes.all[-1][2]
    )
