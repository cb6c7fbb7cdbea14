"""Check a data set's files before an experiment: find what is missing, broken or mislabelled."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spar_bench import datasets, registry
from spar_bench.datasets._files import FileDataset
from spar_bench.datasets.base import Dataset, Split
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.spec.images import DatasetPart

SAMPLE = 32
"""Images opened when not all are, evenly spaced."""


@dataclass(frozen=True)
class Checked:
    """What was checked, and one line for each problem."""

    split: Split
    root: Path | None
    n_images: int
    n_opened: int
    has_masks: bool
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
    dataset, has_masks = _opened(spec, split, found)
    if isinstance(dataset, FileDataset):
        root, n_published = dataset.root, dataset.n_published
    problems = [str(problem) for problem in found]
    if n_published not in (None, len(dataset)):
        problems.append(
            f"data set {spec.name}: {split} must have {n_published} images, as published, but "
            f"{len(dataset)} can be used; complete it, or correct n_images in its data file"
        )
    chosen = range(len(dataset)) if every else _spread(len(dataset))
    problems += _broken(dataset, chosen, has_masks=has_masks)
    return Checked(split, root, len(dataset), len(chosen), has_masks, problems)


def _opened(
    spec: DatasetPart, split: Split, problems: list[SparBenchError]
) -> tuple[Dataset, bool]:
    """Return a split, training images with their masks if there are some; and if it has masks."""
    plugin: type[Dataset] = registry.load("datasets", spec.name)
    options = {"problems": problems} if issubclass(plugin, FileDataset) else {}
    if split == "train":
        with suppress(NotReady):
            return plugin(split, datasets.settings(spec, labelled=True), **options), True
    return plugin(split, datasets.settings(spec), **options), split == "val"


def _spread(n_images: int) -> list[int]:
    """Return the indices of a sample, first and last among them."""
    n = min(SAMPLE, n_images)
    return [round(place * (n_images - 1) / max(n - 1, 1)) for place in range(n)]


def usual_split(spec: DatasetPart) -> Split:
    """Return val, or train where a data file describes no val."""
    described = datasets.facts(spec).files
    return "train" if described and "val" not in described else "val"


def _broken(dataset: Dataset, chosen: Iterable[int], *, has_masks: bool) -> Iterator[str]:
    """Open images, and masks where there are some; yield what is wrong with each."""
    for index in chosen:
        try:
            if has_masks:
                dataset.sample(index)
            else:
                dataset.image(index)
        except SparBenchError as error:
            yield str(error)
