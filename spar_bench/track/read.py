"""Read the mirror: experiments, and the results of an experiment's newest sweep."""

from pathlib import Path
from typing import Any

from spar_bench.errors import NotReady
from spar_bench.results import Results
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
        NotReady: it has none, or they were being written when its sweep was stopped.
        StoreError: the tracking store cannot be reached, written or read.
    """
    client = connect(uri)
    folder.mkdir(parents=True, exist_ok=True)
    with answering(uri):
        run = _newest(client, experiment)
        if run is None:
            raise NotReady(
                f"{uri}: must hold results of {experiment!r}, but no sweep of it has finished "
                "there; run spar-bench sweep on its spec first"
            )
        downloaded = Path(client.download_artifacts(run.info.run_id, RESULTS, str(folder)))
    if folder_digest(downloaded) != run.data.tags["spar.results"]:
        raise NotReady(
            f"{uri}: results of {experiment!r} must be whole, but their sweep was stopped while "
            "writing them; run spar-bench sweep on its spec again"
        )
    return Results.load(downloaded)


def _newest(client: Any, experiment: str) -> Any:
    """Return the parent run of the sweep that ended last, None if no sweep has."""
    found = client.get_experiment_by_name(experiment)
    parents = _parents(client, found.experiment_id) if found is not None else []
    if not parents:
        return None
    newest = found.tags.get("spar.newest")
    # The end time decides when the newest run was deleted by hand.
    return max(parents, key=lambda run: (run.info.run_id == newest, run.info.end_time or 0))


def _parents(client: Any, experiment_id: str) -> list[Any]:
    return search_runs(client, [experiment_id], "tags.`spar.results` LIKE '%'")
