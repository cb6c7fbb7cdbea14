"""Weights of DINOv3 and dino.txt: files that are read, refused, imported or exported."""

import json
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import spar_bench as sb
from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.session.exchange import import_student
from tests.backbones.dinov3 import reference, tiny
from tests.backbones.dinov3.tiny import load, spec
from tests.backbones.proofs import CLOSE, distance


def test_timms_file_reads_as_metas(
    tmp_path: Path,
    small: Path,
    backbone: DinoV3Txt,
    trunk: dict[str, Tensor],
    dinotxt: dict[str, Tensor],
) -> None:
    ours = tiny.timms({k: v for k, v in trunk.items() if k in tiny.trunk_shapes()})
    save_file(ours, tmp_path / "model.safetensors")
    torch.save(dinotxt, tmp_path / tiny.TEXT_FILE)
    images = torch.randn(1, 3, 24, 40)

    with torch.no_grad():
        found = load(small, path=str(tmp_path)).features(images)
        expected = backbone.features(images)

    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("file", "name", "change", "told"),
    [
        (tiny.TRUNK_FILE, "norm.bias", None, r"norm\.bias must be of shape \(128,\), but is abs"),
        (tiny.TRUNK_FILE, "more", (3,), r"more must be absent, but is of shape \(3,\)"),
        (tiny.TRUNK_FILE, "cls_token", (1, 1, 64), r"\(1, 1, 128\), but is of shape \(1, 1, 64\)"),
        (
            tiny.TRUNK_FILE,
            "blocks.1.attn.qkv.bias",
            (384,),
            r"qkv\.bias is not zero, as it is in",
        ),
        (
            tiny.TRUNK_FILE,
            "patch_embed.proj.weight",
            (128, 3, 4, 4),
            r"but is of shape \(128, 3, 4",
        ),
        (tiny.TEXT_FILE, "logit_scale", None, r"logit_scale must be of shape \(1,\), but is abs"),
        (tiny.TEXT_FILE, "text_model.more", (3,), r"text_model\.more must be absent"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(
    tmp_path: Path, small: Path, file: str, name: str, change: Any, told: str
) -> None:
    for path in (small / "weights").iterdir():
        state = torch.load(path, weights_only=True)
        if path.name == file:
            state.pop(name, None)
            state |= {} if change is None else {name: torch.ones(change)}
        torch.save(state, tmp_path / path.name)

    with pytest.raises(NotReady, match=told) as caught:
        load(small, path=str(tmp_path))

    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_folder_without_the_second_file_is_not_ready(tmp_path: Path, small: Path) -> None:
    copyfile(small / "weights" / tiny.TRUNK_FILE, tmp_path / tiny.TRUNK_FILE)

    with pytest.raises(NotReady, match=r"logit_scale must be of shape \(1,\), but is absent"):
        load(small, path=str(tmp_path))


def test_two_trunks_in_a_folder_are_refused(tmp_path: Path, small: Path) -> None:
    copytree(small / "weights", tmp_path, dirs_exist_ok=True)
    save_file(tiny.draw({"norm.weight": (tiny.WIDTH,)}, 7), tmp_path / "other.safetensors")

    with pytest.raises(NotReady, match=r"trunk\.pth: must be the only file with norm\.weight"):
        load(small, path=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02cos\nsystem\n."])
def test_file_that_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, small: Path, content: bytes
) -> None:
    for name in (tiny.TRUNK_FILE, tiny.TEXT_FILE):
        (tmp_path / name).write_bytes(content)

    with pytest.raises(NotReady, match=r"\.pth: must be a complete file of") as caught:
        load(small, path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_trunk_under_a_trainers_key_is_read(tmp_path: Path, small: Path) -> None:
    copytree(small / "weights", tmp_path, dirs_exist_ok=True)
    trunk = torch.load(tmp_path / tiny.TRUNK_FILE, weights_only=True)
    torch.save({"model": trunk, "epoch": 3}, tmp_path / tiny.TRUNK_FILE)
    images = torch.randn(1, 3, 24, 40)

    found, expected = load(small, path=str(tmp_path)), load(small)

    with torch.no_grad():
        assert torch.equal(found.features(images), expected.features(images))


def test_random_weights_are_the_same_each_time(small: Path) -> None:
    images = torch.randn(1, 3, 24, 40)
    before = torch.get_rng_state()

    first, second = (load(small, weights="random", path=None) for _ in range(2))

    with torch.no_grad():
        assert torch.equal(first.features(images), second.features(images))
    assert torch.equal(first.encode_text(["tree"]), second.encode_text(["tree"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_papers_checkpoint_is_the_student_it_holds(tmp_path: Path, small: Path) -> None:
    trunk = tiny.metas(tiny.draw(tiny.trunk_shapes(), seed=5))
    dinotxt: dict[str, Tensor] = torch.load(small / "weights" / tiny.TEXT_FILE, weights_only=True)
    whole = {f"visual_model.backbone.{name}": tensor for name, tensor in trunk.items()} | dinotxt
    state = {f"segmentor.net.model.{name}": tensor for name, tensor in whole.items()}
    torch.save({"state_dict": state}, tmp_path / "spar.ckpt")
    images = torch.randn(1, 3, 24, 40)

    for read_out in ("patch_tokens", "head_patch_tokens"):
        student = import_student(
            tmp_path / "spar.ckpt", spec(small, read_out=read_out), store=tmp_path / "store"
        )
        with torch.no_grad():
            found = sb.load_backbone(student.folder).features(images)

        head = dinotxt if read_out == "head_patch_tokens" else None
        assert distance(found, reference.features(trunk, images, head)) < CLOSE


def test_checkpoint_of_another_model_is_refused(backbone: DinoV3Txt) -> None:
    with pytest.raises(KeyError, match="it lacks 'cls_token', under any prefix"):
        backbone.from_checkpoint({"visual.proj": torch.zeros(3)})


def test_export_is_read_by_timm_with_the_periods_rounded(
    tmp_path: Path, backbone: DinoV3Txt, with_head: DinoV3Txt
) -> None:
    exported, images = backbone.export("timm"), torch.randn(1, 3, 32, 32)
    save_file(exported.state, tmp_path / exported.weights_name)
    (tmp_path / exported.config_name).write_text(json.dumps(exported.config))

    with torch.no_grad():
        theirs, ours = exported.check(tmp_path, images)

    assert torch.allclose(theirs, ours, rtol=1e-5, atol=1e-6)
    assert "bfloat16" in exported.config["pretrained_cfg"]["notes"][0]
    for refused, library in ((backbone, "open_clip"), (with_head, "timm")):
        with pytest.raises(SparBenchError, match="only timm has DINOv3's trunk"):
            refused.export(library)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model: vit_base_patch16_224", "model: must be one of timm's DINOv3, but got 'vit_base_"),
        ("model: vit_wide_dinov3", "model: must be one of timm's DINOv3, but got 'vit_wide_dino"),
        ("", r"other_keys\.json: must list the weights of dino\.txt with their shapes, but"),
    ],
)
def test_data_file_that_cannot_be_built_is_refused(
    tmp_path: Path, small: Path, change: str, told: str
) -> None:
    stated = tiny.CARD.replace("model: vit_small_patch16_dinov3", change) if change else tiny.CARD
    (tmp_path / "other.yaml").write_text(stated)

    with pytest.raises(SparBenchError, match=told) as caught:
        load(small, name=str(tmp_path / "other.yaml"))
    assert "\n" not in str(caught.value)
