"""Write the reports of finished sweeps from the store, without torch and MLflow."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spar_bench import plugin_code, report
from spar_bench.errors import MixedProtocols, NotReady, StoreError
from spar_bench.evaluations import StoredEvaluations
from spar_bench.files import YAML_ENDINGS, local, writing
from spar_bench.opening import open_store
from spar_bench.report.manifest import code_digest, note_origin, unchanged
from spar_bench.results import RESULTS_FILE, Results
from spar_bench.session.run_records import run_links
from spar_bench.session.selection import swept_suites
from spar_bench.spec.read import experiment_name
from spar_bench.stage import Damaged, digest
from spar_bench.store import DEFAULT_ROOT, Store
from spar_bench.suggest import did_you_mean, nearest, suggest
from spar_bench.track import Runs, Shown

if TYPE_CHECKING:
    from spar_bench.report.sections import Findings

log = logging.getLogger(__name__)


def write_report(
    experiments: str | Iterable[str] = (),
    *,
    folder: str | Path = Path("reports"),
    store: str | Path = DEFAULT_ROOT,
    suites: bool = False,
    mix_protocols: bool = False,
    columns: Sequence[str] = (),
    on_written: Callable[[str, list[Path]], None] | None = None,
) -> dict[str, list[Path]]:
    """Write tables and figures of finished sweeps; return their files by experiment.

    Args:
        experiments: One or more names of experiments or suites, or their specs' paths; none: all
            experiments that have results.
        folder: Each experiment and suite gets its own folder in it.
        store: Where the sweeps were run.
        suites: Without names: the suites that were swept, and their experiments.
        mix_protocols: Allow rows of different protocols in a table, with a column that shows them.
        columns: Keys of the columns of tables of accuracy and cost, in their order; none: all.
        on_written: Receives each experiment and its files once they are written.

    Raises:
        NotReady: there is no finished sweep, or its results cannot be read, or none of its trials
            is finished; reports of the other experiments are written.
        MixedProtocols: rows of one data set have protocols that no column distinguishes.
        UnknownName: there is no such column.
        StoreError: the store is of another format, or the folder is not writable.
    """
    opened, into = open_store(store, make=False), local(Path(folder))
    known = swept_suites(opened)
    all_suites = suites and not experiments
    asked = _some_suite(opened, known) if all_suites else swept_names(opened, experiments)
    reports = _Reports(opened, into, mix_protocols, columns, on_written or _ignore)
    for name in asked:
        reports.write(name, known.get(name, []))
    if reports.refused:
        errors = list(reports.refused.values())
        raise type(errors[0])("\n".join(map(str, errors)))
    return reports.written


@dataclass
class _Reports:
    """Writes reports, each once; `refused` says why some were not, by experiment."""

    store: Store
    folder: Path
    mix_protocols: bool
    columns: Sequence[str]
    on_written: Callable[[str, list[Path]], None]
    written: dict[str, list[Path]] = field(default_factory=dict)
    refused: dict[str, NotReady | MixedProtocols] = field(default_factory=dict)
    _findings: "dict[str, Findings]" = field(default_factory=dict)
    _results: dict[str, Results] = field(default_factory=dict)

    def write(self, name: str, members: list[str]) -> None:
        """Write the report of an experiment; or of a suite, after those of its members.

        One that was written of the same results in the same way, and not touched since, is kept. If
        the page of a suite is written, so are its members' reports, whose findings it shows.
        """
        if not members:
            self._experiment(name, may_keep=True)
            return
        parts = [self._made_of(one) for one in members]
        made_of = digest([name, members, parts]) if all(parts) else ""
        kept = unchanged(self.folder / name, made_of)
        for one in members:
            self._experiment(one, may_keep=kept is not None)
        if kept is None:
            self._suite(name, members, made_of)
        else:
            self._wrote(name, [*self.written.get(name, []), *kept])

    def _read(self, name: str) -> Results:
        """Return the results of an experiment, read once; raises as `read_results`."""
        if name not in self._results:
            self._results[name] = read_results(self.store, name)
        return self._results[name]

    def _made_of(self, name: str) -> str:
        """Return the digest of what decides an experiment's report; "" if anything is missing."""
        try:
            results = self._read(name)
            runs = _runs(self.store, results)
        except NotReady:
            return ""
        evaluations = {row.stages["evaluate"] for row in results.rows if "evaluate" in row.stages}
        if not all(map(self._is_there, evaluations)):
            return ""  # a warning says so, each time
        links = [[*key, *link] for key, link in sorted(runs.items())]
        way = [self.mix_protocols, *self.columns]
        return digest([results.as_json(), links, way, code_digest()])

    def _is_there(self, evaluation: str) -> bool:
        try:
            return self.store.opened("evaluate", evaluation) is not None
        except Damaged:
            return False

    def _experiment(self, name: str, *, may_keep: bool) -> None:
        if name in self._findings or name in self.refused:
            return
        folder, made_of = self.folder / name, self._made_of(name)
        kept = unchanged(folder, made_of) if may_keep else None
        if kept is not None:
            if name not in self.written:
                self._wrote(name, kept)
            return
        try:
            results = self._read(name)
            _require_finished(results)
            paths, self._findings[name] = _write(
                self.store,
                results,
                folder,
                mix_protocols=self.mix_protocols,
                columns=self.columns,
            )
            note_origin(folder, made_of)
        except (NotReady, MixedProtocols) as error:  # the others are still written
            self.refused[name] = error
            return
        self._wrote(name, paths)

    def _suite(self, name: str, members: list[str], made_of: str) -> None:
        found = [self._findings[one] for one in members if one in self._findings]
        if not found:
            return
        lacking = [one for one in members if one in self.refused]
        folder = self.folder / name
        with writing(folder):
            paths = report.write_suite(name, found, folder, lacking=lacking)
            note_origin(folder, made_of)
        self._wrote(name, [*self.written.get(name, []), *paths])

    def _wrote(self, name: str, paths: list[Path]) -> None:
        self.written[name] = paths
        self.on_written(name, paths)


def _some_suite(store: Store, known: Iterable[str]) -> list[str]:
    """Return the names of all suites that were swept.

    Raises:
        NotReady: there is none.
    """
    names = list(known)
    if not names:
        raise NotReady(
            f"{store.place}: must hold a suite that was swept, but holds none; run `spar-bench "
            "sweep` on a folder of specs first"
        )
    return names


def _ignore(name: str, paths: list[Path]) -> None:
    """Tell nobody."""


def finished_experiments(store: Store) -> list[str]:
    """Return the names of the experiments that have results, sorted."""
    root = store.results
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(RESULTS_FILE))


def swept_names(store: Store, asked: str | Iterable[str]) -> list[str]:
    """Return experiments that are given by name or by their specs' paths, else all with results.

    Raises:
        NotReady: none has results.
    """
    known = finished_experiments(store)
    if not known:
        raise NotReady(
            f"{store.place}: must hold a finished sweep, but holds none; run `spar-bench sweep` on "
            "a spec first"
        )
    names = [asked] if isinstance(asked, str) else asked
    return [experiment_name(Path(n)) if n.endswith(YAML_ENDINGS) else n for n in names] or known


def read_results(store: Store, name: str) -> Results:
    """Return the results of an experiment's last sweep.

    Raises:
        NotReady: there are none, or they cannot be read, or a plug-in of this package that made
            them was edited under its VERSION.
    """
    known = finished_experiments(store)
    if name not in known:
        raise NotReady(
            f"{store.place}: must hold results of {name!r}, but no sweep of it has finished there; "
            f"{_suggest(name, known)}"
        )
    try:
        results = Results.load(store.results / name)
        made = (stage["made"] for stage in results.provenance["stages"].values())
        plugin_code.require_unedited(one.get("plugins", {}) for one in made)
        return results
    except StoreError as error:
        raise NotReady(str(error)) from error


def _require_finished(results: Results) -> None:
    """Refuse the results of a sweep in which no trial finished, with NotReady."""
    if not any(row.status == "finished" for row in results.rows):
        n_trials = len({row.trial for row in results.rows})
        raise NotReady(
            f"{results.experiment}: must have a finished trial to report, but none of {n_trials} "
            "is; spar-bench status says why: fix it, then run the sweep again"
        )


def _runs(store: Store, results: Results) -> Runs:
    """Return the runs that show a sweep's rows, as MLflow's mirror noted them; none without it.

    Raises:
        NotReady: the note cannot be read.
    """
    try:
        shown = Shown.load(store.results / results.experiment)
    except StoreError as error:
        raise NotReady(str(error)) from error
    return {} if shown is None else run_links(results, shown)


def _suggest(name: str, known: list[str]) -> str:
    """Return the end of the line about an experiment without results: its name may be misspelt."""
    first = "run spar-bench sweep on its spec first"
    swept_as = experiment_name(Path("experiments", f"{name}.yaml"))  # of a spec's own name
    closest = swept_as if swept_as in known else nearest(name, known)
    if closest is not None:
        return f"{did_you_mean(closest)} If not, {first}"
    return f"{first}, or {suggest(name, known)}" if known else first


def _write(
    store: Store,
    results: Results,
    folder: Path,
    *,
    mix_protocols: bool,
    columns: Sequence[str],
) -> "tuple[list[Path], Findings]":
    """Write one report; warn of evaluations that it would show, but that the store lacks."""
    evaluations, runs = StoredEvaluations(store), _runs(store, results)
    with writing(folder):
        written = report.write(
            results, evaluations, folder, mix_protocols=mix_protocols, columns=columns, runs=runs
        )
    n_missing = len(evaluations.missing)
    if n_missing:
        log.warning(
            "%s: %d %s must be in %s for differences, classes and pictures, but cannot be read "
            "there, and the report does without; run spar-bench sweep on its spec again, then "
            "report",
            results.experiment,
            n_missing,
            "evaluation" if n_missing == 1 else "evaluations",
            store.root,
        )
    return written
