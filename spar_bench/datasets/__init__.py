"""The data sets: one plug-in a file, each a class `Dataset` and its `VERSION`, without torch."""

from pathlib import Path

from spar_bench.spec.schema import DatasetSpec


def label(spec: DatasetSpec) -> str:
    """Return a data set's name in tables: as the spec says, else its folder's or its plug-in's."""
    return spec.label or (Path(spec.path).resolve().name if spec.path else spec.name)
