"""Find what was swept, and the aggregates along it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import seaborn as sns

from spar_bench.report.aggregates import Aggregate
from spar_bench.report.style import DIVIDES, DOES_NOT_DIVIDE, GREY, PRETRAINED, STUDENTS, Mark

RESOLUTION = "eval_short_side_px"
MOST_SERIES = len(STUDENTS)

_TITLES = {
    "stride_px": "Stride (px)",
    "window_px": "Window (px)",
    RESOLUTION: "Short side at evaluation (px)",
    "train_short_side_px": "Short side in training (px)",
    "trainable": "Trained part",
    "average": "Average of windows",
}


@dataclass(frozen=True)
class Axis:
    """A setting that was swept: its key, and its values among the aggregates that finished."""

    key: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Name of the figure, without its ending."""
        names = {RESOLUTION: "resolution", "train_short_side_px": "training_resolution"}
        return "accuracy_vs_" + names.get(self.key, self.key.split(".")[-1].removesuffix("_px"))

    @property
    def title(self) -> str:
        """Title of the axis, with its unit."""
        return _TITLES.get(self.key, self.key.split(".")[-1].replace("_", " ").capitalize())

    @cached_property
    def is_numeric(self) -> bool:
        """Whether the values are numbers rather than names."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @cached_property
    def is_log(self) -> bool:
        """Whether the values span so wide a range that a linear axis would crowd them."""
        return bool(min(self.values) > 0 and max(self.values) / min(self.values) >= 6)

    def of(self, aggregate: Aggregate) -> Any:
        """Return where an aggregate is on this axis, or None if it has no such setting."""
        is_panel = self.key == RESOLUTION
        return aggregate.panel.eval_short_side_px if is_panel else aggregate.settings.get(self.key)

    def moves(self, aggregate: Aggregate) -> bool:
        """Tell whether aggregates of this method are at several places on the axis."""
        if self.key == RESOLUTION:
            return True
        return self.key in aggregate.varying and self.of(aggregate) is not None


@dataclass(frozen=True)
class Series:
    """Arms in the order of an axis, and their mark; joined if they differ only in it.

    `points` holds the mark of each aggregate, once `with_marks` has decided it.
    """

    label: str
    aggregates: list[Aggregate]
    mark: Mark
    joined: bool
    points: tuple[Mark, ...] = ()


def swept_axes(aggregates: Iterable[Aggregate]) -> list[Axis]:
    """Return the settings, and the resolution, in which finished aggregates differ."""
    aggregates = [each for each in aggregates if each.miou is not None]
    keys = dict.fromkeys(key for each in aggregates for key in (*each.varying, RESOLUTION))
    axes = []
    for key in keys:
        axis = Axis(key, ())
        values = [axis.of(each) for each in aggregates if axis.moves(each)]
        axes.append(Axis(key, tuple({str(value): value for value in values}.values())))
    return [axis for axis in axes if len(axis.values) > 1 and axis.key != "group"]


def series_along(aggregates: Iterable[Aggregate], axis: Axis) -> list[Series]:
    """Group the aggregates that differ only along `axis`; of too many of a method, return the best.

    If few differ only in it, as in a search, the aggregates of a method are one cloud of points.
    """
    groups: dict[tuple[Any, ...], list[Aggregate]] = {}
    for aggregate in aggregates:
        if axis.moves(aggregate):
            rest = [(k, str(value)) for k, value in aggregate.settings.items() if k != axis.key]
            groups.setdefault((aggregate.method, *rest), []).append(aggregate)
    if 2 * len(groups) > sum(len(group) for group in groups.values()):
        return _clouds([aggregate for group in groups.values() for aggregate in group], axis)
    kept = _best(list(groups.values()))
    return [
        Series(
            group[0].label_without(axis.key), _in_order(group, axis), mark, joined=axis.is_numeric
        )
        for group, mark in zip(kept, _marks(kept), strict=True)
    ]


def with_marks(series: list[Series], mark_of: Mapping[str, Mark]) -> list[Series]:
    """Give each aggregate the mark it has in every figure, `mark_of` its label.

    If several series of one method would then look alike, each takes the mark of its series.
    """
    found = []
    for each in series:
        method = each.aggregates[0].method
        rivals = [other for other in series if other.aggregates[0].method == method]
        points = tuple(mark_of[aggregate.label] for aggregate in each.aggregates)
        if not _are_distinct(rivals, mark_of):
            points = tuple(_of_series(aggregate, each.mark) for aggregate in each.aggregates)
        elif method == "student" and len(set(points)) > 1:
            each = replace(each, mark=each.mark._replace(color=GREY))
        found.append(replace(each, points=points))
    return found


def _are_distinct(rivals: list[Series], mark_of: Mapping[str, Mark]) -> bool:
    """Tell whether marks make clear which of `rivals` an aggregate belongs to."""
    if len(rivals) == 1:
        return True
    labels = [[aggregate.label for aggregate in series.aggregates] for series in rivals]
    in_series = [{mark_of[label] for label in its_labels} for its_labels in labels]
    n_marks = len(set().union(*in_series))
    if any(series.joined for series in rivals):
        return n_marks == len(rivals) == sum(map(len, in_series))
    return n_marks == len({label for its_labels in labels for label in its_labels})


def _of_series(aggregate: Aggregate, mark: Mark) -> Mark:
    return DOES_NOT_DIVIDE._replace(color=mark.color) if aggregate.divides_patch is False else mark


def _best(groups: list[list[Aggregate]]) -> list[list[Aggregate]]:
    best = sorted(groups, key=lambda group: -max(aggregate.miou or 0 for aggregate in group))
    kept = []
    for method in {group[0].method for group in groups}:
        kept += [group for group in best if group[0].method == method][:MOST_SERIES]
    return [group for group in groups if group in kept]


def _clouds(aggregates: list[Aggregate], axis: Axis) -> list[Series]:
    clouds: dict[str, list[Aggregate]] = {}
    for aggregate in aggregates:
        clouds.setdefault(aggregate.method, []).append(aggregate)
    found = _marks(list(clouds.values()))
    return [
        Series(method, _in_order(cloud, axis), mark, joined=False)
        for (method, cloud), mark in zip(clouds.items(), found, strict=True)
    ]


def _in_order(aggregates: list[Aggregate], axis: Axis) -> list[Aggregate]:
    return sorted(aggregates, key=axis.of) if axis.is_numeric else aggregates


def _marks(groups: list[list[Aggregate]]) -> list[Mark]:
    """Give each group a mark: shades of one colour for teachers, a colour each for students."""
    methods = [group[0].method for group in groups]
    n_teachers = methods.count("teacher")
    shades = sns.light_palette(DIVIDES.color, n_teachers + 2, as_cmap=False).as_hex()[2:]
    found = []
    for index, method in enumerate(methods):
        nth = methods[:index].count(method)
        if method == "teacher":
            found.append(DIVIDES._replace(color=shades[nth]))
        else:
            found.append(STUDENTS[nth % len(STUDENTS)] if method == "student" else PRETRAINED)
    return found
