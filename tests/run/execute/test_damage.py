"""Stages whose files were damaged later: reported, and made again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spar_bench.plan.trials import Plan
from spar_bench.stage import MANIFEST
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.execute.conftest import contents
from tests.run.tiny import finished, of_kind, plan_of, scheduler, settings

DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-3] + b"abc"),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("images", "truncated"),
        ("targets", "missing"),
        ("student", "altered"),
        ("student", "truncated"),
        ("evaluate", "altered"),
        ("evaluate", "missing"),
        ("cost", "altered"),
    ],
)
def test_damaged_stage_is_told_of_and_made_anew(
    plan: Plan, filled: Store, undisturbed: dict[str, Any], kind: str, how: str
) -> None:
    folder = filled.root / "stages" / kind / of_kind(plan, kind)[0].fingerprint
    DAMAGES[how](next(path for path in sorted(folder.iterdir()) if path.name != MANIFEST))
    making, notes = scheduler(plan, filled)

    making.make(plan.stages)

    assert notes.kinds("damaged") == notes.kinds("made") == [kind]
    assert contents(filled, plan) == undisturbed


def test_one_damaged_target_costs_one_target(
    plan: Plan, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [targets] = of_kind(plan, "targets")
    folder = filled.root / "stages" / "targets" / targets.fingerprint
    (folder / "000001.safetensors").write_bytes(b"")
    written = list[str]()

    def write(path: Path, content: bytes) -> None:
        written.append(path.name)
        path.write_bytes(content)

    monkeypatch.setattr("spar_bench.run.writer.replace_bytes", write)

    scheduler(plan, filled)[0].make([targets.fingerprint])

    assert written == ["000001.safetensors"]
    assert finished(filled, targets).summary["n_images"] == 3


def test_damaged_student_whose_targets_are_not_kept_is_mended(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.shelf.HASH_WHOLE_BYTES", 0)  # checksums are seen when read
    plan = plan_of(settings(clip, photographs, teacher__keep=False, evaluate__methods=["student"]))
    scheduler(plan, store)[0].make(plan.stages)
    [student], [evaluation] = of_kind(plan, "student"), of_kind(plan, "evaluate")
    store.discard(evaluation.fingerprint)
    DAMAGES["altered"](store.root / "stages/student" / student.fingerprint / TRAINED_FILE)
    making, notes = scheduler(plan, Store(store.root))

    making.make(plan.stages)

    assert notes.kinds("made") == ["student", "evaluate"]
    assert making.outcomes[evaluation.fingerprint] == "made"


def test_damage_found_while_an_input_is_read_is_mended_and_the_work_goes_on(
    plan: Plan, filled: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.shelf.HASH_WHOLE_BYTES", 0)  # checksums are seen when read
    [targets], [student] = of_kind(plan, "targets"), of_kind(plan, "student")
    folder = filled.root / "stages" / "targets" / targets.fingerprint
    DAMAGES["altered"](folder / "000002.safetensors")
    filled.discard(student.fingerprint)
    making, notes = scheduler(plan, filled)

    making.make(plan.stages)

    assert notes.kinds("damaged") == ["targets"]
    assert notes.kinds("made") == ["targets", "student"]
    assert contents(filled, plan) == undisturbed
