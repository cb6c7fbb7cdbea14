"""One experiment of a sweep: its spec, its seeds, its plan, and where MLflow shows it."""

import time

from spar_bench import track
from spar_bench.plan.trials import Plan, Trial
from spar_bench.results import Results
from spar_bench.session.collect import Collector
from spar_bench.session.mirror import LiveMirror
from spar_bench.session.results import results
from spar_bench.session.selection import note_sweep
from spar_bench.spec import LoadedSpec
from spar_bench.stage import digest
from spar_bench.store import Store


class Experiment:
    """An experiment while it is swept; `objectives` has the scores of a search, by trial."""

    def __init__(
        self, loaded: LoadedSpec, seeds: list[int], store: Store, tracking_uri: str
    ) -> None:
        self.loaded, self.seeds = loaded, seeds
        self.plan = Plan()
        self.objectives: dict[str, dict[str, float]] = {}
        self._store = store
        self._spec_hash = digest([loaded.spec_hash, seeds])
        self.mirror = LiveMirror(
            tracking_uri,
            store,
            track.SweepRecord(
                experiment=loaded.experiment,
                spec_hash=self._spec_hash,
                question=loaded.spec.question,
                params={"seeds": seeds},
                started_ms=time.time_ns() // 1_000_000,
            ),
        )

    @property
    def name(self) -> str:
        """Its name."""
        return self.loaded.experiment

    def note(self) -> list[int]:
        """Record that it is swept; return the seeds of earlier sweeps that this one leaves out."""
        return note_sweep(self.loaded, self._store, self.seeds)

    def show(self, trial: Trial) -> None:
        """Show a trial that has ended, though it is not timed yet."""
        self.mirror.show(self._results([trial]))

    def finish(self) -> Results:
        """Save the results, end the MLflow run, and return the former."""
        found = self._results()
        found.save(self._store.results / self.name)
        self.mirror.end(found)
        return found

    def _results(self, trials: list[Trial] | None = None) -> Results:
        return results(
            Collector(self.name, self.plan, self._store),
            self.loaded,
            spec_hash=self._spec_hash,
            seeds=self.seeds,
            objectives=self.objectives,
            trials=trials,
        )
