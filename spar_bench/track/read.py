"""Read the mirror: experiments, and the results of an experiment's newest sweep."""

from pathlib import Path
from typing import Any

from spar_bench.errors import NotReady
from spar_bench.near import did_you_mean, nearest, way_out
from spar_bench.results import Results, is_of_this_format
from spar_bench.spec.read import experiment_name
from spar_bench.track.client import answering, connect, experiment_ids, search_runs
from spar_bench.track.entry import folder_digest
from spar_bench.track.sweep_runs import RESULTS


def experiments(uri: str) -> list[str]:
    """Return the names of the experiments that have results, sorted.

    Raises:
        StoreError: the tracking store cannot be reached, written or read.
    """
    client = connect(uri)
    with answering(uri):
        return sorted(name for name, id_ in experiment_ids(client).items() if _parents(client, id_))


def read_results(uri: str, experiment: str, folder: Path) -> Results:
    """Download the results of an experiment's newest sweep into `folder`, and read them.

    Raises:
        NotReady: it has none, or they were being written when its sweep was stopped, or a version
            of spar-bench with another format wrote them.
        StoreError: the tracking store cannot be reached, written or read.
    """
    client = connect(uri)
    folder.mkdir(parents=True, exist_ok=True)
    with answering(uri):
        found = client.get_experiment_by_name(experiment)
        run = None if found is None else _newest(client, found)
        if run is None:
            others = [] if found is not None else experiments(uri)
            raise NotReady(
                f"{uri}: must hold results of {experiment!r}, but no sweep of it has finished "
                f"there; {_way_out(experiment, others)}"
            )
        downloaded = Path(client.download_artifacts(run.info.run_id, RESULTS, str(folder)))
    if folder_digest(downloaded) != run.data.tags["spar.results"]:
        raise NotReady(
            f"{uri}: results of {experiment!r} must be whole, but their sweep was stopped while "
            "writing them; run spar-bench sweep on its spec again"
            if is_of_this_format(downloaded)
            else _of_another_version(uri, experiment)
        )
    try:
        return Results.load(downloaded)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise NotReady(_of_another_version(uri, experiment)) from error


def _of_another_version(uri: str, experiment: str) -> str:
    return (
        f"{uri}: results of {experiment!r} must be of this version's format, but another version "
        "wrote them and they cannot be read; run spar-bench sweep on its spec again: it writes "
        "them again and repeats no finished work"
    )


def _way_out(experiment: str, known: list[str]) -> str:
    """Return the end of the line about an experiment without results: its name may be misspelt."""
    first = "run spar-bench sweep on its spec first"
    swept_as = experiment_name(Path("experiments", f"{experiment}.yaml"))  # of a spec's own name
    near = swept_as if swept_as in known else nearest(experiment, known)
    if near is not None:
        return f"{did_you_mean(near)} If not, {first}"
    return f"{first}, or {way_out(experiment, known)}" if known else first


def _newest(client: Any, experiment: Any) -> Any:
    """Return the parent run of the sweep that ended last, None if no sweep has."""
    parents = _parents(client, experiment.experiment_id)
    if not parents:
        return None
    newest = experiment.tags.get("spar.newest")
    # The end time decides when the newest run was deleted by hand.
    return max(parents, key=lambda run: (run.info.run_id == newest, run.info.end_time or 0))


def _parents(client: Any, experiment_id: str) -> list[Any]:
    return search_runs(client, [experiment_id], "tags.`spar.results` LIKE '%'")
