"""The data sets: one plug-in a file, each a class `Dataset` and its `VERSION`, without torch."""

from pathlib import Path

from spar_bench import registry
from spar_bench.datasets.facts import Facts, read
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
        SparBenchError: its data file cannot be read.
        DataError: its data file has a key that is not known, or a value that makes no sense.
    """
    registry.plugin("datasets", spec.name)
    path = registry.data_file("datasets", spec.name)
    return read(Facts, registry.data("datasets", spec.name), str(path))
