"""The inputs of a plan: data sets as they are read, and whether files remain unchanged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from spar_bench import backbones, datasets, registry
from spar_bench.backbones._contents import require_whole
from spar_bench.datasets._facts import Facts
from spar_bench.datasets.base import IGNORED, Dataset, Split
from spar_bench.digests import remembered_sha256
from spar_bench.errors import DataError, NotReady, SparBenchError
from spar_bench.spec.schema import BackboneSpec, DatasetSpec, SourceSpec, StudentSpec
from spar_bench.stage import Stage


@dataclass(frozen=True)
class Labelled:
    """A data set as one evaluation reads it."""

    spec: DatasetSpec
    label: str
    classes: list[list[str]]
    facts: Facts
    image_hw: tuple[int, int]
    n_images: int
    identity: dict[str, Any]

    @property
    def n_queries(self) -> int:
        """Number of queries that a pixel is compared with: every synonym is one."""
        return sum(len(names) for names in self.classes)


T = TypeVar("T")

_looked_at: ContextVar[dict[str, Any] | None] = ContextVar("looked_at", default=None)


@contextmanager
def looking_once() -> Iterator[None]:
    """Look at data sets and backbones only once within this block: 25,000 files take seconds.

    Nested blocks join the outer one. `require_unchanged` looks again, and so sees changes on disk.
    """
    if _looked_at.get() is not None:
        yield
        return
    token = _looked_at.set({})
    try:
        yield
    finally:
        _looked_at.reset(token)


def _once(key: str, look: Callable[[], T]) -> T:
    known = _looked_at.get()
    if known is None:
        return look()
    if key not in known:
        known[key] = look()
    found: T = known[key]
    return found


def open_dataset(spec: DatasetSpec | SourceSpec, split: Split) -> Dataset:
    """Construct a data set plug-in; this lists its files, but reads no image."""
    return _once(f"{split} {spec.model_dump_json()}", lambda: _open(spec, split))


def _open(spec: DatasetSpec | SourceSpec, split: Split) -> Dataset:
    plugin: type[Dataset] = registry.load("datasets", spec.name)
    return plugin(split, datasets.settings(spec))


def facts(spec: DatasetSpec) -> Facts:
    """Return what a data set's data file states."""
    return _once(f"facts {spec.name}", lambda: datasets.facts(spec))


def declared_hw(spec: DatasetSpec | SourceSpec, split: Split) -> tuple[int, int]:
    """Return the size of a data set's images that costs are stated for, height first."""
    return open_dataset(spec, split).image_hw


def class_names(spec: DatasetSpec, dataset: Dataset) -> list[list[str]]:
    """Return class names by label: the spec's if given, though a plug-in may ignore them.

    Raises:
        DataError: there are more than labels can represent.
    """
    classes = spec.classes or dataset.classes
    if len(classes) > IGNORED:
        raise DataError(
            f"{datasets.label(spec)}: must have at most {IGNORED} classes, since labels are 8-bit "
            f"and {IGNORED} is ignored, but has {len(classes)}; merge or leave out some"
        )
    return classes


@looking_once()
def labelled(spec: DatasetSpec) -> Labelled:
    """Look at a validation set: classes, size and identity; raises as `class_names`."""
    dataset = open_dataset(spec, "val")
    return Labelled(
        spec=spec,
        label=datasets.label(spec),
        classes=class_names(spec, dataset),
        facts=facts(spec),
        image_hw=dataset.image_hw,
        n_images=len(dataset),
        identity=dataset_identity(spec, "val"),
    )


def checkpoint_digest(student: StudentSpec) -> str:
    """Return the SHA-256 of the file that replaces training a student.

    Raises:
        NotReady: the file is missing or incomplete.
    """
    assert student.checkpoint is not None, "a student that is trained here has no file"
    try:
        require_whole(Path(student.checkpoint))
        return remembered_sha256(Path(student.checkpoint))
    except OSError as error:
        raise NotReady(
            f"student.checkpoint: must be a file of weights, but {student.checkpoint} cannot be "
            f"read ({error.strerror}); correct it"
        ) from error


def backbone_identity(spec: BackboneSpec) -> dict[str, Any]:
    """Return what decides a backbone's features, as JSON; raises as `backbones.identity`."""
    return _once(f"backbone {spec.model_dump_json()}", lambda: backbones.identity(spec))


def dataset_identity(spec: DatasetSpec | SourceSpec, split: Split) -> dict[str, Any]:
    """Return what decides a data set's images and labels, as JSON: plug-in and contents."""
    key = f"identity {split} {spec.model_dump_json()}"
    return _once(key, lambda: _identity(spec, open_dataset(spec, split)))


def _identity(spec: DatasetSpec | SourceSpec, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": registry.plugin("datasets", spec.name),
        "version": registry.version("datasets", spec.name),
        **dataset.identity(),
    }


def require_unchanged(stage: Stage) -> None:
    """Look again at the weights and images that a stage's fingerprint stands for.

    Raises:
        SparBenchError: they have changed since the plan was made.
    """
    now: dict[str, Any] = {}
    splits: list[tuple[str, Split]] = [("source", "train"), ("dataset", "val")]
    for what, split in splits:
        if what in stage.settings:
            spec = stage.how[what]
            now[what] = _identity(spec, _open(spec, split))
    if "backbone" in stage.settings and stage.kind != "cost":  # weights do not affect cost
        now["backbone"] = backbones.identity(stage.how["backbone"])
    if "text_tower" in stage.settings:
        now["text_tower"] = backbones.text_identity(backbones.identity(stage.how["backbone"]))
    if "checkpoint" in stage.settings:
        now["checkpoint"] = checkpoint_digest(StudentSpec(checkpoint=stage.how["checkpoint"]))
    for what, identity in now.items():
        if identity != stage.settings[what]:
            raise SparBenchError(
                f"{what}: its files must not change while a sweep runs, but have changed "
                f"since the {stage.kind} was planned; run the same command again"
            )
