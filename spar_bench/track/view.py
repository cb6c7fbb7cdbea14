"""A prepared view of a sweep in MLflow's interface: its trials, swept settings, metrics and plots.

MLflow opens an experiment with the trials collapsed and no metric shown. It stores a shared view as
an experiment's tag, opened by `?viewStateShareKey=`; this writes such a tag. A version of MLflow
that does not know it shows the plain page.
"""

import json
from typing import Any

from spar_bench.track.client import answering, connect, experiment_ids

VIEW_TAG = "mlflow.sharedViewState.spar"
_SECTION = "spar-trials"
_COLUMNS = ("miou", "gflops", "latency_p50_ms", "n_windows")
_PARALLEL = ("gflops", "latency_p50_ms", "miou")
_MOST_SCATTERS = 4


def view_state(spec_hash: str, swept: list[str]) -> str:
    """Return the view of one sweep's trials as MLflow's interface keeps it: JSON.

    Args:
        spec_hash: Hash of the spec whose trials are shown.
        swept: Dotted keys that the sweep varies: columns and axes.
    """
    columns = [f"params.`{key}`" for key in swept]
    columns += ["tags.`spar.headline`", *(f"metrics.`{name}`" for name in _COLUMNS)]
    charts = [{"type": "PARALLEL", "selectedParams": swept, "selectedMetrics": list(_PARALLEL)}]
    charts += [_scatter(name, "METRIC") for name in ("gflops", "latency_p50_ms")]
    charts += [_scatter(key, "PARAM") for key in swept[:_MOST_SCATTERS]]
    common = {"metricSectionId": _SECTION, "isGenerated": False, "deleted": False}
    section = {"uuid": _SECTION, "name": "Trials", "display": True, "isReordered": False}
    state = {
        "searchFilter": f"tags.`spar.spec` = '{spec_hash}' and tags.`spar.trial` LIKE '%'",
        # In order of time, MLflow would collapse the trials under their parent again.
        "orderByKey": "metrics.`miou`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [
            {**chart, **common, "uuid": f"spar-{index}", "runsCountToCompare": 100}
            for index, chart in enumerate(charts)
        ],
        "isAccordionReordered": True,  # otherwise sections are sorted by name
        "compareRunSections": [{**section, "isGenerated": False, "deleted": False}],
    }
    return json.dumps(state)


def view_urls(uri: str, host: str = "127.0.0.1", port: int = 5000) -> dict[str, str]:
    """Return the address of each experiment's prepared view, by experiment.

    Raises:
        StoreError: the tracking store cannot be reached, written or read.
    """
    client = connect(uri)
    with answering(uri):
        ids = experiment_ids(client)
        prepared = {
            name: id_ for name, id_ in ids.items() if VIEW_TAG in client.get_experiment(id_).tags
        }
    key = VIEW_TAG.rpartition(".")[2]
    return {
        name: f"http://{host}:{port}/#/experiments/{id_}/runs?workflowType=machine_learning"
        f"&compareRunsMode=CHART&viewStateShareKey={key}"
        for name, id_ in sorted(prepared.items())
    }


def _scatter(key: str, kind: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "xaxis": {"key": key, "type": kind},
        "yaxis": {"key": "miou", "type": "METRIC"},
    }
