"""Check a data set's files before an experiment: find what is missing, broken or mislabelled."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spar_bench import datasets, registry
from spar_bench.datasets._files import FileDataset
from spar_bench.datasets.base import Dataset, Split, spread
from spar_bench.errors import SparBenchError
from spar_bench.spec.schema import DatasetPart

SAMPLE = 32
"""Images opened when not all are, evenly spaced."""


@dataclass(frozen=True)
class Checked:
    """What was checked, and one line for each problem."""

    split: Split
    root: Path | None
    n_images: int
    n_opened: int
    problems: Sequence[str]


def check(spec: DatasetPart, split: Split | None = None, *, every: bool = False) -> Checked:
    """List a split and open a sample of it, or all; problems do not stop the check.

    The default `split` is val, or train where a data file describes no val.

    Raises:
        NotReady: there is nothing to check.
        DataError: a data file or a class list is invalid.
    """
    split = split or usual_split(spec)
    root, n_published, found = None, None, list[SparBenchError]()
    plugin: type[Dataset] = registry.load("datasets", spec.name)
    if issubclass(plugin, FileDataset):
        listed = plugin(split, datasets.settings(spec), problems=found)
        dataset: Dataset = listed
        root, n_published = listed.root, listed.n_published
    else:
        dataset = plugin(split, datasets.settings(spec))
    problems = [str(problem) for problem in found]
    if n_published not in (None, len(dataset)):
        problems.append(
            f"data set {spec.name}: {split} must have {n_published} images, as published, but "
            f"{len(dataset)} can be used; complete it, or correct n_images in its data file"
        )
    chosen = range(len(dataset)) if every else spread(len(dataset), SAMPLE)
    problems += _broken(dataset, split, chosen)
    return Checked(split, root, len(dataset), len(chosen), problems)


def usual_split(spec: DatasetPart) -> Split:
    """Return val, or train where a data file describes no val."""
    described = datasets.facts(spec).files
    return "train" if described and "val" not in described else "val"


def _broken(dataset: Dataset, split: Split, chosen: Iterable[int]) -> Iterator[str]:
    """Open images, and masks where the split has them; yield what is wrong with each."""
    for index in chosen:
        try:
            if split == "val":
                dataset.sample(index)
            else:
                dataset.image(index)
        except SparBenchError as error:
            yield str(error)
