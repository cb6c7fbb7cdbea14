"""Join rows into arms: a method with its settings, on one data set and resolution, over seeds."""

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from spar_bench.results import Cost, Results, Row, Status
from spar_bench.spec.schema import METHODS

SWEPT_COLUMNS = {
    "backbone": "backbone",
    "backbone.name": "backbone",
    "evaluate.average": "average",
    "evaluate.datasets": "dataset",
    "evaluate.methods": "method",
    "evaluate.refiner": "refiner",
    "evaluate.short_side_px": "eval_short_side_px",
    "images.short_side_px": "train_short_side_px",
    "student.loss": "loss",
    "student.trainable": "trainable",
    "teacher.stride_px": "stride_px",
    "teacher.window_px": "window_px",
}
"""Swept keys that a column of results.csv already shows."""

_SINGLE_PASS = ("backbone", "refiner", "dtype")
_SETTINGS = {
    "pretrained": _SINGLE_PASS,
    "teacher": ("backbone", "window_px", "stride_px", "average", "refiner", "dtype"),
    "student": (
        "backbone", "trainable", "loss", "stride_px", "window_px", "train_short_side_px",
        "refiner", "dtype",
    ),
}  # fmt: skip
_NO_PART_OF = {
    "pretrained": ("teacher.", "student.", "images.", "measure."),
    "teacher": ("student.", "images.", "measure."),
    "student": ("measure.",),
}
"""Parts of a spec that cannot affect a method's numbers."""


class Panel(NamedTuple):
    """What accuracies must have in common to be comparable."""

    dataset: str
    eval_short_side_px: int

    @property
    def title(self) -> str:
        """Name of the panel among those of its data set."""
        return f"short side {self.eval_short_side_px} px"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One point of a figure, one line of a table.

    `mious` holds a fraction for each finished evaluation, `evaluations` its fingerprint, and
    `unfinished` the status of each other one. `varying` names the settings in which this method's
    arms differ, which a label must show.
    """

    method: str
    panel: Panel
    settings: dict[str, Any]
    mious: list[float]
    evaluations: list[str]
    trials: list[str]
    unfinished: list[Status]
    cost: Cost
    divides_patch: bool | None
    varying: tuple[str, ...] = ()

    @property
    def miou(self) -> float | None:
        """Mean over seeds, a fraction; None when nothing finished."""
        return statistics.fmean(self.mious) if self.mious else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds (n - 1), None with fewer than two."""
        return statistics.stdev(self.mious) if len(self.mious) > 1 else None

    @property
    def label(self) -> str:
        """Name of the arm in a figure, such as `s = 12` or `SPAR last 2 blocks`."""
        return self.label_without()

    @property
    def name(self) -> str:
        """Name of the arm outside figures: it says whether it is a teacher."""
        return f"teacher {self.label}" if self.method == "teacher" else self.label

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the arm, whatever its data set; equal for the same arm of two panels."""
        return (self.method, *((name, str(value)) for name, value in self.settings.items()))

    def label_without(self, *axes: str) -> str:
        """Name the arm, leaving out settings that an axis of the figure shows."""
        names = [name for name in self.varying if name not in axes]
        if self.method == "pretrained":
            return ", ".join(["single pass", *self._say(names)])
        if self.method == "teacher":
            names = [name for name in names if name != "stride_px"]
            stride = [] if "stride_px" in axes else self._say(["stride_px"])
            return ", ".join([*self._say(names), *stride]) or "sliding window"
        if not self.varying:
            names = ["trainable"]
        return " ".join(["SPAR", ", ".join(self._say(names))]).rstrip()

    def _say(self, names: Iterable[str]) -> list[str]:
        values = [(name, self.settings.get(name)) for name in names]
        return [say(name, value) for name, value in values if value is not None]


def read_arms(results: Results, *, mixed: Collection[str] = ()) -> list[Arm]:
    """Join the rows of `results` into arms: pretrained, teachers from coarse to fine, students.

    An evaluation that several trials share, such as the pretrained baseline, is in one arm only.
    The protocol distinguishes arms only on `mixed` data sets: on others all rows have one protocol,
    or another column shows it.
    """
    groups: dict[tuple[str, str, Panel], list[Row]] = {}
    for row in results.rows:
        panel = Panel(row.dataset, row.eval_short_side_px)
        groups.setdefault((row.group, row.method, panel), []).append(row)

    shared: dict[tuple[str, Panel, frozenset[str]], list[Row]] = {}
    for (_, method, panel), rows in groups.items():
        identities = frozenset(_identity(row) for row in rows)
        shared.setdefault((method, panel, identities), []).extend(rows)

    arms = _tell_apart(
        [_join(panel, rows, mixed=mixed) for (_, panel, _), rows in shared.items()],
        shared.values(),
    )
    for method in {arm.method for arm in arms}:
        varying = _varying([arm for arm in arms if arm.method == method])
        arms = [replace(arm, varying=varying) if arm.method == method else arm for arm in arms]
    return sorted(arms, key=_order)


def panels_of(arms: Iterable[Arm]) -> list[Panel]:
    """Return the panels of `arms`, by data set in order of appearance, then by resolution."""
    datasets = list(dict.fromkeys(arm.panel.dataset for arm in arms))
    panels = {arm.panel for arm in arms}
    return sorted(panels, key=lambda p: (datasets.index(p.dataset), p.eval_short_side_px))


def agrees(a: Arm, b: Arm, *, but: Collection[str] = ()) -> bool:
    """Say whether two arms have the same panel and the same value of every setting both have."""
    names = (a.settings.keys() & b.settings.keys()) - set(but)
    return a.panel == b.panel and all(a.settings[name] == b.settings[name] for name in names)


def stride_series(arms: Iterable[Arm]) -> list[list[Arm]]:
    """Return the teachers among `arms`, one list for those that differ only in stride."""
    found: list[list[Arm]] = []
    for arm in (arm for arm in arms if arm.method == "teacher"):
        series = next((one for one in found if agrees(one[0], arm, but=["stride_px"])), None)
        if series is None:
            found.append([arm])
        else:
            series.append(arm)
    return found


def say(name: str, value: Any) -> str:
    """Put a setting into the words of a label: `s = 12`, `last 2 blocks`, `epochs = 8`."""
    text = value_text(value)
    match name:
        case "stride_px":
            return f"s = {text}"
        case "window_px":
            return f"w = {text}"
        case "average":
            return f"{text.removesuffix('s')} average"
        case "refiner":
            return "no refiner" if text == "none" else text
        case "train_short_side_px":
            return f"train {text} px"
        case "backbone" | "loss" | "trainable" | "protocol" | "dtype" | "group":
            return text
    return f"{name.split('.')[-1].replace('_', ' ')} = {text}"


def value_text(value: Any) -> str:
    """Write a value as a reader would: no underscores, short numbers, ranges with a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "–".join(value_text(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(part)}" for key, part in value.items())
    return "none" if value is None else _words(str(value))


def _words(text: str) -> str:
    return text.replace("_", " ").replace("last 1 blocks", "last block")


def _identity(row: Row) -> str:
    return row.stages.get("evaluate", f"{row.group}/{row.trial}/{row.method}")


def _join(panel: Panel, rows: list[Row], *, mixed: Collection[str]) -> Arm:
    once = list({_identity(row): row for row in rows}.values())
    finished = [row for row in once if row.status == "finished" and row.miou is not None]
    first = (finished or once)[0]
    measured = [row.cost for row in once if row.cost.latency_p50_ms is not None]
    return Arm(
        method=first.method,
        panel=panel,
        settings=_settings(rows) | ({"protocol": first.protocol} if panel.dataset in mixed else {}),
        mious=[row.miou for row in finished if row.miou is not None],
        evaluations=[_identity(row) for row in finished],
        trials=[row.trial for row in finished],
        unfinished=[
            "not_measured" if row.status == "finished" else row.status
            for row in once
            if row not in finished
        ],
        cost=measured[0] if measured else first.cost,
        divides_patch=first.divides_patch,
    )


def _settings(rows: list[Row]) -> dict[str, Any]:
    """Return what may distinguish an arm: columns, and swept keys on which its rows agree."""
    first = rows[0]
    settings = {name: getattr(first, name) for name in _SETTINGS.get(first.method, _SINGLE_PASS)}
    if sides := settings.get("train_short_side_px"):
        settings["train_short_side_px"] = "-".join(dict.fromkeys(sides.split("-")))
    for name, value in first.swept.items():
        moves = not name.startswith(_NO_PART_OF.get(first.method, ()))
        if name not in SWEPT_COLUMNS and moves and all(r.swept.get(name) == value for r in rows):
            settings[name] = value
    return settings


def _tell_apart(arms: list[Arm], rows: Iterable[list[Row]]) -> list[Arm]:
    """Add the group to arms that differ only in what no column and no swept key shows."""
    keys = [(arm.key, arm.panel) for arm in arms]
    return [
        replace(arm, settings=arm.settings | {"group": its_rows[0].group})
        if keys.count(key) > 1
        else arm
        for arm, its_rows, key in zip(arms, rows, keys, strict=True)
    ]


def _varying(arms: list[Arm]) -> tuple[str, ...]:
    names = dict.fromkeys(name for arm in arms for name in arm.settings)
    return tuple(n for n in names if len({str(arm.settings.get(n)) for arm in arms}) > 1)


def _order(arm: Arm) -> tuple[int, int, int]:
    method = METHODS.index(arm.method) if arm.method in METHODS else len(METHODS)
    if arm.method != "teacher":
        return method, 0, 0
    return method, -(arm.settings["window_px"] or 0), -(arm.settings["stride_px"] or 0)
