"""What a spec needs that is not there: weights and data, found without torch."""

from spar_bench import backbones
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.plan.stages import known_sizes, open_dataset
from spar_bench.spec import LoadedSpec


def missing(loaded: LoadedSpec) -> list[str]:
    """Return a line for each backbone and data set of a spec that is not there, each once."""
    settings = [point.settings for point in loaded.points] or [loaded.spec]
    checks = {}
    for one in settings:
        checks[one.backbone.model_dump_json()] = lambda spec=one.backbone: (
            known_sizes(spec),
            backbones.identity(spec),
        )
        if "student" in one.evaluate.methods:
            source = one.images.source
            checks[f"train {source.model_dump_json()}"] = lambda spec=source: open_dataset(
                spec, "train"
            )
        for dataset in one.evaluate.datasets:
            checks[f"val {dataset.model_dump_json()}"] = lambda spec=dataset: open_dataset(
                spec, "val"
            )
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
