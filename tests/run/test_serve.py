"""A worker process's side of the conversation: what it logs and prints goes where it is found."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spar_bench.engine.parent import Parent
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.run import work as making
from spar_bench.run.context import Context
from spar_bench.run.serve import work
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.run.tiny import of_kind, plan_of, settings


class Messages(Parent):
    """A parent that says a few things and ends."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self._said = [*said, None]
        super().__init__(io.StringIO())

    def hear(self) -> dict[str, Any] | None:
        return self._said.pop(0)

    def _listen(self, stream: Any) -> None:
        """Never end the process of the tests."""


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Keep the handlers of the tests' process."""
    logger = logging.getLogger("spar_bench")
    before = list(logger.handlers)
    yield
    logger.handlers[:] = before


def test_what_a_batch_logs_is_told_and_what_it_prints_is_in_its_log(
    clip: Path, photographs: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(settings(clip, photographs))
    path = WorkPlan(plan.stages, Retries()).save(store.root / "plans")
    [first], [second] = of_kind(plan, "images"), of_kind(plan, "text")

    def make(stages: list[Stage], context: Context) -> list[Exception]:
        os.write(2, b"a library says\n")
        logging.getLogger("spar_bench.x").warning("we say")
        if stages[0].kind == "images":
            return [MemoryError("no")]
        raise MemoryError("a bug")

    monkeypatch.setattr(making, "maker_of", lambda kind: make)
    told = [{"plan": str(path), "make": [one.fingerprint]} for one in (first, second)]
    out = io.StringIO()

    work(path, [], store=store.root, device="cpu", parent=Messages(*told), out=out)

    events = [json.loads(line) for line in out.getvalue().splitlines()]
    logged = [event["text"] for event in events if event["kind"] == "log"]
    assert [text.splitlines()[0] for text in logged] == [
        "we say", f"stage {first.fingerprint[:12]} failed",
        "we say", f"stage {second.fingerprint[:12]} failed",
    ]  # fmt: skip
    for stage in (first, second):
        said = store.failures.said(stage.fingerprint)
        assert said[0] == "a library says"
        assert said[1].endswith("): we say")
        assert said[-1].startswith("MemoryError: ")


def test_batch_that_says_nothing_leaves_no_log(
    clip: Path, photographs: Path, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(settings(clip, photographs))
    path = WorkPlan(plan.stages, Retries()).save(store.root / "plans")
    [stage] = of_kind(plan, "images")
    told = {"plan": str(path), "make": [stage.fingerprint]}

    work(path, [], store=store.root, device="cpu", parent=Messages(told), out=io.StringIO())
    os.write(2, b"on the screen again")

    assert store.find(stage) is not None
    assert list(store.failures.folder.iterdir()) == []
    assert capfd.readouterr().err == "on the screen again"
