"""Targets: the teacher's features on each drawn image, and how an attempt resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.flops import encoder_flops
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.images import normalise
from spar_bench.run.inference import sliding_window
from spar_bench.run.teach import open_images, read_target
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages import student
from spar_bench.stages import targets as targets_stage
from spar_bench.store import Store
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


def test_half_written_target_of_an_earlier_attempt_is_written_again(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs))
    stage = only(plan, targets_stage.Stage)
    (store.output(stage) / "000001.safetensors").write_bytes(b"\x00" * 100)

    targets = make_stage(plan, store, stage)

    assert load_file(targets.path("000001.safetensors"))["features"].isfinite().all()


def test_features_beyond_half_precision_are_told(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OpenClip.features
    monkeypatch.setattr(OpenClip, "features", lambda self, images: 1e6 * real(self, images))
    plan = plan_of(settings(clip, photographs))
    making, notes = scheduler(plan, store)

    making.make([only(plan, targets_stage.Stage).fingerprint])

    assert notes.kinds("failed") == ["targets"]
    assert "must be finite in half precision, but those of image 0 are not" in notes.all[-1][2]
