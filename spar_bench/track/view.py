"""A prepared view of a sweep in MLflow's interface: its trials, what varies, metrics and plots.

MLflow opens an experiment with the trials collapsed and no metric shown. It stores a shared view as
an experiment's tag, opened by `?viewStateShareKey=`; this writes such a tag. A version of MLflow
that does not know it shows the plain page.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from spar_bench.track.client import answering, connect, experiments
from spar_bench.track.shown import HOST, PORT, address

VIEW = "spar"
"""Key of the view of an experiment's newest sweep."""

_SECTION = "spar-trials"
_METRICS = ("gflops", "latency_p50_ms", "n_windows", "train_gflops")
_MOST_SCATTERS = 4


def view_tag(key: str) -> str:
    """Return the experiment tag that keeps the view of that key."""
    return f"mlflow.sharedViewState.{key}"


def view_path(experiment_id: str, key: str) -> str:
    """Return the path of a view inside MLflow's interface, at whatever address it is served."""
    return (
        f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&compareRunsMode=CHART&viewStateShareKey={key}"
    )


def varying(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names that have at least two values among several mappings."""
    found: dict[str, set[Any]] = {}
    for value in values:
        for name, one in value.items():
            found.setdefault(name, set()).add(one)
    return [name for name, ones in found.items() if len(ones) > 1]


def view_state(
    spec_hash: str, params: Iterable[Mapping[str, str]], metrics: Iterable[Mapping[str, float]]
) -> str:
    """Return the view of one sweep's runs as MLflow's interface keeps it: JSON.

    Columns and axes are what varies among the runs, whose params and metrics are given.
    """
    settings, varied = varying(params), varying(metrics)
    numbers = ["miou", *(name for name in _METRICS if name in varied)]
    columns = [f"params.`{key}`" for key in settings] + [f"metrics.`{name}`" for name in numbers]
    charts: list[dict[str, object]] = [
        {
            "type": "PARALLEL",
            "selectedParams": settings,
            "selectedMetrics": [*numbers[1:], numbers[0]],
        },
        *(_scatter(name, "METRIC") for name in numbers[1:]),
        *(_scatter(key, "PARAM") for key in settings[:_MOST_SCATTERS]),
    ]
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


def view_urls(uri: str, host: str = HOST, port: int = PORT) -> dict[str, str]:
    """Return the address of each experiment's prepared view, by experiment.

    Raises:
        StoreError: the tracking store cannot be reached, written or read.
    """
    client = connect(uri)
    with answering(uri):
        found = list(experiments(client))
    return {
        one.name: f"{address(host, port)}/{view_path(one.experiment_id, VIEW)}"
        for one in sorted(found, key=lambda one: one.name)
        if view_tag(VIEW) in one.tags
    }


def _scatter(key: str, kind: str) -> dict[str, object]:
    return {
        "type": "SCATTER",
        "xaxis": {"key": key, "type": kind},
        "yaxis": {"key": "miou", "type": "METRIC"},
    }
