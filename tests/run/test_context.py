"""Devices, what manifests record, and backbones built once."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spar_bench.errors import Interrupted, NotReady
from spar_bench.libraries import RECORDED
from spar_bench.run import context
from spar_bench.run.context import (
    Context,
    autocast,
    device_name,
    ignore,
    prepare_device,
)
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.tiny import CPU, write_clip
from tests.toy import Summary, toy


def test_device_that_is_not_there_is_told_in_one_line() -> None:
    for option in ("cuda:99", "gpu", "cuda:x"):
        with pytest.raises(NotReady, match=f"device: .* but got '{option}': .*; use cpu"):
            prepare_device(option, None)


def test_threads_are_set_and_tf32_is_off(store: Store) -> None:
    before = torch.get_num_threads()
    try:
        assert prepare_device("cpu", 3) == CPU
        assert torch.get_num_threads() == 3
        assert device_name(CPU).endswith(" x3")
        assert Context(store, CPU).machine.threads == 3
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_num_threads(before)


def test_autocast_of_float32_changes_nothing() -> None:
    x = torch.randn(4, 4)

    with autocast(CPU, "float32"):
        assert (x @ x).dtype == torch.float32
    for precision in ("bfloat16", "float16"):
        with autocast(CPU, precision):
            assert (x @ x).dtype == getattr(torch, precision)


def test_manifest_records_device_and_versions(store: Store) -> None:
    made = Context(store, CPU).made(seconds=1.5)

    assert made["seconds"] == 1.5
    assert made["device"].startswith("cpu ")
    assert torch.__version__.startswith(made["versions"]["torch"].split("+")[0])
    assert made["versions"].keys() == set(RECORDED)


def test_commit_of_an_environment_in_somebodys_repository_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "project" / ".venv" / "context.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    context._git(tmp_path, "init", "-q", "project")
    monkeypatch.setattr(context, "__file__", str(installed))
    context._commit.cache_clear()

    assert context._commit() is None

    context._commit.cache_clear()


def test_of_several_backbones_only_the_latest_is_held(clip: Path, store: Store) -> None:
    first = BackboneSpec(name="openclip", path=str(clip))
    second = BackboneSpec(name="openclip", path=str(clip), position_embedding="size")
    held = Context(store, CPU)

    held.backbone(first)
    latest = held.backbone(second)

    assert list(held._backbones.values()) == [latest]


def test_backbones_are_built_once_and_only_the_latest_student_is_kept(
    clip: Path, store: Store
) -> None:
    spec, held = BackboneSpec(name="openclip", path=str(clip)), Context(store, CPU)
    pretrained = held.backbone(spec)
    name = "transformer.resblocks.2.ln_2.weight"
    students = []
    for value in (2.0, 3.0):
        stage = toy(scale=value)
        with store.lock([stage.fingerprint], on_wait=ignore, poll=ignore):
            save_file({name: torch.full((16,), value)}, store.output(stage) / TRAINED_FILE)
            students.append(store.finish(stage, summary=Summary(), made={}))

    def weight(student: Finished) -> float:
        return float(held.backbone(spec, student).visual.state_dict()[name][0])

    assert held.backbone(spec) is pretrained
    assert [weight(student) for student in students] == [2.0, 3.0]
    assert held.backbone(spec, students[1]) is held.backbone(spec, students[1])
    assert len(held._backbones) == 2
    assert float(pretrained.visual.state_dict()[name][0]) not in (2.0, 3.0)


def test_of_several_refiners_only_the_latest_is_held(store: Store) -> None:
    held = Context(store, CPU)
    first, second = PluginSpec(name="lposs_self"), PluginSpec(name="lposs_self", k=7)

    one = held.refiner(first)

    assert held.refiner(first) is one
    assert held.refiner(second) is held.refiner(second)
    assert held.refiner(first) is not one


def test_weights_that_were_replaced_are_read_again(
    clip: Path, tmp_path: Path, store: Store
) -> None:
    folder = shutil.copytree(clip, tmp_path / "replaced")
    spec, making = BackboneSpec(path=str(folder)), Context(store, CPU)
    old = making.backbone(spec)
    shutil.rmtree(folder)
    write_clip(folder, seed=1)

    new = making.backbone(spec)

    assert making.backbone(spec) is new
    assert not torch.equal(*(one.features(torch.zeros(1, 3, 32, 32)) for one in (old, new)))


def test_asked_to_stop_it_stops_at_the_next_look(store: Store) -> None:
    held = Context(store, CPU)
    held.check()

    held.stop.set()

    with pytest.raises(Interrupted):
        held.check()
