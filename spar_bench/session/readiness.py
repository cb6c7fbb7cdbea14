"""Find what a spec needs but is missing, and what in it is probably not intended.

Torch is imported only if a plug-in of another package imports it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from spar_bench import registry
from spar_bench.components.backbone import (
    exported_from,
    known_sizes,
    require_backbone_tokenizer,
    require_text,
)
from spar_bench.components.students import require_checkpoint
from spar_bench.datasets.base import Split
from spar_bench.drawing import rescaled_hw
from spar_bench.errors import DataFileError, NotReady, SparBenchError, SpecError
from spar_bench.machines import has_gpu, multiplies_16_bits
from spar_bench.protocol import resizes
from spar_bench.resolve import Resolver
from spar_bench.session.selection import initial_points
from spar_bench.spec import LoadedSpec
from spar_bench.spec.images import SourceSpec
from spar_bench.spec.schema import DatasetSpec, Settings


def missing(loaded: LoadedSpec, resolver: Resolver) -> list[str]:
    """Return a line for each plug-in, backbone and data set that cannot be used, each once.

    Raises:
        SpecError: a data file that the spec names has a mistake, or a backbone lacks a requested
            setting; one line each.
    """
    checks: dict[str, Callable[[], object]] = {}
    for settings in (point.settings for point in initial_points(loaded)):
        for family, name in _plug_ins(settings):
            checks[f"{family} {name}"] = partial(registry.require, family, name)
        stated = settings.backbone.model_dump_json()
        checks[stated] = partial(resolver.backbone, settings.backbone)
        refiner = settings.evaluate.refiner
        checks[f"refiner {refiner.model_dump_json()}"] = partial(resolver.refiner, refiner)
        if not settings.evaluate.classifier.is_linear:
            checks[f"tokenizer {stated}"] = partial(require_backbone_tokenizer, settings.backbone)
            checks[f"text {settings.backbone.name}"] = partial(require_text, settings.backbone)
        if settings.distils:
            source = settings.images.source
            checks[f"train {source.model_dump_json()}"] = partial(
                _read_one, resolver, source, "train"
            )
        elif (checkpoint := settings.student.checkpoint) and "student" in settings.evaluate.methods:
            checks[f"student {checkpoint}"] = partial(require_checkpoint, checkpoint)
        checks |= _of_datasets(settings, resolver)
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


def _of_datasets(settings: Settings, resolver: Resolver) -> dict[str, Callable[[], object]]:
    """Return the checks of the data sets that are evaluated, by what they look at."""
    checks: dict[str, Callable[[], object]] = {}
    evaluate = settings.evaluate
    for data in evaluate.datasets:
        shown = data.model_dump_json()
        checks[f"val {shown}"] = partial(_read_one, resolver, data, "val")
        if evaluate.classifier.is_linear:
            checks[f"labelled train {shown}"] = partial(
                _read_labels, resolver, data, evaluate.unreadable
            )
    return checks


def _read_one(resolver: Resolver, spec: DatasetSpec | SourceSpec, split: Split) -> None:
    """List a data set's files and read its first image; their contents are not hashed."""
    _ = resolver.opened(spec, split).image_hw


def _read_labels(resolver: Resolver, spec: DatasetSpec, unreadable: str) -> None:
    """List a data set's labelled training images, and read the first unless it may be left out."""
    dataset = resolver.opened(spec, "train", labelled=True)
    if unreadable == "error":
        dataset.sample(0)


def _plug_ins(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the family and name of each plug-in that settings ask for."""
    yield "backbones", settings.backbone.name
    yield "refiners", settings.evaluate.refiner.name
    yield from (("datasets", data.name) for data in settings.evaluate.datasets)
    yield from (("stages", probe.name) for probe in settings.evaluate.probes)
    if settings.distils:
        yield "losses", settings.student.loss.name
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


def ready_remarks(loaded: LoadedSpec, n_processes: int) -> list[str]:
    """Return the remarks on a sweep's initial points; raises as `require_ready`."""
    resolver = Resolver()
    require_ready(loaded, resolver)
    return remarks((point.settings for point in initial_points(loaded)), resolver, n_processes)


def remarks(points: Iterable[Settings], resolver: Resolver, n_processes: int = 1) -> list[str]:
    """Return a line for each thing in a spec that is probably not intended.

    A window that holds all images whole, so that no stride moves it; a data set with another number
    of images than published; more distillation images than their source has; 16-bit products on a
    processor without them; a factor of upsampling that no teacher is evaluated with; an export read
    in another way than its student was; of the processes that train a student, some without an
    image in a step.

    What weights or data that are missing would decide is left out: `missing` lists them.
    """
    lines: dict[str, None] = {}
    for settings in points:
        for look in _looks(settings, resolver, n_processes):
            with suppress(SparBenchError):
                lines |= dict.fromkeys(look())
    return list(lines)


def _looks(
    settings: Settings, resolver: Resolver, n_processes: int
) -> Iterator[Callable[[], Iterable[str]]]:
    """Yield what looks for remarks; each needs as little of weights and data as possible."""
    for data in settings.evaluate.datasets:
        if data.count is None:
            yield partial(_not_as_published, resolver, data, "val")
        if settings.evaluate.classifier.is_linear and settings.evaluate.classifier.count is None:
            yield partial(_not_as_published, resolver, data, "train", labelled=True)
    yield partial(_whole, resolver, settings, "evaluated", _evaluated)
    if settings.distils:
        if settings.images.source.count is None:
            yield partial(_not_as_published, resolver, settings.images.source, "train")
        yield partial(_drawn_again, resolver, settings)
        yield partial(_idle_processes, settings, n_processes)
        yield partial(_whole, resolver, settings, "distilled", _distilled)
    yield partial(_slow_products, settings)
    yield partial(_upsampled, settings)
    yield partial(_exported, settings)


def _drawn_again(resolver: Resolver, settings: Settings) -> Iterator[str]:
    source, count = settings.images.source, settings.images.count
    n_images, is_drawn = len(resolver.opened(source, "train")), source.name == "patchwork"
    if settings.images.fresh and count * settings.n_lists > n_images:
        way_out = "; images.source.count draws more scenes" if is_drawn else ""
        yield (
            f"images.fresh: {count} images in each of {settings.n_lists} epochs are more than the "
            f"{n_images} of {source.name}, so that some come again, sized and cropped anew{way_out}"
        )
    elif count > n_images and not is_drawn:
        yield (
            f"images.count: {count} is more than the {n_images} images of {source.name}, so that "
            "some are drawn several times"
        )


def _not_as_published(
    resolver: Resolver, spec: DatasetSpec | SourceSpec, split: Split, *, labelled: bool = False
) -> Iterator[str]:
    label = spec.display_name if isinstance(spec, DatasetSpec) else spec.name
    dataset = resolver.opened(spec, split, labelled=labelled)
    published = getattr(dataset, "n_published", None)  # stated by those that read files
    if published not in (None, len(dataset)):
        yield (
            f"data set {label}: {split} has {len(dataset)} images, but {published} are published, "
            "so that its numbers are not those of the whole set"
        )


def _whole(
    resolver: Resolver,
    settings: Settings,
    what: str,
    sizes: Callable[[Resolver, Settings], list[tuple[int, int]]],
) -> Iterator[str]:
    window = settings.teacher.window_px or known_sizes(settings.backbone).image_px
    for height, width in sorted(sizes(resolver, settings), key=max, reverse=True)[:1]:
        if max(height, width) <= window:
            yield (
                f"teacher.window_px: {window} holds every {what} image whole (at most "
                f"{height}x{width} px), so that the teacher is a single pass at any stride"
            )


def _slow_products(settings: Settings) -> Iterator[str]:
    asked = {
        "teacher.precision": settings.teacher.precision if settings.distils else "float32",
        "student.precision": settings.student.precision if settings.distils else "float32",
        "evaluate.precision": settings.evaluate.precision,
    }
    slow = [f"{key}: {value}" for key, value in asked.items() if value != "float32"]
    if slow and not has_gpu() and not multiplies_16_bits():
        yield (
            f"{', '.join(slow)}: this processor multiplies no 16-bit numbers, which takes it about "
            "7 times as long as float32; leave it out, or use a GPU"
        )


def _idle_processes(settings: Settings, n: int) -> Iterator[str]:
    n_images = settings.student.accumulate
    n_turns = -(-n_images // n) * n
    if n_turns > n_images:
        yield (
            f"student.accumulate: {n_images} images a step on {n} processes leave "
            f"{(n_turns - n_images) / n_turns:.0%} of their time idle; start as many processes as "
            "divide it, since another accumulate is another recipe"
        )


def _upsampled(settings: Settings) -> Iterator[str]:
    factor, evaluate = settings.teacher.upsample, settings.evaluate
    if factor != "auto" and evaluate.average == "logits" and "teacher" in evaluate.methods:
        yield (
            f"teacher.upsample: {factor} affects only the features that students learn: the "
            "teacher is evaluated by logits averaged at pixels (evaluate.average)"
        )


def _exported(settings: Settings) -> Iterator[str]:
    spec = settings.backbone
    origin = exported_from(Path(spec.path)) if spec.path else None
    for key in READING if origin else ():
        before, now = getattr(origin, key), getattr(spec, key)
        if before != now:
            yield (
                f"backbone.{key}: {now or 'default'} is not what the student exported to "
                f"{spec.path} was trained with, so features differ; set it to {before}"
            )


READING = ("read_out", "position_embedding", "odd_sides", "token_budget")
"""Settings of how a backbone reads an image that no other library's format can hold."""


def _evaluated(resolver: Resolver, settings: Settings) -> list[tuple[int, int]]:
    """Return the sizes of the images that the teacher is evaluated on."""
    if "teacher" not in settings.evaluate.methods:
        return []
    return [
        resize.of(resolver.opened(data, "val").image_hw)
        for data in settings.evaluate.datasets
        for resize in resizes(settings.evaluate, resolver.facts(data))
    ]


def _distilled(resolver: Resolver, settings: Settings) -> list[tuple[int, int]]:
    """Return the largest size of the images that the teacher makes targets for."""
    return [
        rescaled_hw(
            resolver.opened(settings.images.source, "train").image_hw,
            settings.images.short_side_px[1],
            long_side_ratio=settings.images.long_side_ratio,
            shortest_px=settings.images.smallest_side_px or known_sizes(settings.backbone).image_px,
        )
    ]
