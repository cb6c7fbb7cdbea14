"""What a name in a spec stands for: found once for each distinct name, before planning; no torch.

With `provisional`, what is not on this machine is taken as its data file describes it, so that a
plan has its counts, FLOPs and bytes; `Resolver.missing` says what that is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from spar_bench import datasets, registry
from spar_bench.components.backbone import (
    architecture,
    card,
    display_name,
    identity,
    interpolation_of,
    known_sizes,
    text_identity,
    text_sizes,
)
from spar_bench.components.backbone import (
    has_random_weights as has_random_backbone,
)
from spar_bench.components.identity import ComponentIdentity, identify
from spar_bench.components.refiner import has_random_weights, refiner_identity
from spar_bench.components.sizes import Sizes, TextSizes
from spar_bench.components.students import checkpoint_sha256
from spar_bench.datasets._facts import Facts
from spar_bench.datasets.base import IGNORED, Dataset, Split
from spar_bench.errors import DataError, DataFileError, NotReady
from spar_bench.inference import SINGLE_PASS, ImageSizes, Inference
from spar_bench.registry import PluginIdentity
from spar_bench.spec import Point
from spar_bench.spec.images import SourceSpec
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec, DatasetSpec, Settings
from spar_bench.stages.base import Identity
from spar_bench.values import Method
from spar_bench.windows import upsample_factor

T = TypeVar("T")

ASSUMED_HW, ASSUMED_IMAGES = (512, 683), 1000
"""Size and number of images that a provisional plan assumes where no data file states them."""


@dataclass(frozen=True)
class ResolvedBackbone:
    """A backbone: its sizes, how it is shown, and what decides features and embedded prompts.

    `architecture` stands for the model that is built, whatever its weights.
    """

    spec: BackboneSpec
    display_name: str
    random_weights: bool
    sizes: Sizes
    text_sizes: TextSizes | None
    architecture: str
    interpolation: str
    identity: Identity
    text_identity: Identity


@dataclass(frozen=True)
class ResolvedDataset:
    """A labelled data set as one evaluation reads it; `image_hw` is the size costs are stated for.

    `classes` has the names by label, each with its synonyms after it. `n_listed` is how many images
    there are, of which evenly spaced ones are read; None where the data set does not say.
    """

    spec: DatasetSpec
    display_name: str
    classes: list[list[str]]
    facts: Facts
    image_hw: tuple[int, int]
    n_images: int
    identity: Identity
    n_listed: int | None = None

    @property
    def n_queries(self) -> int:
        """Number of queries that a pixel is compared with: every synonym is one."""
        return sum(map(len, self.classes))


@dataclass(frozen=True)
class ResolvedSource:
    """Where distillation images are drawn from."""

    spec: SourceSpec
    image_hw: tuple[int, int]
    n_images: int
    identity: Identity


@dataclass(frozen=True)
class ResolvedTraining:
    """The labelled training images of a data set, which a linear probe learns from."""

    image_hw: tuple[int, int]
    n_images: int
    identity: Identity


@dataclass(frozen=True)
class ResolvedPoint:
    """A point of a sweep, with what its names stand for; `source` is None without a student."""

    group: str
    settings: Settings
    swept: dict[str, object]
    backbone: ResolvedBackbone
    datasets: list[ResolvedDataset]
    source: ResolvedSource | None
    loss: PluginIdentity
    refiner: ComponentIdentity

    @property
    def has_random_weights(self) -> bool:
        """Whether weights of its backbone or refiner are random."""
        return self.backbone.random_weights or has_random_weights(self.settings.evaluate.refiner)

    @property
    def refiner_name(self) -> str:
        """The refiner's name in tables."""
        return registry.display_name(self.settings.evaluate.refiner.name)

    @property
    def window_px(self) -> int:
        """The teacher's window: the spec's, else the backbone's native side."""
        return self.settings.teacher.window_px or self.backbone.sizes.image_px

    @property
    def shortest_px(self) -> int:
        """The least that crops leave of a side: the spec's value, else the native side."""
        return self.settings.images.smallest_side_px or self.backbone.sizes.image_px

    @property
    def teaching(self) -> Inference:
        """How the teacher reads an image that a student learns from."""
        teacher = self.settings.teacher
        r = teacher.upsample
        if r == "auto":
            r = upsample_factor(self.backbone.sizes.patch_px, teacher.stride_px)
        return Inference("sliding_window", self.window_px, teacher.stride_px, "features", r)

    def n_queries(self, data: ResolvedDataset) -> int:
        """Return the number of scores of a pixel: one for each name, or with a probe, class."""
        is_linear = self.settings.evaluate.classifier.is_linear
        return len(data.classes) if is_linear else data.n_queries

    def inference(self, method: Method) -> Inference:
        """Return how a method reads an image when it is evaluated."""
        if method != "teacher":
            return SINGLE_PASS
        taught, average = self.teaching, self.settings.evaluate.average
        if average == "features":
            return taught
        return Inference("sliding_window", taught.window_px, taught.stride_px, average)


class Resolver:
    """Looks at each distinct backbone, data set and plug-in once.

    A new resolver looks again, and so sees changes on disk.
    """

    def __init__(self, *, provisional: bool = False) -> None:
        self.missing: list[str] = []
        self._provisional = provisional
        self._known: dict[str, object] = {}

    def point(self, point: Point) -> ResolvedPoint:
        """Return a point with what its names stand for.

        Raises:
            NotReady: weights or data that decide a fingerprint are missing.
        """
        settings = point.settings
        return ResolvedPoint(
            group=point.group,
            settings=settings,
            swept=point.swept,
            backbone=self.backbone(settings.backbone),
            datasets=[self.dataset(spec) for spec in settings.evaluate.datasets],
            source=self.source(settings.images.source) if settings.distils else None,
            loss=self.plugin("losses", settings.student.loss),
            refiner=self.refiner(settings.evaluate.refiner),
        )

    def backbone(self, spec: BackboneSpec) -> ResolvedBackbone:
        """Return a backbone; raises as `known_sizes`, and NotReady without its weights."""
        return self._once(f"backbone {spec.model_dump_json()}", lambda: self._backbone(spec))

    def dataset(self, spec: DatasetSpec) -> ResolvedDataset:
        """Return a validation set.

        Raises:
            NotReady: its files are missing.
            DataError: it has more classes than labels can represent.
        """
        return self._once(f"val {spec.model_dump_json()}", lambda: self._dataset(spec))

    def image_sizes(self, spec: DatasetSpec) -> ImageSizes:
        """Return how many of a validation set's images have each size, from their headers.

        Raises:
            NotReady: its files are missing.
        """
        return self._once(
            f"sizes {spec.model_dump_json()}",
            lambda: self._or_else(
                lambda: datasets.image_sizes(self.opened(spec, "val")),
                lambda: dict([_typical(spec, "val")]),
            ),
        )

    def source(self, spec: SourceSpec) -> ResolvedSource:
        """Return a source of distillation images; raises as `dataset`."""
        return self._once(f"train {spec.model_dump_json()}", lambda: self._source(spec))

    def training(self, spec: DatasetSpec) -> ResolvedTraining:
        """Return the labelled training images of a data set.

        Raises:
            NotReady: its files are missing, or its training images have no masks.
        """
        return self._once(
            f"labelled train {spec.model_dump_json()}",
            lambda: ResolvedTraining(*self._contents(spec, "train", labelled=True)),
        )

    def opened(
        self, spec: DatasetSpec | SourceSpec, split: Split, *, labelled: bool = False
    ) -> Dataset:
        """Return a data set plug-in's split, which lists its files but reads no image."""
        return self._once(
            f"opened {split} {labelled} {spec.model_dump_json()}",
            lambda: open_dataset(spec, split, labelled=labelled),
        )

    def facts(self, spec: DatasetSpec) -> Facts:
        """Return what a data set's data file states."""
        return self._once(f"facts {spec.name}", lambda: datasets.facts(spec))

    def plugin(self, family: str, spec: PluginSpec) -> PluginIdentity:
        """Return the identity of a plug-in that needs no files."""
        return self._once(
            f"{family} {spec.model_dump_json()}",
            lambda: registry.identity(family, spec.name, spec.settings),
        )

    def refiner(self, spec: PluginSpec) -> ComponentIdentity:
        """Return the identity of a refiner.

        Raises:
            NotReady: its weights are missing.
        """
        return self._once(
            f"refiner {spec.model_dump_json()}",
            lambda: self._or_else(
                lambda: refiner_identity(spec),
                lambda: identify("refiners", spec.name, settings=spec.settings, files={}),
            ),
        )

    def checkpoint(self, path: str) -> str:
        """Return the SHA-256 of a file of weights that replaces training a student."""
        return self._once(f"checkpoint {path}", lambda: checkpoint_sha256(path))

    def _once(self, key: str, look: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = look()
        known: T = self._known[key]  # type: ignore[assignment]  # a key has one kind of value
        return known

    def _or_else(self, look: Callable[[], T], assumed: Callable[[], T]) -> T:
        """Return what is there or, in a provisional plan, what is assumed where it is missing."""
        if not self._provisional:
            return look()
        try:
            return look()
        except DataFileError:
            raise
        except (NotReady, DataError) as error:
            if str(error) not in self.missing:
                self.missing.append(str(error))
            return assumed()

    def _backbone(self, spec: BackboneSpec) -> ResolvedBackbone:
        stated: Identity = {"provisional": spec.model_dump(mode="json")}
        sizes = known_sizes(spec)  # nothing is resolved without them
        found = self._or_else(lambda: identity(spec), lambda: None)
        return ResolvedBackbone(
            spec=spec,
            display_name=display_name(spec),
            random_weights=self._or_else(lambda: has_random_backbone(spec), lambda: False),
            sizes=sizes,
            text_sizes=text_sizes(spec),
            architecture=self._or_else(lambda: architecture(spec), lambda: card(spec.name).model),
            interpolation=self._or_else(
                lambda: interpolation_of(spec),
                lambda: card(spec.name).interpolation,
            ),
            identity=stated if found is None else found.model_dump(mode="json"),
            text_identity=stated if found is None else text_identity(found).model_dump(mode="json"),
        )

    def _dataset(self, spec: DatasetSpec) -> ResolvedDataset:
        facts = self.facts(spec)
        image_hw, n_images, identity = self._contents(spec, "val")
        own = self._or_else(
            lambda: self.opened(spec, "val").classes, lambda: facts.classes or [["?"]]
        )
        if spec.pictures and max(spec.pictures) >= n_images:
            raise DataError(
                f"data set {spec.display_name}: pictures: must be places of its {n_images} "
                f"images, counted from 0, but got {max(spec.pictures)}; lower it"
            )
        return ResolvedDataset(
            spec=spec,
            display_name=spec.display_name,
            classes=class_names(spec, own),
            facts=facts,
            image_hw=image_hw,
            n_images=n_images,
            identity=identity,
            n_listed=self._or_else(
                lambda: getattr(self.opened(spec, "val"), "n_listed", None), lambda: None
            ),
        )

    def _source(self, spec: SourceSpec) -> ResolvedSource:
        return ResolvedSource(spec, *self._contents(spec, "train"))

    def _contents(
        self, spec: DatasetSpec | SourceSpec, split: Split, *, labelled: bool = False
    ) -> tuple[tuple[int, int], int, Identity]:
        """Return size, number and identity of a data set's images."""

        def look() -> tuple[tuple[int, int], int, Identity]:
            dataset = self.opened(spec, split, labelled=labelled)
            return dataset.image_hw, len(dataset), dataset_identity(spec, dataset)

        stated: Identity = {"provisional": spec.model_dump(mode="json"), "split": split}
        return self._or_else(look, lambda: (*_typical(spec, split), stated))


def _typical(spec: DatasetSpec | SourceSpec, split: Split) -> tuple[tuple[int, int], int]:
    """Return the size and number of a data set's images as its data file states them."""
    facts = datasets.facts(spec)
    published = facts.files.get(split, {}).get("n_images", ASSUMED_IMAGES)
    is_limited = isinstance(spec, SourceSpec) or split == "val"
    count = spec.count if is_limited else None
    return facts.image_hw or ASSUMED_HW, count or published


def open_dataset(
    spec: DatasetSpec | SourceSpec, split: Split, *, labelled: bool = False
) -> Dataset:
    """Construct a data set plug-in; this lists its files, but reads no image.

    With `labelled`, its training images have masks.
    """
    plugin: type[Dataset] = registry.load("datasets", spec.name)
    return plugin(split, datasets.settings(spec, labelled=labelled))


def dataset_identity(spec: DatasetSpec | SourceSpec, dataset: Dataset) -> Identity:
    """Return what decides a data set's images and labels: plug-in and contents."""
    return {
        "plugin": registry.identity("datasets", spec.name).model_dump(mode="json"),
        **dataset.identity(),
    }


def class_names(spec: DatasetSpec, own: list[list[str]]) -> list[list[str]]:
    """Return class names by label: the spec's if given, though a plug-in may ignore them.

    Raises:
        DataError: there are more than labels can represent.
    """
    classes = spec.classes or own
    if len(classes) > IGNORED:
        raise DataError(
            f"{spec.display_name}: must have at most {IGNORED} classes, since labels are 8-bit "
            f"and {IGNORED} is ignored, but has {len(classes)}; merge or leave out some"
        )
    return classes
