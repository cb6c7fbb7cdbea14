"""What a plan costs grows with its trials, not with their product with stages."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spar_bench import sources
from spar_bench.plan.trials import Plan, Trial
from spar_bench.session.planning import plan_sweep
from tests.small import UNTIMED, write_spec

GRID = """\
sweep:
  - grid: {student.learning_rate: [1.0e-3, 2.0e-3, 3.0e-3, 4.0e-3], student.loss: [mse, l1]}
"""


def test_plan_parses_a_plug_in_once_and_asks_each_trial_for_its_stages_three_times(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, asked = Counter[str](), Counter[str]()
    parse, of_trial = ast.parse, Plan.of_trial

    def counted_parse(source: str, *args: Any, **options: Any) -> Any:
        parsed[source] += 1
        return parse(source, *args, **options)

    def counted_of_trial(self: Plan, trial: Trial) -> set[str]:
        asked[trial.name] += 1
        return of_trial(self, trial)

    monkeypatch.setattr(ast, "parse", counted_parse)
    monkeypatch.setattr(Plan, "of_trial", counted_of_trial)
    sources._tree.cache_clear()

    view = plan_sweep(write_spec(UNTIMED + GRID))

    assert len(view.plan.trials) == 8
    assert set(asked.values()) == {3}  # what code may have changed, is wanted, is shared
    assert set(parsed.values()) == {1}


def test_stage_of_a_plan_counts_the_trials_that_share_it(here: Path) -> None:
    view = plan_sweep(write_spec(UNTIMED + GRID))

    by_kind = {(one.stage.kind, one.n_trials) for one in view.stages}

    assert by_kind == {
        ("images", 8), ("targets", 8), ("text", 8), ("student", 1), ("evaluate", 1),
        ("evaluate", 8), ("cost", 8),
    }  # fmt: skip
