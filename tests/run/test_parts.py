"""Parts of a stage's images, by its owner and by helpers, of which any may die or lag behind."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spar_bench.engine.events import Event
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import LeaseLost
from spar_bench.files import link
from spar_bench.lease_files import Lease
from spar_bench.leases import Host
from spar_bench.plan.trials import Plan
from spar_bench.run import parts as module
from spar_bench.run.context import Context
from spar_bench.run.parts import Parts
from spar_bench.run.work import Worker
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.run.execute.conftest import contents, plan, undisturbed, whole
from tests.run.execute.test_resuming import Killed
from tests.run.test_unreadable import damage, planned
from tests.run.tiny import CPU, finished, of_kind, scheduler, write_photographs

__all__ = ["plan", "undisturbed", "whole"]
KINDS = ["targets", "evaluate"]


@pytest.fixture(autouse=True)
def _parts_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_IMAGES", 1)


class Visited(Context):
    """A context in which something happens at the n-th look, while an image is worked on."""

    def visit(self, n_looks: int, happening: Callable[[], None]) -> None:
        self._looks, self._happening = iter(range(n_looks)), happening

    def check(self) -> None:
        super().check()
        if next(self._looks, None) is None:
            happening, self._happening = self._happening, lambda: None
            happening()


def batch_of(plan: Plan, kind: str) -> list[Stage]:
    """Return the most stages of a kind that are made together."""
    alike = dict[str, list[Stage]]()
    for stage in of_kind(plan, kind):
        alike.setdefault(stage.batch_key, []).append(stage)
    return max(alike.values(), key=len)


def with_inputs(plan: Plan, store: Store, batch: list[Stage]) -> None:
    """Make what a batch is made from."""
    scheduler(plan, store)[0].make({key for stage in batch for key in stage.inputs.values()})


def helper_on(store: Store, plan: Plan, **options: Any) -> tuple[Worker, list[Event]]:
    """Return another process's worker on a store, and its events."""
    context = Context(Store(store.root, **options), CPU)
    return Worker(WorkPlan(plan.stages, Retries()), context), []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_looks", [0, 1])
def test_helper_does_what_is_free_and_the_owner_gathers_all(
    plan: Plan, store: Store, undisturbed: dict[str, Any], whole: Store, kind: str, n_looks: int
) -> None:
    batch, context = batch_of(plan, kind), Visited(store, CPU)
    with_inputs(plan, store, batch)
    helper, told = helper_on(store, plan)
    context.visit(n_looks, lambda: helper.help(batch, told.append))
    events = list[Event]()

    Worker(WorkPlan(plan.stages, Retries()), context).make(batch, events.append)

    assert [event.kind for event in told] == ["helping", *["helped"] * len(batch)]
    assert helper.context.flops > 0
    assert [event.kind for event in events if event.kind == "made"] == ["made"] * len(batch)
    for stage in batch:
        made, alone = (finished(one, stage).manifest["made"] for one in (store, whole))
        assert made["gflops"] == pytest.approx(alone["gflops"])
        assert made["seconds"] > 0
        assert not (store.root / "scratch" / stage.fingerprint).exists()
    scheduler(plan, store)[0].make(plan.stages)
    assert contents(store, plan) == undisturbed


@pytest.mark.parametrize("kind", KINDS)
def test_owner_that_has_helped_before_counts_that_work_too(
    plan: Plan, store: Store, whole: Store, kind: str
) -> None:
    batch = batch_of(plan, kind)
    with_inputs(plan, store, batch)
    dying, worker = Visited(store, CPU), helper_on(store, plan)[0]

    def helped_then_killed() -> None:
        worker.help(batch, lambda _: None)
        raise Killed

    dying.visit(1, helped_then_killed)
    with pytest.raises(Killed):
        Worker(WorkPlan(plan.stages, Retries()), dying).make(batch, lambda _: None)

    worker.make(batch, lambda _: None)

    for stage in batch:
        made, alone = (finished(one, stage).manifest["made"] for one in (store, whole))
        assert made["gflops"] == pytest.approx(alone["gflops"])


def test_helper_that_thinks_of_another_batch_leaves_nothing(plan: Plan, store: Store) -> None:
    batch, context = batch_of(plan, "evaluate"), Visited(store, CPU)
    assert len(batch) > 1
    with_inputs(plan, store, batch)
    helper, told = helper_on(store, plan)
    context.visit(1, lambda: helper.help(batch[:1], told.append))

    Worker(WorkPlan(plan.stages, Retries()), context).make(batch, lambda _: None)

    assert [event.kind for event in told] == ["helping", "helped"]
    assert helper.context.flops == 0
    assert list((store.root / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_who_helped_on_another_device_is_recorded(
    plan: Plan, store: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, context = batch_of(plan, kind), Visited(store, CPU)
    with_inputs(plan, store, batch)
    helper, _ = helper_on(store, plan)

    def happening() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Context, "where", "a GPU (elsewhere)")
            helper.help(batch, lambda _: None)

    context.visit(1, happening)

    Worker(WorkPlan(plan.stages, Retries()), context).make(batch, lambda _: None)

    for stage in batch:
        assert finished(store, stage).manifest["made"]["helped_by"] == ["a GPU (elsewhere)"]


@pytest.mark.parametrize("kind", KINDS)
def test_helper_that_comes_too_late_leaves_nothing(
    plan: Plan, whole: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(plan, kind)
    helper, told = helper_on(whole, plan)

    helper.help(batch, told.append)
    with whole.lock([batch[0].fingerprint], on_wait=lambda _: None, poll=lambda: None):
        helper.help(batch, told.append)  # it is published, and its owner has yet to go

    assert [event.kind for event in told] == 2 * ["helping", *["helped"] * len(batch)]
    assert list((whole.root / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_in_a_helper_is_the_owners_to_tell(
    plan: Plan, store: Store, undisturbed: dict[str, Any], kind: str, monkeypatch: Any
) -> None:
    batch, context = batch_of(plan, kind), Visited(store, CPU)
    with_inputs(plan, store, batch)
    helper, told = helper_on(store, plan)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    def happening() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("spar_bench.run.reader.Reader.features", fail)
            patch.setattr("spar_bench.run.teach.sliding_window", fail)
            patch.setattr("spar_bench.run.segment.Segmenter.read", fail)
            helper.help(batch, told.append)

    context.visit(1, happening)

    Worker(WorkPlan(plan.stages, Retries()), context).make(batch, lambda _: None)

    assert [event.kind for event in told] == ["helping", *["helped"] * len(batch)]
    scheduler(plan, store)[0].make(plan.stages)
    assert contents(store, plan) == undisturbed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_links", [0, 1])
def test_owner_that_is_killed_while_it_gathers_is_followed_by_one_that_ends_the_same(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    n_links: int,
) -> None:
    batch, links = batch_of(plan, kind), iter(range(n_links))
    with_inputs(plan, store, batch)

    def die(path: Path, name: Path) -> None:
        if next(links, None) is None:
            raise Killed
        link(path, name)

    making, _ = scheduler(plan, store)
    with monkeypatch.context() as patch:
        patch.setattr("spar_bench.run.teach.link", die)
        patch.setattr("spar_bench.run.evaluate.link", die)
        with pytest.raises(Killed):
            making.make([stage.fingerprint for stage in batch])
    again = Store(store.root)

    scheduler(plan, again)[0].make(plan.stages)

    assert contents(again, plan) == undisturbed


def test_part_that_lags_behind_is_taken_over_and_published_once(plan: Plan, store: Store) -> None:
    [stage] = of_kind(plan, "targets")
    slow = Context(Store(store.root, lease_s=0.2, host=Host("there", "kernel")), CPU)
    quick = Context(Store(store.root, lease_s=0.2), CPU)
    with closing(Parts([stage], 1, slow)) as lagging, closing(Parts([stage], 1, quick)) as parts:
        late = lagging.take()
        assert late is not None
        assert parts.take() is None
        for lease in slow.store.leases._held.values():
            assert isinstance(lease, Lease)
            lease.renew = lambda: None  # type: ignore[method-assign]
        while (part := parts.take()) is None:
            parts.wait()
        (part.folder / "by").write_text("quick")
        parts.finish(part)
        late.folder.mkdir(exist_ok=True)  # what it wrote was adopted; it writes on
        (late.folder / "by").write_text("late")

        with pytest.raises(LeaseLost):
            lagging.finish(late)

        assert [path.name for path in parts.folder.iterdir()] == ["000"]
        assert (parts.folder / "000" / "by").read_text() == "quick"


def test_what_a_dead_helper_wrote_of_its_part_is_adopted(plan: Plan, store: Store) -> None:
    [stage] = of_kind(plan, "targets")
    dead, alive = Context(Store(store.root), CPU), Context(Store(store.root), CPU)
    parts = Parts([stage], 2, dead)
    part = parts.take()
    assert part is not None
    (part.folder / "half").write_text("done")
    parts.close()

    with closing(Parts([stage], 2, alive)) as others:
        found = others.take()
        assert found is not None
        assert (found.index, found.images) == (0, range(1))
        assert (found.folder / "half").read_text() == "done"
        assert not part.folder.exists()


@pytest.mark.parametrize("n_images", [1, 3, 4, 64, 65, 1000])
def test_every_image_is_in_one_part(
    plan: Plan, store: Store, n_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_IMAGES", 4)
    context = Context(store, CPU)
    with closing(Parts(of_kind(plan, "targets"), n_images, context)) as parts:
        found = list[int]()
        n_parts = 0
        while (part := parts.take()) is not None:
            found += part.images
            n_parts += 1
            assert parts.share() == pytest.approx(part.images.start / n_images)
            parts.finish(part)
        assert parts.are_done()
        assert len(parts.gathered()) == n_parts <= min(64, -(-n_images // 4))
    assert found == list(range(n_images))


@pytest.mark.parametrize("lost", [[1], [0, 2], [3], [0, 1, 2]])
def test_images_that_are_left_out_do_not_move_what_is_kept_of_others(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    data = write_photographs(tmp_path / "data", n_val=6)
    for index in lost:
        damage(data / "val_images" / f"{index}.png")
    plan = planned(clip, data, "skip")
    apart, together = Store(tmp_path / "apart"), Store(tmp_path / "together")
    [stage] = of_kind(plan, "evaluate")

    scheduler(plan, apart)[0].make([stage.fingerprint])
    monkeypatch.setattr(module, "LEAST_IMAGES", 100)
    scheduler(plan, together)[0].make([stage.fingerprint])

    found, expected = (finished(one, stage) for one in (apart, together))
    assert found.manifest["files"] == expected.manifest["files"]
    assert found.summary == expected.summary
    assert {f"preview_{i}.safetensors" for i in range(min(4, 6 - len(lost)))} == {
        name for name in found.manifest["files"] if name.startswith("preview")
    }
