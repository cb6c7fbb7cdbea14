"""Aggregate rows over seeds: a method with its settings, on one data set and resolution."""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from spar_bench.report.names import (
    IMPORTED,
    RANDOM_WEIGHTS,
    backbone_name,
    setting_text,
    trained_part,
)
from spar_bench.results import Cost, Results, Row, Status, Training
from spar_bench.values import METHODS

SWEPT_COLUMNS = {
    "backbone": "backbone",
    "backbone.name": "backbone",
    "evaluate.average": "average",
    "evaluate.classifier": "classifier",
    "evaluate.classifier.name": "classifier",
    "evaluate.datasets": "dataset",
    "evaluate.methods": "method",
    "evaluate.refiner": "refiner",
    "evaluate.short_side_px": "eval_short_side_px",
    "images.short_side_px": "train_short_side_px",
    "student.checkpoint": "trainable",
    "student.loss": "loss",
    "student.trainable": "trainable",
    "teacher.stride_px": "stride_px",
    "teacher.window_px": "window_px",
}
"""Swept keys that a column of results.csv already shows."""

_SINGLE_PASS = ("backbone", "refiner", "classifier", "dtype")
_SETTINGS = {
    "pretrained": _SINGLE_PASS,
    "teacher": (
        "backbone", "window_px", "stride_px", "average", "refiner", "classifier", "dtype",
    ),
    "student": (
        "backbone", "trainable", "loss", "stride_px", "window_px", "train_short_side_px",
        "refiner", "classifier", "dtype",
    ),
}  # fmt: skip
_OF_TARGETS = ("teacher.keep", "teacher.normalise", "teacher.precision")
_WITHOUT_EFFECT_ON = {
    "pretrained": ("teacher.", "student.", "images.", "measure.", "evaluate.probes"),
    "teacher": (*_OF_TARGETS, "student.", "images.", "measure.", "evaluate.probes"),
    "student": ("teacher.keep", "measure.", "evaluate.probes"),
}
"""Parts of a spec that cannot affect a method's numbers."""
_WITHOUT_EFFECT_ON_IMPORTED = (*_OF_TARGETS, "student.", "images.")
"""Those that cannot affect a student which was trained elsewhere."""
_WITHOUT_EFFECT_WITH = {
    "text": ("evaluate.classifier.",),
    "linear": ("evaluate.templates", "evaluate.logit_scale"),
}
"""Settings that cannot affect the numbers of a classifier."""


class Panel(NamedTuple):
    """What accuracies must have in common to be comparable."""

    dataset: str
    eval_short_side_px: int

    @property
    def title(self) -> str:
        """Name of the panel among those of its data set."""
        return f"short side {self.eval_short_side_px} px"


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One point of a figure, one line of a table: rows that differ only in their seed.

    `mious` holds a fraction for each finished evaluation, `evaluations` its fingerprint, `seeds`
    its seed, and `unfinished` the status of each other one. `training` is what a student took, the
    mean over seeds. `classes` is a key of `Results.classes`. `varying` names the settings in which
    this method's aggregates differ, which a label must show. `rows` are the indices of the finished
    ones in the results, `cost_row` that of the one with `cost`. `is_imported` tells of a student
    that was trained elsewhere: its settings are only those that are known.
    """

    method: str
    panel: Panel
    settings: dict[str, Any]
    mious: list[float]
    evaluations: list[str]
    seeds: list[int | None]
    trials: list[str]
    unfinished: list[Status]
    cost: Cost
    divides_patch: bool | None
    classes: str
    has_random_weights: bool
    training: Training
    rows: tuple[int, ...]
    cost_row: int
    varying: tuple[str, ...] = ()
    is_imported: bool = False

    @property
    def miou(self) -> float | None:
        """Mean over seeds, a fraction; None when nothing finished."""
        return statistics.fmean(self.mious) if self.mious else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds (n - 1), None with fewer than two."""
        return statistics.stdev(self.mious) if len(self.mious) > 1 else None

    @property
    def device(self) -> str:
        """What its latency was measured on, "" without one."""
        return self.cost.device or ""

    @property
    def label(self) -> str:
        """Name of the aggregate in a figure, such as `s = 12` or `SPAR last 2 blocks`."""
        return self.label_without()

    @property
    def name(self) -> str:
        """Name of the aggregate outside figures: it says whether it is a teacher."""
        return f"teacher {self.label}" if self.method == "teacher" else self.label

    @property
    def marked_name(self) -> str:
        """Name outside figures, which also says whether weights are random."""
        if not self.has_random_weights or RANDOM_WEIGHTS in self.name:
            return self.name
        return f"{self.name} ({RANDOM_WEIGHTS})"

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity, whatever the panel: equal for the same method and settings on two of them."""
        return (self.method, *((name, str(value)) for name, value in self.settings.items()))

    def label_without(self, *axes: str) -> str:
        """Name the aggregate, leaving out settings that an axis of the figure shows."""
        names = [name for name in self.varying if name not in axes]
        if self.method == "pretrained":
            return ", ".join(["single pass", *self._texts(names)])
        if self.method == "teacher":
            names = [name for name in names if name != "stride_px"]
            stride = [] if "stride_px" in axes else self._texts(["stride_px"])
            return ", ".join([*self._texts(names), *stride]) or "sliding window"
        if not self.varying:
            names = ["trainable"]
        return " ".join(["SPAR", ", ".join(self._texts(names))]).rstrip()

    def _texts(self, names: Iterable[str]) -> list[str]:
        values = [(name, self.settings.get(name)) for name in names]
        texts = [setting_text(name, value) for name, value in values if value is not None]
        return [each.removeprefix(IMPORTED) for each in texts]


def read_aggregates(results: Results, *, mixed: Collection[str] = ()) -> list[Aggregate]:
    """Aggregate the rows of `results`: pretrained, teachers from coarse to fine, students.

    An evaluation that several trials share, such as the pretrained baseline, is in one aggregate
    only. The protocol distinguishes aggregates only on `mixed` data sets: on others all rows have
    one protocol, or another column shows it.
    """
    groups: dict[tuple[str, str, Panel], list[Row]] = {}
    for row in results.rows:
        panel = Panel(row.dataset, row.eval_short_side_px)
        groups.setdefault((row.group, row.method, panel), []).append(row)

    shared: dict[tuple[str, Panel, frozenset[str]], list[Row]] = {}
    for (_, method, panel), rows in groups.items():
        identities = frozenset(_identity(row) for row in rows)
        shared.setdefault((method, panel, identities), []).extend(rows)

    index = {id(row): number for number, row in enumerate(results.rows)}
    aggregates = _tell_apart(
        [_join(panel, rows, index, mixed=mixed) for (_, panel, _), rows in shared.items()],
        shared.values(),
    )
    varying = {
        method: _varying([each for each in aggregates if each.method == method])
        for method in {each.method for each in aggregates}
    }
    aggregates = [replace(each, varying=varying[each.method]) for each in aggregates]
    return sorted(aggregates, key=_order)


def panels_of(aggregates: Iterable[Aggregate]) -> list[Panel]:
    """Return the panels of `aggregates`, by data set in order of appearance, then by resolution."""
    panels = dict.fromkeys(each.panel for each in aggregates)
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    return sorted(panels, key=lambda p: (datasets.index(p.dataset), p.eval_short_side_px))


def of_one_device(aggregates: Iterable[Aggregate]) -> bool:
    """Tell whether all that has a latency has it of one device."""
    return len({each.device for each in aggregates if each.device}) < 2


def agrees(a: Aggregate, b: Aggregate, *, but: Collection[str] = ()) -> bool:
    """Tell whether two aggregates have one panel and agree in every setting that both have."""
    names = (a.settings.keys() & b.settings.keys()) - set(but)
    return a.panel == b.panel and all(a.settings[name] == b.settings[name] for name in names)


def stride_series(aggregates: Iterable[Aggregate]) -> list[list[Aggregate]]:
    """Return the teachers among `aggregates`, one list for those that differ only in stride."""
    teachers = [each for each in aggregates if each.method == "teacher"]
    if len({frozenset(each.settings) for each in teachers}) == 1:  # else not all are comparable
        alike: dict[tuple[Any, ...], list[Aggregate]] = {}
        for each in teachers:
            others = (f"{n} {value}" for n, value in each.settings.items() if n != "stride_px")
            alike.setdefault((each.panel, *sorted(others)), []).append(each)
        return list(alike.values())
    found: list[list[Aggregate]] = []
    for teacher in teachers:
        series = next((s for s in found if agrees(s[0], teacher, but=["stride_px"])), None)
        if series is None:
            found.append([teacher])
        else:
            series.append(teacher)
    return found


def _identity(row: Row) -> str:
    return row.stages.get("evaluate", f"{row.group}/{row.trial}/{row.method}")


def _join(
    panel: Panel, rows: list[Row], index: Mapping[int, int], *, mixed: Collection[str]
) -> Aggregate:
    """Aggregate rows; `index` has the place of each in the results, by `id`."""
    once = list({_identity(row): row for row in rows}.values())
    finished = [row for row in once if row.status == "finished" and row.miou is not None]
    first = (finished or once)[0]
    measured = [row for row in once if row.cost.latency_p50_ms is not None]
    priced = measured[0] if measured else first
    return Aggregate(
        method=first.method,
        panel=panel,
        settings=_settings(rows) | ({"protocol": first.protocol} if panel.dataset in mixed else {}),
        mious=[row.miou for row in finished if row.miou is not None],
        evaluations=[_identity(row) for row in finished],
        seeds=[row.seed for row in finished],
        trials=[row.trial for row in finished],
        unfinished=[
            "not_measured" if row.status == "finished" else row.status
            for row in once
            if row not in finished
        ],
        cost=priced.cost,
        divides_patch=first.divides_patch,
        classes=first.classes,
        has_random_weights=first.random_weights,
        training=_mean_training([row.training for row in finished]),
        rows=tuple(index[id(row)] for row in finished),
        cost_row=index[id(priced)],
        is_imported=first.checkpoint is not None,
    )


def _mean_training(each: list[Training]) -> Training:
    """Return the mean of every quantity that is known of a student, over its seeds."""
    means: dict[str, Any] = {}
    for name in (one.name for one in fields(Training)):
        known = [value for one in each if (value := getattr(one, name)) is not None]
        if known:  # a count stays a whole number where seeds agree
            means[name] = known[0] if len(set(known)) == 1 else statistics.fmean(known)
    return Training(**means)


def _settings(rows: list[Row]) -> dict[str, Any]:
    """Return what may distinguish an aggregate: columns, and swept keys on which rows agree."""
    first = rows[0]
    values = {**vars(first), "backbone": backbone_name(first), "trainable": trained_part(first)}
    settings = {name: values[name] for name in _SETTINGS.get(first.method, _SINGLE_PASS)}
    if first.checkpoint is not None:
        settings = {name: value for name, value in settings.items() if value is not None}
    shortest, longest = first.train_short_side_px or (None, None)
    if shortest == longest and "train_short_side_px" in settings:
        settings["train_short_side_px"] = shortest
    for name, value in first.swept.items():
        affects = not name.startswith(
            _WITHOUT_EFFECT_ON.get(first.method, ())
            + _WITHOUT_EFFECT_WITH.get(first.classifier, ())
            + (_WITHOUT_EFFECT_ON_IMPORTED if first.checkpoint is not None else ())
        )
        if name not in SWEPT_COLUMNS and affects and all(r.swept.get(name) == value for r in rows):
            settings[name] = value
    return settings


def _tell_apart(aggregates: list[Aggregate], rows: Iterable[list[Row]]) -> list[Aggregate]:
    """Add the group to aggregates that differ only in what no column and no swept key shows."""
    n_alike = Counter((each.key, each.panel) for each in aggregates)
    return [
        replace(each, settings=each.settings | {"group": its_rows[0].group})
        if n_alike[each.key, each.panel] > 1
        else each
        for each, its_rows in zip(aggregates, rows, strict=True)
    ]


def _varying(aggregates: list[Aggregate]) -> tuple[str, ...]:
    """Return the settings in which aggregates of one method differ, as far as they are known."""
    names = dict.fromkeys(name for each in aggregates for name in each.settings)

    def values(name: str) -> set[str]:
        known = [each for each in aggregates if name in each.settings or not each.is_imported]
        return {str(each.settings.get(name)) for each in known}

    return tuple(name for name in names if len(values(name)) > 1)


def _order(aggregate: Aggregate) -> tuple[int, int, int]:
    method = METHODS.index(aggregate.method) if aggregate.method in METHODS else len(METHODS)
    if aggregate.method != "teacher":
        return method, 0, 0
    return method, -(aggregate.settings["window_px"] or 0), -(aggregate.settings["stride_px"] or 0)
