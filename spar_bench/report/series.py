"""Find what was swept, and the arms along it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import seaborn as sns

from spar_bench.report.arms import Arm
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
    """A setting that was swept: its key, and its values among the arms that finished."""

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

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers rather than names."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def is_log(self) -> bool:
        """Whether the values span so wide a range that a linear axis would crowd them."""
        return bool(min(self.values) > 0 and max(self.values) / min(self.values) >= 6)

    def of(self, arm: Arm) -> Any:
        """Return where an arm is on this axis, or None if it has no such setting."""
        is_panel = self.key == RESOLUTION
        return arm.panel.eval_short_side_px if is_panel else arm.settings.get(self.key)

    def moves(self, arm: Arm) -> bool:
        """Say whether arms of this method are at several places on the axis."""
        return self.key == RESOLUTION or (self.key in arm.varying and self.of(arm) is not None)


@dataclass(frozen=True)
class Series:
    """Arms in the order of an axis, and their mark; joined if they differ only in it.

    `points` holds the mark of each arm, once `marked` has decided it.
    """

    label: str
    arms: list[Arm]
    mark: Mark
    joined: bool
    points: tuple[Mark, ...] = ()


def swept_axes(arms: Iterable[Arm]) -> list[Axis]:
    """Return the settings, and the resolution, in which finished arms differ."""
    arms = [arm for arm in arms if arm.miou is not None]
    keys = dict.fromkeys(key for arm in arms for key in (*arm.varying, RESOLUTION))
    axes = []
    for key in keys:
        axis = Axis(key, ())
        places = {str(axis.of(arm)): axis.of(arm) for arm in arms if axis.moves(arm)}
        axes.append(Axis(key, tuple(places.values())))
    return [axis for axis in axes if len(axis.values) > 1 and axis.key != "group"]


def series_along(arms: Iterable[Arm], axis: Axis) -> list[Series]:
    """Group the arms that differ only along `axis`; if a method has too many, return the best.

    If few arms differ only in it, as in a search, a method's arms are one cloud of points.
    """
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms:
        if axis.moves(arm):
            rest = ((key, str(value)) for key, value in arm.settings.items() if key != axis.key)
            groups.setdefault((arm.method, *rest), []).append(arm)
    if 2 * len(groups) > sum(len(group) for group in groups.values()):
        return _clouds([arm for group in groups.values() for arm in group], axis)
    kept = _best(list(groups.values()))
    return [
        Series(
            group[0].label_without(axis.key), _in_order(group, axis), mark, joined=axis.is_numeric
        )
        for group, mark in zip(kept, _marks(kept), strict=True)
    ]


def marked(series: list[Series], its_marks: Mapping[str, Mark]) -> list[Series]:
    """Give each arm the mark it has in every figure, `its_marks` by label.

    If several series of one method would then look alike, each arm gets the mark of its series.
    """
    found = []
    for its in series:
        rivals = [other for other in series if other.arms[0].method == its.arms[0].method]
        own = tuple(its_marks[arm.label] for arm in its.arms)
        if not _tell_apart(rivals, its_marks):
            own = tuple(_of_series(arm, its.mark) for arm in its.arms)
        elif its.arms[0].method == "student" and len(set(own)) > 1:
            its = replace(its, mark=its.mark._replace(color=GREY))
        found.append(replace(its, points=own))
    return found


def _tell_apart(rivals: list[Series], its_marks: Mapping[str, Mark]) -> bool:
    """Say whether the arms' own marks make clear which of `rivals` an arm belongs to."""
    labels = [[arm.label for arm in its.arms] for its in rivals]
    own = [{its_marks[label] for label in its} for its in labels]
    n_marks = len(set().union(*own))
    if any(its.joined for its in rivals):
        return len(rivals) == 1 or n_marks == len(rivals) == sum(map(len, own))
    return len(rivals) == 1 or n_marks == len({label for its in labels for label in its})


def _of_series(arm: Arm, mark: Mark) -> Mark:
    return DOES_NOT_DIVIDE._replace(color=mark.color) if arm.divides_patch is False else mark


def _best(groups: list[list[Arm]]) -> list[list[Arm]]:
    best = sorted(groups, key=lambda group: -max(arm.miou or 0 for arm in group))
    kept = []
    for method in {group[0].method for group in groups}:
        kept += [group for group in best if group[0].method == method][:MOST_SERIES]
    return [group for group in groups if group in kept]


def _clouds(arms: list[Arm], axis: Axis) -> list[Series]:
    clouds: dict[str, list[Arm]] = {}
    for arm in arms:
        clouds.setdefault(arm.method, []).append(arm)
    found = _marks(list(clouds.values()))
    return [
        Series(method, _in_order(cloud, axis), mark, joined=False)
        for (method, cloud), mark in zip(clouds.items(), found, strict=True)
    ]


def _in_order(arms: list[Arm], axis: Axis) -> list[Arm]:
    return sorted(arms, key=axis.of) if axis.is_numeric else arms


def _marks(groups: list[list[Arm]]) -> list[Mark]:
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
