"""Work along on an experiment that others sweep: make what nobody makes, until nothing is left."""

import logging
import threading
from pathlib import Path

from spar_bench.conflicts import read_specs
from spar_bench.opening import open_store
from spar_bench.plan.making import make_plan
from spar_bench.plan.suite import SuitePlan
from spar_bench.session.making import Making
from spar_bench.session.options import Options
from spar_bench.session.selection import (
    require_unedited,
    seeds_of,
    select_trials,
    stages_of_trials,
)
from spar_bench.session.watcher import Silent, Watcher

log = logging.getLogger(__name__)


def join(
    path: str | Path,
    options: Options | None = None,
    *,
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
) -> Making:
    """Make all stages of a spec or folder but timings; return what was made here, and what failed.

    Any number of processes may do so on one store, on any hosts, beside a sweep or before it: each
    stage is made once. A sweep then times and writes the results. The trials of a search are known
    only to the sweep that asks for them, and are left out.

    Raises:
        As `sweep`.
    """
    given = options or Options()
    specs, store, shown = read_specs(path), open_store(given.store), watcher or Silent()
    making = Making(store, given, shown, stop or threading.Event())
    plans = {
        loaded.experiment: make_plan(loaded.points, seeds_of(loaded, given.n_seeds), None)
        for loaded in specs
        if not loaded.search
    }
    for loaded in specs:
        if loaded.search:
            log.info("%s: a search's trials are left to the sweep that asks", loaded.experiment)
    if plans:
        plan = SuitePlan(plans).whole
        trials = select_trials(plan.trials, given.only)
        require_unedited(plan, trials, store)
        wanted = stages_of_trials(plan, trials, timed=False)
        shown.planned(plan, store)
        with making.open():
            making.scheduler(plan, wanted).make(wanted)
    return making
