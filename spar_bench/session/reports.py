"""Write the reports of finished sweeps from the tracking store, without torch."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from spar_bench import report, track
from spar_bench.errors import MixedProtocols, NotReady
from spar_bench.files import writing
from spar_bench.results import Results
from spar_bench.spec.read import experiment_name
from spar_bench.track.uri import sqlite_path

_LONGEST_PART = 255  # bytes; common file systems allow no longer names


def write_report(
    experiments: str | Iterable[str] = (),
    *,
    folder: str | Path = Path("reports"),
    tracking_uri: str | None = None,
    mix_protocols: bool = False,
    on_written: Callable[[str, list[Path]], None] | None = None,
) -> dict[str, list[Path]]:
    """Write the tables and figures of finished sweeps; returns their files by experiment.

    Args:
        experiments: One or more names, or their specs' paths; none: all in the tracking store.
        folder: Each experiment gets its own folder in it.
        tracking_uri: Where the sweeps were mirrored to.
        mix_protocols: Allow rows of different protocols in a table, with a column that shows them.
        on_written: Receives each experiment and its files once they are written.

    Raises:
        NotReady: there is no finished sweep, or it has no finished trial, or its name is not valid
            for a folder; reports of the other experiments are written.
        MixedProtocols: rows of one data set have protocols that no column distinguishes.
        StoreError: the tracking store cannot be read, or the folder is not writable.
    """
    uri, folder = track.tracking_uri(tracking_uri), Path(folder)
    written, refused = {}, list[NotReady | MixedProtocols]()
    asked = [experiments] if isinstance(experiments, str) else experiments
    for name in _reported(uri, asked):
        try:
            results, own = _results(uri, name), _own_folder(uri, name, folder)
            with writing(own):
                written[name] = report.write(results, own, mix_protocols=mix_protocols)
        except (NotReady, MixedProtocols) as error:  # the others are still written
            refused.append(error)
            continue
        if on_written is not None:
            on_written(name, written[name])
    if refused:
        raise type(refused[0])("\n".join(map(str, refused)))
    return written


def _results(uri: str, name: str) -> Results:
    """Return the results of a sweep in which a trial finished.

    Raises:
        NotReady: there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        results = track.read_results(uri, name, Path(scratch))
    if not any(row.status == "finished" for row in results.rows):
        n_trials = len({row.trial for row in results.rows})
        raise NotReady(
            f"{name}: must have a finished trial to report, but none of {n_trials} is; spar-bench "
            "status says why: fix it, then run the sweep again"
        )
    return results


def _reported(uri: str, asked: Iterable[str]) -> list[str]:
    """Return the experiments asked for, by name or by their specs' paths, or all."""
    database = sqlite_path(uri)
    is_there = database is None or database.exists()
    names = [experiment_name(Path(n)) if n.endswith((".yaml", ".yml")) else n for n in asked]
    if is_there and not names:
        names = track.experiments(uri)
    if not names or not is_there:
        raise NotReady(
            f"{uri}: must hold a finished sweep, but holds none; run `spar-bench sweep` on a spec "
            "first"
        )
    return names


def _own_folder(uri: str, experiment: str, folder: Path) -> Path:
    """Return the folder of an experiment's report; MLflow allows any name."""
    parts = experiment.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts):
        raise NotReady(
            f"{uri}: an experiment's name must be valid as a folder below {folder}, but got "
            f"{experiment!r}; rename it in MLflow"
        )
    return folder / experiment
