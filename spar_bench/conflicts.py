"""Read an experiment, and find what in it conflicts with its backbones and data sets.

Backbones and data sets are imported late: a misspelt key is reported before numpy is there.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spar_bench.errors import SparBenchError, SpecError
from spar_bench.files import YAML_ENDINGS
from spar_bench.spec import Conflict, LoadedSpec, load_spec
from spar_bench.spec.read import experiment_name
from spar_bench.spec.schema import BackboneSpec, EvaluateSpec, Settings
from spar_bench.validation import show
from spar_bench.values import parse_trainable

if TYPE_CHECKING:
    from spar_bench.components.sizes import Sizes


def read_spec(path: str | Path, *, environ: Mapping[str, str] | None = None) -> LoadedSpec:
    """Read a spec file, with `${NAME}` and `${NAME:-default}` in it taken from `environ`.

    The default `environ` is the process's own. Paths in a spec are relative to the working
    directory.

    Raises:
        SpecError: the file has mistakes, one line each: `file:line:column: key: rule, but got ...`.
    """
    return load_spec(path, check=Conflicts(), environ=environ)


def read_specs(path: str | Path) -> list[LoadedSpec]:
    """Read a spec file, or those of a suite's folder.

    Raises:
        SpecError: as `read_spec`, for all files at once; or as `spec_files`.
    """
    loaded, problems = list[LoadedSpec](), list[str]()
    for file in spec_files(Path(path)):
        try:
            loaded.append(read_spec(file))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(*problems)
    return loaded


def spec_files(path: Path) -> list[Path]:
    """Return a spec file, or those of a suite's folder by name; folders in it are other suites.

    Raises:
        SpecError: the folder has none, or has the name of an experiment in it or beside it.
    """
    if not path.is_dir():
        return [path]
    files = sorted(one for one in path.iterdir() if one.suffix in YAML_ENDINGS and one.is_file())
    if not files:
        raise SpecError(f"{path}: must hold specs, but has no YAML file; name a folder of them")
    whole = Path(os.path.abspath(path))
    beside = (whole.with_name(whole.name + ending) for ending in YAML_ENDINGS)
    for one in (*files, *filter(Path.is_file, beside)):
        if experiment_name(one) == experiment_name(path):
            raise SpecError(
                f"{path}: must not have an experiment's name, since each has a report, but "
                f"{os.path.relpath(one)} is called {experiment_name(path)!r} too; rename one of "
                "them"
            )
    return files


_IMAGES = {"name", "path", "count"}
"""Keys of a data set that decide its images."""


class Conflicts:
    """Finds conflicts in settings; looks up each backbone and data set once."""

    def __init__(self) -> None:
        self._backbones: dict[int, tuple[BackboneSpec, Sizes | None, list[Conflict]]] = {}
        self._evaluations: dict[int, tuple[EvaluateSpec, list[Conflict]]] = {}
        self._images: dict[str, str] = {}

    def __call__(self, settings: Settings) -> Iterator[Conflict]:
        """Yield the conflicts in validated settings."""
        # Points of a sweep share their parts; kept here, a part keeps its id.
        backbone, evaluate = settings.backbone, settings.evaluate
        if id(backbone) not in self._backbones:
            self._backbones[id(backbone)] = (backbone, *_looked_up(backbone))
        if id(evaluate) not in self._evaluations:
            found = [
                *_labels(evaluate),
                *self._names(evaluate),
                *_columns(evaluate),
                *_refiner(evaluate),
            ]
            self._evaluations[id(evaluate)] = evaluate, found
        _, sizes, conflicts = self._backbones[id(backbone)]
        yield from conflicts
        if sizes is not None:
            yield from _teacher(settings, sizes)
            yield from _student(settings, sizes)
            yield from _resolutions(settings, sizes)
            yield from _regridded(settings, sizes)
        yield from self._evaluations[id(evaluate)][1]

    def _names(self, evaluate: EvaluateSpec) -> Iterator[Conflict]:
        """Yield names that stand for other images in an earlier point: tables would mix them."""

        here = {dataset.display_name: dataset for dataset in reversed(evaluate.datasets)}
        for name, dataset in here.items():
            images = dataset.model_dump_json(include=_IMAGES)
            if self._images.setdefault(name, images) != images:
                yield Conflict(
                    ("evaluate.datasets",),
                    f"must each have the same images in every point, but got {show(name)} with "
                    "others; add label: to one",
                )


def _looked_up(backbone: BackboneSpec) -> "tuple[Sizes | None, list[Conflict]]":
    """Return a backbone's sizes, and the settings that it does not have."""
    from spar_bench.components.backbone import not_offered, stated_sizes

    try:
        sizes = stated_sizes(backbone)
    except SparBenchError:  # weights may be added later: `check --ready` needs them
        return None, []
    refused = [] if sizes is None else not_offered(backbone, sizes)
    return sizes, [Conflict((f"backbone.{key}", "backbone.name"), text) for key, text in refused]


def _teacher(settings: Settings, sizes: "Sizes") -> Iterator[Conflict]:
    teacher, patch_px = settings.teacher, sizes.patch_px
    window_px = teacher.window_px or sizes.image_px
    named = ("teacher.stride_px", "teacher.window_px", "backbone.name", "backbone.path")
    if teacher.stride_px > window_px:
        yield Conflict(
            named,
            f"must not exceed window_px ({window_px}, the backbone's), but got "
            f"{teacher.stride_px}: pixels between windows would have no teacher feature; "
            f"use {window_px} or less",
        )
        return
    if window_px % patch_px:
        nearest_px = max(patch_px, round(window_px / patch_px) * patch_px)
        yield Conflict(
            ("teacher.window_px", "backbone.name", "backbone.path"),
            f"must be a multiple of the backbone's patch ({patch_px}), but got {window_px}; "
            f"use {nearest_px}",
        )
    r = teacher.upsample
    if r != "auto" and (patch_px % r or teacher.stride_px % (patch_px // r)):
        fitting = [
            n for n in range(1, patch_px + 1)
            if patch_px % n == 0 and teacher.stride_px % (patch_px // n) == 0
        ]  # fmt: skip
        yield Conflict(
            ("teacher.upsample", *named),
            f"must divide the patch ({patch_px}) into cells that divide stride_px "
            f"({teacher.stride_px}), but got {r}; use auto, or one of {fitting}",
        )


def _student(settings: Settings, sizes: "Sizes") -> Iterator[Conflict]:
    trainable = settings.student.trainable
    if parse_trainable(trainable).n_blocks > sizes.depth:
        yield Conflict(
            ("student.trainable", "backbone.name", "backbone.path"),
            f"must not count more blocks than the backbone has ({sizes.depth}), "
            f"but got {trainable!r}; count fewer, or use all",
        )
    if trainable == "position_embedding" and sizes.position_embedding == "rope":
        yield Conflict(
            ("student.trainable", "backbone.name", "backbone.path"),
            "must be a part that has weights, but got 'position_embedding': this backbone's "
            "positions are rotary and have none; use patch_embedding, last_2_blocks or all",
        )


def _resolutions(settings: Settings, sizes: "Sizes") -> Iterator[Conflict]:
    numbers = [side for side in settings.evaluate.short_side_px if side != "own"]
    lowest = {
        "images.short_side_px": settings.images.short_side_px[0],
        "evaluate.short_side_px": min(numbers, default=sizes.patch_px),
    }
    for key, value in lowest.items():
        if value < sizes.patch_px:
            yield Conflict(
                (key, "backbone.name", "backbone.path"),
                f"must be at least the backbone's patch ({sizes.patch_px}), but got {value}; "
                "raise it",
            )


def _labels(evaluate: EvaluateSpec) -> Iterator[Conflict]:

    seen = set[str]()
    for label in (one.display_name for one in evaluate.datasets):
        if label in seen:
            yield Conflict(
                ("evaluate.datasets",),
                f"must each have a unique name, but got {show(label)} twice; add label: to one",
            )
            return
        seen.add(label)


def _columns(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    """Yield numbers that would share a table column with a data set's own resolution."""
    from spar_bench import datasets

    for dataset in evaluate.datasets if "own" in evaluate.short_side_px else []:
        try:
            own = datasets.facts(dataset)
        except SparBenchError:  # reported where the data set is looked for
            continue
        if own.long_side_px is not None and own.short_side_px in evaluate.short_side_px:
            yield Conflict(
                ("evaluate.short_side_px",),
                f"must differ from the short side of {dataset.display_name}'s own rule where "
                f"own is also given, but got {own.short_side_px}, which has no cap of "
                f"{own.long_side_px} px; drop one",
            )


def _refiner(evaluate: EvaluateSpec) -> Iterator[Conflict]:
    """Yield a refiner that needs features where the teacher's windows are averaged as logits."""
    if "teacher" not in evaluate.methods or evaluate.average != "logits":
        return
    name = evaluate.refiner.name
    if _stated_by_refiner(name, "NEEDS_FEATURES"):
        yield Conflict(
            ("evaluate.average", "evaluate.refiner"),
            f"must be features where the teacher is refined by {_shown(name)}, which needs them, "
            "but got logits; set it, or leave the teacher out of evaluate.methods",
        )


def _regridded(settings: Settings, sizes: "Sizes") -> Iterator[Conflict]:
    """Yield a refiner that resamples scores as cosines, where they are a linear probe's."""
    name, linear = settings.evaluate.refiner.name, settings.evaluate.classifier.is_linear
    patch_px = _stated_by_refiner(name, "COSINES_AT_PATCH_PX") if linear else None
    if patch_px not in (None, sizes.patch_px):
        yield Conflict(
            ("evaluate.refiner", "evaluate.classifier", "backbone.name", "backbone.path"),
            f"must leave a linear probe's scores on the backbone's grid, of patches of "
            f"{sizes.patch_px} px, but {_shown(name)} resamples them as cosines to patches of "
            f"{patch_px}; use another refiner, or evaluate.classifier: text",
        )


def _stated_by_refiner(name: str, constant: str) -> object:
    """Return a constant of a refiner's module, or None; one that is not found states nothing."""
    from spar_bench import registry, sources

    try:
        return sources.constant(registry.source("refiners", name), constant)
    except SparBenchError:  # reported where the refiner is looked for
        return None


def _shown(refiner: str) -> str:
    from spar_bench import registry

    return registry.display_name(refiner)
