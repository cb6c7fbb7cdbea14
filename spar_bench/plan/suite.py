"""Several experiments in one plan: shared stages are made once, all is timed in one session."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from spar_bench.plan.trials import Plan, PlannedCost, PlannedSizes, Trial
from spar_bench.stages import latency

Line = TypeVar("Line", PlannedCost, PlannedSizes)


class SuitePlan:
    """The plan of each of some experiments, and the `whole` that a sweep of all of them makes.

    Trials and groups of the whole are named after their experiments, `<experiment>/<trial>`. Of one
    experiment, its plan is the whole, if that is not `one_of_several` wholes: a search is planned
    beside the grids.
    """

    def __init__(self, plans: Mapping[str, Plan], *, one_of_several: bool = False) -> None:
        self.plans = dict(plans)
        self._is_alone = len(self.plans) == 1 and not one_of_several
        self.whole = next(iter(self.plans.values())) if self._is_alone else self._merged()
        self.share_timings()

    def trials(self) -> dict[str, tuple[str, Trial]]:
        """Return the experiment and the trial of its own plan for each trial of the whole."""
        own = [(name, trial) for name, plan in self.plans.items() for trial in plan.trials]
        if self._is_alone:
            return {trial.name: (name, trial) for name, trial in own}
        return {f"{name}/{trial.name}": (name, trial) for name, trial in own}

    def share_timings(self) -> None:
        """Have each experiment timed in the whole's session."""
        if self.whole.latency is not None:
            session = self.whole.session
            for plan in self.plans.values():
                if plan.latency is not None:
                    plan.time_in(session)

    def _merged(self) -> Plan:
        whole = Plan(keep_pruned=all(plan.keep_pruned for plan in self.plans.values()))
        for name, plan in self.plans.items():
            whole.trials += [_named(name, trial) for trial in plan.trials]
            whole.costs += [_of_experiment(name, line) for line in plan.costs]
            whole.sizes += [_of_experiment(name, line) for line in plan.sizes]
            for fingerprint, stage in plan.stages.items():
                if fingerprint != plan.latency:
                    whole.stages.setdefault(fingerprint, stage)
        session = _session(self.plans.values())
        if session is not None:
            whole.time_in(session)
        return whole


def _named(experiment: str, trial: Trial) -> Trial:
    point = replace(trial.point, group=f"{experiment}/{trial.group}")
    return replace(trial, name=f"{experiment}/{trial.name}", point=point)


def _of_experiment(experiment: str, line: Line) -> Line:
    return replace(line, point=replace(line.point, group=f"{experiment}/{line.point.group}"))


def _session(plans: Iterable[Plan]) -> latency.Stage | None:
    """Return the session in which everything that plans time is timed; None if nothing is."""
    sessions = [plan.session for plan in plans if plan.latency is not None]
    if not sessions:
        return None
    timed = [
        (one, session.places.timed[key])
        for session in sessions
        for key, one in session.settings.timed.items()
    ]
    seconds = max(session.settings.seconds for session in sessions)
    return latency.Stage.of(timed, sessions[0].settings.machine, seconds=seconds)
