"""Students side by side: each as if alone, with pictures, targets and frozen blocks read once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spar_bench.components.flops import prefix_flops
from spar_bench.errors import Diverged, Interrupted, SparBenchError, Unreadable
from spar_bench.run import frozen, lockstep
from spar_bench.run.context import Context
from spar_bench.run.images import Pictures
from spar_bench.run.student import make_students
from spar_bench.run.teach import Targets
from spar_bench.run.training import Training
from spar_bench.stages.student import TRAINED_FILE, Stage, Summary
from spar_bench.store import Store
from tests.run.tiny import CPU, losses, of_kind, of_type, plan_of, scheduler, settings

RECIPES: list[dict[str, Any]] = [
    {"trainable": "last_1_blocks"},
    {"trainable": "all", "loss": "cosine", "schedule": "one_cycle"},
    {"trainable": "last_2_blocks", "optimiser": "sgd", "learning_rate": 1e-2},
    {"trainable": "mlp_of_last_2_blocks", "loss": "smooth_l1", "weight_decay": 0.1},
    {"trainable": "patch_embedding"},
    {"trainable": "attention_of_last_2_blocks", "optimiser": "muon"},
]
"""What students that train side by side may differ in."""


@pytest.fixture
def stages_of(clip: Path, photographs: Path) -> Any:
    """Return the student stages of recipes, and make what they are made from."""

    def build(
        store: Store, recipes: Sequence[dict[str, Any]], **others: Any
    ) -> tuple[list[Stage], Any]:
        points = [
            settings(
                clip,
                photographs,
                **{"student__epochs": 3, **others},
                **{f"student__{key}": value for key, value in recipe.items()},
            )
            for recipe in recipes
        ]
        plan = plan_of(*points)
        making, _ = scheduler(plan, store)
        making.make(one.fingerprint for one in of_kind(plan, "images") + of_kind(plan, "targets"))
        return of_type(plan, Stage), plan.stages

    return build


def made(stages: list[Stage], store: Store) -> dict[str, tuple[dict[str, Any], Any]]:
    """Make students together; return weights and loss curve of each by its title."""
    results = make_students(stages, Context(store, CPU))
    assert all(isinstance(one, Summary) for one in results), results
    return {one.title: outcome(one, store) for one in stages}


def outcome(stage: Stage, store: Store) -> tuple[dict[str, Any], Any]:
    """Return a student's weights and its loss curve."""
    folder = store.output(stage)
    return load_file(folder / TRAINED_FILE), losses(folder)


def require_same(found: Any, expected: Any) -> None:
    """Check that weights and loss curves are equal bit for bit."""
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"student__accumulate": 3},
        {"teacher__keep": False},
        {"images__fresh": True, "student__accumulate": 1},
        {"student__precision": "bfloat16"},
    ],
)
def test_students_side_by_side_become_what_they_would_alone(
    stages_of: Any, store: Store, tmp_path: Path, others: dict[str, Any]
) -> None:
    stages, _ = stages_of(store, RECIPES, **others)
    apart = Store(tmp_path / "apart")
    alone, _ = stages_of(apart, RECIPES, **others)

    together = made(stages, store)

    assert len({stage.batch_key for stage in stages}) == 1
    for stage in alone:
        require_same(together[stage.title], made([stage], apart)[stage.title])


@pytest.mark.parametrize("budget", [0, 3000, 1 << 30])
def test_frozen_blocks_change_nothing_however_little_of_them_is_kept(
    stages_of: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    apart = Store(tmp_path / "apart")
    expected = made(stages_of(apart, RECIPES)[0], apart)
    monkeypatch.setattr(frozen, "KEPT_BYTES", budget)

    found = made(stages_of(store, RECIPES)[0], store)

    for title, one in found.items():
        require_same(one, expected[title])


def test_what_students_share_is_read_once(
    stages_of: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, _ = stages_of(store, RECIPES)
    drawn, taught = list[int](), list[int]()
    rendered, read = Pictures.rendered, Targets.read

    def draw(self: Pictures, position: int) -> Any:
        drawn.append(position)
        return rendered(self, position)

    def teach(self: Targets, position: int, picture: Any) -> Any:
        taught.append(position)
        return read(self, position, picture)

    monkeypatch.setattr(Pictures, "rendered", draw)
    monkeypatch.setattr(Targets, "read", teach)
    context = Context(store, CPU)

    make_students(stages, context)

    assert sorted(drawn) == sorted(taught) == sorted([0, 1, 2] * 3)
    passes = [make_students([one], Context(store, CPU)) for one in stages]
    alone = sum(one.train_gflops for [one] in passes if isinstance(one, Summary))
    assert context.flops / 1e9 < 0.9 * alone


def test_work_is_what_was_planned(stages_of: Any, store: Store, photographs: Path) -> None:
    stages, planned = stages_of(store, RECIPES, images__short_side_px=[32, 32], images__crop=0.0)
    context = Context(store, CPU)

    make_students(stages, context)

    # Photographs have three sizes, while the plan assumes that all have the first one's.
    ratio = context.flops / 1e9 / stages[0].gflops_of_batch(stages, planned)
    apart = sum(one.estimate(planned).gflops for one in stages)
    assert ratio == pytest.approx(1, abs=0.25)
    assert stages[0].gflops_of_batch(stages, planned) < apart


def test_frozen_blocks_run_once_for_each_image(stages_of: Any, store: Store) -> None:
    recipes = [{"trainable": f"last_{n}_blocks"} for n in (1, 2)]
    few, _ = stages_of(store, recipes, student__epochs=1)
    many, _ = stages_of(store, recipes, student__epochs=5)

    once, often = (Context(store, CPU) for _ in range(2))
    make_students(few, once)
    [first, second] = make_students(many, often)

    assert isinstance(first, Summary)
    assert isinstance(second, Summary)
    sizes = few[0].places.sizes
    pictures = [picture.shape[-2:] for picture in _pictures(few[0], store)]
    blocks = {n: sum(prefix_flops(sizes, (h, w), n) for h, w in pictures) for n in (1, 2)}
    every_time = (first.train_gflops + second.train_gflops) * 1e9
    assert often.flops == pytest.approx(every_time - 5 * (blocks[1] + blocks[2]) + blocks[2])
    assert once.flops == pytest.approx(every_time / 5 - blocks[1])


def test_losses_are_read_every_few_steps_and_at_an_epochs_end(
    stages_of: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, _ = stages_of(store, RECIPES[:1])
    apart = Store(tmp_path / "apart")
    alone, _ = stages_of(apart, RECIPES[:1])
    settle, read = lockstep._settle, list[list[int]]()

    def settled(group: lockstep.Group) -> None:
        read.append([step.number for step in group.runs[0].unsettled])
        settle(group)

    with monkeypatch.context() as patch:
        patch.setattr(lockstep, "SETTLE_EVERY", {"cpu": 3})
        patch.setattr(lockstep, "_settle", settled)
        [found] = made(stages, store).values()

    assert read == [[0, 1], [2], [3], [4, 5]]
    [expected] = made(alone, apart).values()
    require_same(found, expected)


def _pictures(stage: Stage, store: Store) -> list[torch.Tensor]:
    from spar_bench.run.teach import open_images

    pictures = open_images(stage, Context(store, CPU))
    return [pictures[index] for index in range(len(pictures))]


def test_one_that_diverges_leaves_the_others(stages_of: Any, store: Store, tmp_path: Path) -> None:
    recipes = [RECIPES[0], {**RECIPES[1], "learning_rate": 1e30}, RECIPES[2]]
    stages, _ = stages_of(store, recipes)
    apart = Store(tmp_path / "apart")
    alone, _ = stages_of(apart, recipes)

    first, broken, last = make_students(stages, Context(store, CPU))

    assert isinstance(broken, Diverged)
    assert isinstance(first, Summary)
    assert isinstance(last, Summary)
    for place in (0, 2):
        title = stages[place].title
        require_same(outcome(stages[place], store), made([alone[place]], apart)[title])


def test_one_whose_loss_is_wrong_leaves_the_others(
    stages_of: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, _ = stages_of(store, RECIPES[:3])
    apart = Store(tmp_path / "apart")
    alone, _ = stages_of(apart, RECIPES[:3])
    calls = list[int]()

    def fails_later(student: Any, teacher: Any) -> Any:
        calls.append(1)
        return (student - teacher).mean() if len(calls) < 3 else 0.5

    monkeypatch.setattr("spar_bench.losses.cosine.loss", fails_later)

    first, wrong, last = make_students(stages, Context(store, CPU))

    assert isinstance(first, Summary)
    assert isinstance(wrong, SparBenchError)
    assert "loss 'cosine': must return a scalar" in str(wrong)
    assert isinstance(last, Summary)
    for place in (0, 2):
        title = stages[place].title
        require_same(outcome(stages[place], store), made([alone[place]], apart)[title])


def test_one_whose_state_cannot_be_read_now_leaves_the_others(
    stages_of: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, _ = stages_of(store, RECIPES[:2])
    closed, resume = store.scratch(stages[0]), Training.resume

    def resumed(self: Training, path: Path) -> None:
        if path.parent == closed:
            raise Unreadable(f"{path}: cannot be read now")
        resume(self, path)

    monkeypatch.setattr(Training, "resume", resumed)

    unread, other = make_students(stages, Context(store, CPU))

    assert isinstance(unread, Unreadable)
    assert isinstance(other, Summary)


@pytest.mark.parametrize("ahead", [(0,), (1, 2)])
def test_one_that_was_resumed_further_waits_for_the_others(
    stages_of: Any, store: Store, tmp_path: Path, ahead: tuple[int, ...]
) -> None:
    stages, _ = stages_of(store, RECIPES[:3])
    apart = Store(tmp_path / "apart")
    alone, _ = stages_of(apart, RECIPES[:3])
    looks = iter([False] * 4)

    def check(self: Context) -> None:
        if next(looks, True):
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "check", check)
        with pytest.raises(Interrupted):
            make_students([stages[place] for place in ahead], Context(store, CPU))

    found = made(stages, store)

    for stage in alone:
        require_same(found[stage.title], made([stage], apart)[stage.title])


def test_only_students_of_one_order_precision_and_teacher_go_side_by_side(
    clip: Path, photographs: Path
) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"student__epochs": 4},
        {"student__accumulate": 3},
        {"student__precision": "bfloat16"},
        {"images__count": 2},
        {"images__fresh": True},
        {"teacher__stride_px": 16},
    ]
    plan = plan_of(*(settings(clip, photographs, **one) for one in changes), seeds=(0, 1))

    students = of_type(plan, Stage)

    assert len({stage.batch_key for stage in students}) == len(students) == 2 * len(changes)
