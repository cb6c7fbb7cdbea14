"""The cost stage: closed form in the row, the counter beside it, an error if they differ."""

import json
from pathlib import Path

import pytest
import torch

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.flops import encoder_flops
from spar_bench.run import cost
from spar_bench.spec.schema import BackboneSpec
from spar_bench.store import Store
from tests.run.tiny import plan_of, scheduler, settings


def test_cost_of_each_arm_is_stated_and_checked(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs, evaluate__methods=["pretrained", "teacher"]))
    costs = [row.cost for row in plan.trials[0].rows]
    scheduler(plan, store)[0].make(costs)

    single, windows = (store.find(plan.stages[fingerprint]) for fingerprint in costs)
    assert single is not None
    assert windows is not None
    assert (single.summary["n_windows"], windows.summary["n_windows"]) == (1, 10)
    for finished in (single, windows):
        found = finished.summary
        assert json.loads(finished.path("cost.json").read_text()) == found
        assert found["encoder_gflops_a_pass"] == pytest.approx(
            found["encoder_gflops_a_pass_counted"], rel=0.02
        )
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))
    n_params = sum(p.numel() for p in backbone.visual.parameters())
    assert windows.summary["params_m"] == pytest.approx(n_params / 1e6)
    a_window = encoder_flops(backbone.sizes, (32, 32)) + 2 * 16 * 12 * 3
    assert windows.summary["gflops"] == pytest.approx(10 * a_window / 1e9)


def test_closed_form_that_is_off_fails_the_stage(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cost.count_encoder_flops
    monkeypatch.setattr(cost, "count_encoder_flops", lambda *args: int(1.03 * real(*args)))
    plan = plan_of(settings(clip, photographs, evaluate__methods=["pretrained"]))
    making, notes = scheduler(plan, store)

    making.make([plan.trials[0].rows[0].cost])

    assert notes.kinds("failed") == ["cost"]
    assert "its sizes must give torch's count of FLOPs within 2%, but" in notes.all[-1][2]


def test_counting_leaves_the_fast_path_of_attention_as_it_was(clip: Path) -> None:
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))

    counted = cost.count_encoder_flops(backbone, (32, 40))

    assert torch.backends.mha.get_fastpath_enabled()
    assert counted == pytest.approx(encoder_flops(backbone.sizes, (32, 40)), rel=0.001)
