"""Linear probes: what they are made from, and the same bits however often they are stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.errors import DataError, Interrupted
from spar_bench.plan.trials import Plan
from spar_bench.resolve import open_dataset
from spar_bench.run.context import Context
from spar_bench.run.images import normalise, resize, to_tensor
from spar_bench.run.inference import sliding_window
from spar_bench.run.linear_probe import make_linear_probes
from spar_bench.spec.schema import BackboneSpec, DatasetSpec
from spar_bench.stages import evaluate, linear_probe
from spar_bench.stages.linear_probe import CURVE_FILE, PROBE_FILE
from spar_bench.store import Store
from tests.run.execute.conftest import contents
from tests.run.execute.test_resuming import Killed, killed_at
from tests.run.probes import probes_of, write_labelled
from tests.run.tiny import CPU, finished, interrupt_after, make_stage, of_kind, of_type, scheduler


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise, training images labelled."""
    return write_labelled(tmp_path_factory.mktemp("labelled") / "noise")


@pytest.fixture(scope="module")
def plan(clip: Path, labelled: Path) -> Plan:
    """A probe of the pretrained model, one of a teacher, and one of a student."""
    methods = ["pretrained", "teacher", "student"]
    return probes_of(clip, labelled, evaluate__methods=methods, student__epochs=1)


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the plan's stages hold when nothing goes wrong."""
    store = Store(tmp_path_factory.mktemp("whole"))
    scheduler(plan, store)[0].make(plan.stages)
    return contents(store, plan)


def test_evaluation_is_made_from_a_probe_in_place_of_text(plan: Plan) -> None:
    roles = [sorted(stage.inputs) for stage in of_kind(plan, "evaluate")]
    probes = of_type(plan, linear_probe.Stage)

    assert of_kind(plan, "text") == []
    assert roles == [["linear_probe"], ["linear_probe"], ["linear_probe", "student"]]
    assert [sorted(stage.inputs) for stage in probes] == [[], [], ["student"]]
    kinds = [one.settings.inference.kind for one in probes]
    assert kinds == ["single_pass", "sliding_window", "single_pass"]


def test_both_averages_of_windows_share_a_probe_of_averaged_features(
    clip: Path, labelled: Path
) -> None:
    changes: dict[str, Any] = {"evaluate__methods": ["teacher"]}
    plans = [
        probes_of(clip, labelled, evaluate__average=average, **changes)
        for average in ("logits", "features")
    ]

    [logits], [features] = (of_type(plan, linear_probe.Stage) for plan in plans)

    assert logits.fingerprint == features.fingerprint
    assert logits.settings.inference.average == "features"


@pytest.mark.parametrize("method", ["pretrained", "teacher"])
def test_what_is_learnt_from_is_each_image_and_its_mirror_image_as_the_method_reads_them(
    clip: Path, labelled: Path, store: Store, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = probes_of(clip, labelled, evaluate__methods=[method])
    [stage] = of_type(plan, linear_probe.Stage)
    with monkeypatch.context() as patch:
        patch.setattr("spar_bench.run.linear_probe._train", stop)
        with pytest.raises(Interrupted):
            scheduler(plan, store)[0].make([stage.fingerprint])

    kept = sorted(store.root.glob(f"scratch/{stage.fingerprint}/*/features/*"))
    backbone = OpenClip(BackboneSpec(path=str(clip)))
    data = open_dataset(DatasetSpec(name="folder", path=str(labelled)), "train", labelled=True)
    assert [path.name for path in kept] == [
        name for i in range(3) for name in (f"{i:06d}.safetensors", f"{i:06d}_mirrored.safetensors")
    ]
    for position, path in enumerate(kept):
        sample, is_mirrored = data.sample(position // 2), position % 2 == 1
        picture = to_tensor(sample.image).flip(-1) if is_mirrored else to_tensor(sample.image)
        mask = sample.mask[:, ::-1] if is_mirrored else sample.mask
        shorter = stage.settings.reading_size.of(sample.mask.shape)
        pixels = normalise(resize(picture, shorter), backbone.mean, backbone.std)[None]
        with torch.inference_mode():
            expected = backbone.features(pixels)
            if method == "teacher":
                expected = sliding_window(backbone, pixels, window_px=32, stride_px=12)
        tensors = load_file(path)
        assert torch.allclose(tensors["features"].float(), expected[0], atol=2e-3, rtol=2e-3)
        assert np.array_equal(tensors["labels"].numpy(), mask)


def stop(*_: object) -> None:
    raise Interrupted


def test_loss_falls_and_is_that_of_the_weights_kept(
    clip: Path, labelled: Path, store: Store
) -> None:
    recipe = {"epochs": 60, "flip": 0.0, "batch": 3, "schedule": "constant", "weight_decay": 0.0}
    plan = probes_of(clip, labelled, recipe=recipe | {"learning_rate": 0.003})
    [stage] = of_type(plan, linear_probe.Stage)

    found = make_stage(plan, store, stage)

    losses = [loss for _, loss, _ in json.loads(found.path(CURVE_FILE).read_text())]
    weights, backbone = load_file(found.path(PROBE_FILE)), OpenClip(BackboneSpec(path=str(clip)))
    data = open_dataset(DatasetSpec(name="folder", path=str(labelled)), "train", labelled=True)
    total, n_pixels = 0.0, 0
    for index in range(3):
        sample = data.sample(index)
        shorter = stage.settings.reading_size.of(sample.mask.shape)
        pixels = normalise(resize(to_tensor(sample.image), shorter), backbone.mean, backbone.std)
        with torch.inference_mode():
            features = backbone.features(pixels[None])
        scores = F.conv2d(features, weights["weight"][:, :, None, None], weights["bias"])
        shown = F.interpolate(scores, sample.mask.shape, mode="bilinear", align_corners=False)
        truth = torch.from_numpy(sample.mask.copy()).long()[None]
        total += float(F.cross_entropy(shown, truth, ignore_index=255, reduction="sum"))
        n_pixels += int((truth != 255).sum())
    assert len(losses) == 60
    assert losses[0] == pytest.approx(np.log(3))
    assert losses[-1] == pytest.approx(total / n_pixels, abs=2e-3)
    assert losses[-1] < losses[0] - 1e-3  # noise has little to learn from


def test_two_runs_give_the_same_bits(plan: Plan, store: Store, undisturbed: dict[str, Any]) -> None:
    scheduler(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed


@pytest.mark.parametrize("n_checks", [0, 1, 3, 5, 7, 9])
def test_interrupted_anywhere_and_called_again_it_ends_with_the_same_bits(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_checks: int,
) -> None:
    [stage, *_] = of_type(plan, linear_probe.Stage)
    with monkeypatch.context() as patch:
        interrupt_after(patch, n_checks)
        with pytest.raises(Interrupted):
            scheduler(plan, store)[0].make([stage.fingerprint])

    scheduler(plan, store)[0].make([stage.fingerprint])

    assert finished(store, stage).summary == undisturbed[stage.fingerprint]
    digest = finished(store, stage).manifest["files"][PROBE_FILE]["sha256"]
    assert digest == undisturbed[f"{stage.fingerprint}/{PROBE_FILE}"]


@pytest.mark.parametrize("n_writes", [2, 5, 7, 9, 11])
def test_killed_anywhere_and_called_again_it_ends_with_the_same_bits(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_writes: int,
) -> None:
    [stage, *_] = of_type(plan, linear_probe.Stage)
    monkeypatch.setattr("spar_bench.run.linear_probe.SAVE_EVERY_S", 0)
    with monkeypatch.context() as patch:
        killed_at(patch, n_writes)
        with pytest.raises(Killed):
            scheduler(plan, store)[0].make([stage.fingerprint])

    scheduler(plan, store)[0].make([stage.fingerprint])

    digest = finished(store, stage).manifest["files"][PROBE_FILE]["sha256"]
    assert digest == undisturbed[f"{stage.fingerprint}/{PROBE_FILE}"]


def test_features_are_gone_once_it_is_made(plan: Plan, store: Store) -> None:
    [stage, *_] = of_type(plan, linear_probe.Stage)

    found = make_stage(plan, store, stage)

    assert list(store.root.glob("scratch/**/*.safetensors")) == []
    assert {path.name for path in found.folder.iterdir()} == {
        "curve.json", "manifest.json", "probe.safetensors", "skipped.json",
    }  # fmt: skip


def test_work_is_what_was_planned(plan: Plan, store: Store) -> None:
    [stage, *_] = of_type(plan, linear_probe.Stage)

    found = make_stage(plan, store, stage)

    # The plan takes all images to be as large as the first, of 40 px; the others are longer.
    planned = stage.estimate(plan.stages)
    assert found.manifest["made"]["gflops"] == pytest.approx(planned.gflops, rel=0.3)


def test_image_that_cannot_be_read_stops_it_or_is_left_out_and_named(
    clip: Path, tmp_path: Path, store: Store
) -> None:
    folder = write_labelled(tmp_path / "noise")
    changes: dict[str, Any] = {"recipe": {"flip": 1.0}}
    plans = {
        rule: probes_of(clip, folder, evaluate__unreadable=rule, **changes)
        for rule in ("error", "skip")
    }
    broken = folder / "train_images" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    stages = {rule: of_type(plan, linear_probe.Stage)[0] for rule, plan in plans.items()}
    with pytest.raises(DataError, match=r"1\.png: image must be readable"):
        make_now(stages["error"], store)
    summary = make_now(stages["skip"], store)

    assert (summary.n_images, summary.n_skipped) == (2, 1)
    [skipped] = json.loads((store.output(stages["skip"]) / "skipped.json").read_text())
    assert (skipped["index"], str(broken) in skipped["reason"]) == (1, True)


def make_now(stage: linear_probe.Stage, store: Store) -> linear_probe.Summary:
    """Make a probe's files; returns its summary, or raises."""
    [summary] = make_linear_probes([stage], Context(store, CPU))
    return summary


def test_masks_that_label_nothing_are_refused(clip: Path, tmp_path: Path, store: Store) -> None:
    folder = write_labelled(tmp_path / "noise")
    for index in range(3):
        blank = np.full((40 + 6 * index, 70), 255, np.uint8)
        Image.fromarray(blank).save(folder / "train_masks" / f"{index}.png")
    [stage] = of_type(probes_of(clip, folder), linear_probe.Stage)

    with pytest.raises(DataError, match="the masks of its training images must label a pixel"):
        make_now(stage, store)


@pytest.mark.parametrize("average", ["logits", "features"])
def test_evaluation_scores_features_by_the_probe(
    clip: Path, labelled: Path, store: Store, average: str
) -> None:
    plan = probes_of(
        clip, labelled, evaluate__average=average, evaluate__methods=["teacher"],
        teacher__stride_px=32,
    )  # fmt: skip
    [stage], [probe] = of_type(plan, evaluate.Stage), of_type(plan, linear_probe.Stage)

    counts = evaluate.read_counts(make_stage(plan, store, stage))

    weights = load_file(finished(store, probe).path(PROBE_FILE))
    backbone = OpenClip(BackboneSpec(path=str(clip)))
    sample = open_dataset(DatasetSpec(name="folder", path=str(labelled)), "val").sample(0)
    pixels = normalise(to_tensor(sample.image), backbone.mean, backbone.std)[None]
    with torch.inference_mode():
        scores = torch.zeros(1, 3, *sample.mask.shape)
        seen = torch.zeros(sample.mask.shape)
        if average == "features":
            found = sliding_window(backbone, pixels, window_px=32, stride_px=32).clone()
            said = F.conv2d(found, weights["weight"][:, :, None, None], weights["bias"])
            scores += F.interpolate(said, sample.mask.shape, mode="bilinear")
        for top in (0, 8) if average == "logits" else ():
            for left in (0, 32, 38):
                place = slice(top, top + 32), slice(left, left + 32)
                found = backbone.features(pixels[:, :, *place])
                said = F.conv2d(found, weights["weight"][:, :, None, None], weights["bias"])
                scores[:, :, *place] += F.interpolate(said, (32, 32), mode="bilinear")
                seen[place] += 1
    labels = (scores / seen.clamp(min=1))[0].argmax(dim=0).numpy()
    correct = [int(((labels == k) & (sample.mask == k)).sum()) for k in range(3)]
    assert counts.correct[0] == pytest.approx(correct, abs=4)  # ties of rounding
    assert sum(correct) > 100
