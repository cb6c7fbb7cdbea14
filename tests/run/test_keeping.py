"""Students with targets kept in the store, and with targets computed when needed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from spar_bench.components.backbone import identity
from spar_bench.components.identity import ComponentIdentity
from spar_bench.run.teach import Teacher
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.tiny import finished, losses, of_kind, plan_of, scheduler, settings


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"student__epochs": 3, "student__trainable": "all", "student__accumulate": 1},
        {"teacher__precision": "bfloat16", "teacher__normalise": True},
    ],
)
def test_targets_that_are_not_kept_make_the_same_student(
    clip: Path, photographs: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    made = list[Finished]()
    for keep in (True, False):
        store = Store(tmp_path / str(keep))
        plan = plan_of(settings(clip, photographs, teacher__keep=keep, **changes))
        [student] = of_kind(plan, "student")
        making, notes = scheduler(plan, store)

        making.make([student.fingerprint])

        assert ("targets" in notes.kinds("made")) is keep
        made.append(finished(store, student))
    kept, computed = made
    assert kept.fingerprint == computed.fingerprint
    assert losses(kept.folder) == losses(computed.folder)
    assert kept.path(TRAINED_FILE).read_bytes() == computed.path(TRAINED_FILE).read_bytes()
    taken = ("teach_gflops", "train_seconds")
    same = [{k: v for k, v in one.summary.items() if k not in taken} for one in made]
    assert same[0] == same[1]
    assert kept.summary["teach_gflops"] == 0 < computed.summary["teach_gflops"]
    assert computed.manifest["made"]["gflops"] > kept.manifest["made"]["gflops"]


def test_weights_are_not_looked_at_for_each_image_that_is_taught(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[BackboneSpec]()

    def counted(spec: BackboneSpec) -> ComponentIdentity:
        looks.append(spec)
        return identity(spec)

    found = list[int]()
    for epochs in (1, 4):
        plan = plan_of(settings(clip, photographs, teacher__keep=False, student__epochs=epochs))
        [student] = of_kind(plan, "student")
        looks.clear()
        with monkeypatch.context() as patched:
            patched.setattr("spar_bench.run.context.identity", counted)
            scheduler(plan, store)[0].make([student.fingerprint])
        assert store.find(student) is not None
        found.append(len(looks))

    assert found[0] == found[1]  # 3 and 12 images were taught


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "altered": lambda content: content[:-3] + b"abc",
}


@pytest.mark.parametrize(
    ("how", "hashed_whole", "again"),
    [("emptied", True, {0, 1, 2}), ("altered", True, {0, 1, 2}), ("altered", False, {1})],
)
def test_kept_targets_are_read_where_they_need_not_be_kept_and_damaged_ones_left(
    clip: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    hashed_whole: bool,
    again: set[int],
) -> None:
    store, taught = Store(tmp_path / "store"), list[int]()
    if not hashed_whole:
        monkeypatch.setattr("spar_bench.shelf.HASH_WHOLE_BYTES", 0)
    kept = plan_of(settings(clip, photographs))
    scheduler(kept, store)[0].make(stage.fingerprint for stage in of_kind(kept, "targets"))
    plan = plan_of(settings(clip, photographs, teacher__keep=False))
    [student] = of_kind(plan, "student")
    real = Teacher.features

    def counted(teacher: Teacher, picture: Tensor, position: int) -> Tensor:
        taught.append(position)
        return real(teacher, picture, position)

    monkeypatch.setattr(Teacher, "features", counted)

    # A copy, since a process checks each file of a store once.
    damaged = Store(shutil.copytree(store.root, tmp_path / "damaged"))
    [path] = (damaged.root / "stages" / "targets").glob("*/000001.safetensors")
    path.write_bytes(DAMAGES[how](path.read_bytes()))

    scheduler(plan, store)[0].make([student.fingerprint])
    assert taught == []
    making, notes = scheduler(plan, damaged)
    making.make([student.fingerprint])

    assert notes.kinds("made") == ["student"]
    assert set(taught) == again
