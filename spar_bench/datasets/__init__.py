"""The data sets: one plug-in a file, each a class `Dataset` and its `VERSION`, without torch."""

from pathlib import Path

from spar_bench import registry
from spar_bench.datasets._facts import Facts, read
from spar_bench.datasets.base import DatasetSettings
from spar_bench.errors import SpecError
from spar_bench.spec.schema import DatasetPart, DatasetSpec


def label(spec: DatasetSpec) -> str:
    """Return a data set's name in tables: as the spec says, else its data file's or its folder's.

    Without either it is called as its plug-in.
    """
    if spec.label:
        return spec.label
    stated = registry.data_file("datasets", spec.name)
    if stated is None and spec.path:
        return Path(spec.path).resolve().name
    return spec.name if stated is None else stated.stem


def facts(spec: DatasetPart) -> Facts:
    """Return what a data set's data file states; the defaults where it has none.

    Raises:
        UnknownName: no data set of that name.
        DataFileError: its data file cannot be read, or has a key that is not known, or a value
            that makes no sense.
    """
    registry.plugin("datasets", spec.name)
    path = registry.data_file("datasets", spec.name)
    return read(Facts, registry.data("datasets", spec.name), str(path))


def settings(spec: DatasetPart) -> DatasetSettings:
    """Return what a plug-in is constructed with: what the spec says, else the data file.

    Raises:
        SpecError: the spec's classes are more or fewer than the data file's; and as `facts`.
    """
    stated = facts(spec)
    count, classes = None, None
    if isinstance(spec, DatasetSpec):
        count, classes = spec.count, spec.classes
    if classes and stated.classes and len(classes) != len(stated.classes):
        raise SpecError(
            f"data set {spec.name}: classes: must name its {len(stated.classes)} classes, but got "
            f"{len(classes)}; leave them out for its own names"
        )
    return DatasetSettings(spec.path, count, classes or stated.classes, spec.name, stated)
