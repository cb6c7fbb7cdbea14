"""The data sets: one plug-in per file, each a class `Dataset` and its `VERSION`, without torch."""

from collections import Counter
from contextlib import suppress

from spar_bench import registry
from spar_bench.datasets._facts import Facts, read
from spar_bench.datasets.base import Dataset, DatasetSettings
from spar_bench.errors import DataError, SpecError
from spar_bench.spec.images import DatasetPart, SourceSpec
from spar_bench.spec.schema import DatasetSpec


def facts(spec: DatasetPart) -> Facts:
    """Return what a data set's data file states; the defaults where it has none.

    Raises:
        UnknownName: no data set of that name.
        DataFileError: its data file cannot be read, or has an unknown key or an invalid value.
    """
    registry.plugin("datasets", spec.name)
    path = registry.data_file("datasets", spec.name)
    return read(Facts, registry.data("datasets", spec.name), str(path))


def settings(spec: DatasetPart, *, labelled: bool = False) -> DatasetSettings:
    """Return the settings that a plug-in is constructed with: the spec's, else the data file's.

    `labelled` is for the training images of a linear probe; a spec's `count` is not of those.

    Raises:
        SpecError: the spec has more or fewer classes than the data file; also as `facts`.
    """
    stated = facts(spec)
    count, classes = None, None
    if isinstance(spec, SourceSpec):
        count = spec.count
    if isinstance(spec, DatasetSpec):
        count, classes = None if labelled else spec.count, spec.classes
    if classes and stated.classes and len(classes) != len(stated.classes):
        raise SpecError(
            f"data set {spec.name}: classes: must name its {len(stated.classes)} classes, but got "
            f"{len(classes)}; leave them out for its own names"
        )
    classes = classes or stated.classes
    return DatasetSettings(spec.path, count, classes, spec.name, stated, labelled)


def image_sizes(dataset: Dataset) -> dict[tuple[int, int], int]:
    """Return how many of a data set's images have each size, height first.

    Images that cannot be read are left out. Those of a plug-in that does not say are read.
    """
    stated = getattr(dataset, "image_sizes", None)
    if stated is not None:
        return dict(stated())
    found = Counter[tuple[int, int]]()
    for index in range(len(dataset)):
        with suppress(DataError):
            height, width, _ = dataset.image(index).shape
            found[height, width] += 1
    return dict(found)
