"""Find the groups of a sweep that each claim of its spec is about."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from spar_bench.claims import Claim, Selected
from spar_bench.spec.claims import ROW_KEYS, ClaimSpec
from spar_bench.spec.document import Document, Problem
from spar_bench.spec.keys import is_key, look_up, read_value, suggest_key
from spar_bench.spec.schema import Settings
from spar_bench.suggest import suggest
from spar_bench.validation import Raw, Steps, dotted, show
from spar_bench.values import Method

if TYPE_CHECKING:
    from spar_bench.spec.read import Point


class Selector:
    """Resolves the claims of a document against the points of its sweep.

    `problems` has what is wrong in them.
    """

    def __init__(self, document: Document, points: "list[Point]") -> None:
        self._document, self._points = document, points
        self.problems: list[Problem] = []

    def claims(self, specs: Iterable[ClaimSpec]) -> list[Claim]:
        """Return the claims with the groups that they are about."""
        return [self._claim(index, spec) for index, spec in enumerate(specs)]

    def _claim(self, index: int, spec: ClaimSpec) -> Claim:
        steps: Steps = ("claims", index)
        sides = [
            [self._selected(spec.where, own, steps, inner) for own, inner in side]
            for side in spec.sides()
        ]
        return Claim(
            text=spec.claim,
            paper=spec.paper,
            quantity=spec.quantity,
            form=spec.form,
            sides=sides,
            expected=spec.expected,
            line=self._document.position_of_value(steps).line,
            tried=spec.tried,
        )

    def _in_file(self, claim: Steps, inner: Steps) -> Steps:
        """Return where rows of a side are written: a side of one is no list."""
        steps = (*claim, *inner)
        return steps if steps in self._document.values else steps[:-1]

    def _selected(self, where: Raw, own: Raw, claim: Steps, inner: Steps) -> Selected:
        steps = self._in_file(claim, inner)
        where, own = _spelled_out(where), _spelled_out(own)
        values, n_before = {**where, **own}, len(self.problems)
        for key in values:
            at = (*steps, key) if key in own else (*claim, "where", key)
            if key not in ROW_KEYS and not is_key(key):
                rows = ", ".join(ROW_KEYS)
                text = f"must be {rows} or a key of a spec, but got {show(key)}; {suggest_key(key)}"
                self._note(at, text)
                return Selected("", [], "")
        method, side = values.get("method"), values.get("short_side_px")
        if method not in get_args(Method):
            known = suggest(str(method), get_args(Method))
            self._note(steps, f"must name a method, but got {show(method)}; {known}")
        elif side is not None and type(side) is not int:
            self._note(steps, f"short_side_px: must be a whole number, but got {show(side)}")
        points = list(self._matching(values))
        shown = ", ".join(f"{key}: {show(value)}" for key, value in values.items())
        if len(self.problems) == n_before and self._points:
            self._require_one(points, str(method), shown, steps)
        if len(self.problems) == n_before and points:
            self._require_place(points, values, shown, steps)
        dataset = values.get("dataset")
        return Selected(
            text=shown,
            groups=[point.group for point in points],
            method=str(method),
            dataset=None if dataset is None else str(dataset),
            short_side_px=side,
        )

    def _require_one(self, points: "list[Point]", method: str, shown: str, steps: Steps) -> None:
        """Record a selection of nothing, or of several settings that affect its numbers."""
        if not points:
            text = f"must select a row of the sweep, but {shown} selects none; correct it"
            self._note(steps, text)
        first = {_decisive(point.settings, method): point.group for point in reversed(points)}
        if len(first) > 1:
            two = " and ".join(list(first.values())[:2])
            text = f"must select one setting, but {shown} selects {len(first)}, such as {two}"
            self._note(steps, f"{text}; say which, with further keys")

    def _require_place(self, points: "list[Point]", values: Raw, shown: str, steps: Steps) -> None:
        """Record a data set or resolution that no row has, or several resolutions."""
        evaluates = [point.settings.evaluate for point in points]
        datasets = {one.display_name: None for each in evaluates for one in each.datasets}
        sides = {side: None for each in evaluates for side in each.short_side_px}
        dataset, side = values.get("dataset"), values.get("short_side_px")
        if dataset is not None and str(dataset) not in datasets:
            text = f"must be a data set of these rows, but got {show(dataset)}"
            self._note(steps, f"dataset: {text}; {suggest(str(dataset), datasets)}")
        several = ", ".join(map(str, sides))
        if side is not None and side not in sides and "own" not in sides:
            text = f"must be of these rows, but got {side}; they have {several}"
            self._note(steps, f"short_side_px: {text}")
        elif side is None and len(sides) > 1:
            text = f"must select one resolution, but {shown} selects {several}"
            self._note(steps, f"{text}; add short_side_px")

    def _matching(self, values: Raw) -> "Iterator[Point]":
        keys = {key: value for key, value in values.items() if key not in ROW_KEYS}
        wanted = {key: _plain(read_value(key, value)) for key, value in keys.items()}
        for point in self._points:
            evaluate = point.settings.evaluate
            if values.get("method") not in evaluate.methods:
                continue
            if all(_plain(look_up(point.settings, key)) == value for key, value in wanted.items()):
                yield point

    def _note(self, steps: Steps, text: str) -> None:
        position = self._document.position_of_value(steps)
        self.problems.append(Problem(position, dotted(steps), text))


def _spelled_out(values: Raw) -> Raw:
    """Return a selection in which each setting of a part has its own dotted key."""
    found: Raw = {}
    for key, value in values.items():
        settings = value if isinstance(value, dict) else {"name": value}
        found |= {key if name == "name" else f"{key}.{name}": one for name, one in settings.items()}
    return found


_DECISIVE = {
    "pretrained": ("backbone", "evaluate"),
    "teacher": ("backbone", "teacher", "evaluate"),
    "student": ("backbone", "images", "teacher", "student", "evaluate"),
}
"""The parts of a point that can affect a method's numbers."""
_INDECISIVE = {"methods", "datasets", "short_side_px", "probes", "keep"}
"""Keys of those parts that do not, or that a row states by itself; images have one of them too."""


def _decisive(settings: Settings, method: str) -> tuple[str, ...]:
    """Return what two points share if a method's rows in them are the same."""
    return tuple(
        getattr(settings, part).model_dump_json(
            exclude=_INDECISIVE if part in ("evaluate", "teacher") else None
        )
        for part in _DECISIVE[method]
    )


def _plain(value: Any) -> Any:
    """Return the name of a part that has one, such as a plug-in; else the value."""
    return getattr(value, "name", value) if isinstance(value, BaseModel) else value
