"""Find what a spec needs but is missing: plug-ins, weights and data.

Torch is imported only if a plug-in of another package imports it.
"""

from collections.abc import Callable, Iterator
from functools import partial

from spar_bench import backbones, registry
from spar_bench.datasets.base import Split
from spar_bench.errors import DataFileError, NotReady, SparBenchError, SpecError
from spar_bench.resolve import Resolver
from spar_bench.session.choice import first_points
from spar_bench.session.remarks import remarks
from spar_bench.spec import LoadedSpec
from spar_bench.spec.schema import DatasetSpec, Settings, SourceSpec


def missing(loaded: LoadedSpec, resolver: Resolver) -> list[str]:
    """Return a line for each plug-in, backbone and data set that cannot be used, each once.

    Raises:
        SpecError: a data file that the spec names has a mistake, or a backbone lacks a requested
            setting; one line each.
    """
    checks: dict[str, Callable[[], object]] = {}
    for one in (point.settings for point in first_points(loaded)):
        for family, name in _plug_ins(one):
            checks[f"{family} {name}"] = partial(registry.require, family, name)
        stated = one.backbone.model_dump_json()
        checks[stated] = partial(resolver.backbone, one.backbone)
        checks[f"tokenizer {stated}"] = partial(backbones.require_tokenizer, one.backbone)
        checks[f"text {one.backbone.name}"] = partial(backbones.require_text, one.backbone)
        if one.distils:
            source = one.images.source
            checks[f"train {source.model_dump_json()}"] = partial(
                _read_one, resolver, source, "train"
            )
        elif (checkpoint := one.student.checkpoint) and "student" in one.evaluate.methods:
            checks[f"student {checkpoint}"] = partial(resolver.checkpoint, checkpoint)
        for data in one.evaluate.datasets:
            checks[f"val {data.model_dump_json()}"] = partial(_read_one, resolver, data, "val")
    found, mistakes = [], []
    for check in checks.values():
        try:
            check()
        except (SpecError, DataFileError) as error:
            mistakes.extend(str(error).splitlines())
        except SparBenchError as error:
            found.append(str(error))
    if mistakes:
        raise SpecError(*dict.fromkeys(mistakes))
    return list(dict.fromkeys(found))


def _read_one(resolver: Resolver, spec: DatasetSpec | SourceSpec, split: Split) -> None:
    """List a data set's files and read its first image; their contents are not hashed."""
    _ = resolver.opened(spec, split).image_hw


def _plug_ins(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the family and name of each plug-in that settings ask for."""
    yield "backbones", settings.backbone.name
    yield "refiners", settings.evaluate.refiner
    yield from (("datasets", data.name) for data in settings.evaluate.datasets)
    if settings.distils:
        yield "losses", settings.student.loss
        yield "datasets", settings.images.source.name


def require_ready(loaded: LoadedSpec, resolver: Resolver) -> None:
    """Refuse to continue without plug-ins, weights and data.

    Raises:
        SpecError: as `missing`.
        NotReady: one line for everything that is missing.
    """
    problems = missing(loaded, resolver)
    if problems:
        raise NotReady("\n".join(problems))


def ready_remarks(loaded: LoadedSpec) -> list[str]:
    """Return the remarks on a sweep's initial points; raises as `require_ready`."""
    resolver = Resolver()
    require_ready(loaded, resolver)
    return remarks((point.settings for point in first_points(loaded)), resolver)
