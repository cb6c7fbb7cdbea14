"""What a spec needs that is not there: weights and data, found without torch."""

from collections.abc import Callable
from functools import partial

from spar_bench import backbones
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.plan.inputs import open_dataset
from spar_bench.session.choice import first_points
from spar_bench.spec import LoadedSpec


def missing(loaded: LoadedSpec) -> list[str]:
    """Return a line for each backbone and data set of a spec that is not there, each once."""
    checks: dict[str, Callable[[], object]] = {}
    for one in (point.settings for point in first_points(loaded)):
        checks[one.backbone.model_dump_json()] = partial(backbones.identity, one.backbone)
        if "student" in one.evaluate.methods:
            source = one.images.source
            checks[f"train {source.model_dump_json()}"] = partial(open_dataset, source, "train")
        for data in one.evaluate.datasets:
            checks[f"val {data.model_dump_json()}"] = partial(open_dataset, data, "val")
    found = []
    for check in checks.values():
        try:
            check()
        except SparBenchError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def require_ready(loaded: LoadedSpec) -> None:
    """Refuse to start without weights and data.

    Raises:
        NotReady: one line for everything that is missing.
    """
    problems = missing(loaded)
    if problems:
        raise NotReady("\n".join(problems))
