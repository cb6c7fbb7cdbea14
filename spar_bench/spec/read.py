"""Read an experiment: its points, resolved and validated, or every mistake with its position."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from spar_bench.claims import Claim
from spar_bench.files import YAML_ENDINGS
from spar_bench.published import published
from spar_bench.spec import group as groups
from spar_bench.spec.blocks import SearchSpec
from spar_bench.spec.document import Document, Problem, read_document, refuse
from spar_bench.spec.expand import Blocks, Draft, Given
from spar_bench.spec.keys import FIELDS, PLUGINS, leaves, look_up, written_settings
from spar_bench.spec.schema import Settings, Spec
from spar_bench.spec.search import Search
from spar_bench.spec.selecting import Selector
from spar_bench.spec.validate import Check, Validator
from spar_bench.validation import MAX_MISTAKES, Raw
from spar_bench.values import MAX_ROWS, MAX_TRIALS


@dataclass(frozen=True)
class Point:
    """One point of a sweep, without a seed.

    `swept` holds this point's value, as JSON, for every key that varies anywhere in the sweep.
    """

    group: str
    settings: Settings
    swept: Raw


@dataclass(frozen=True)
class LoadedSpec:
    """An experiment as its file states it; a search has no points until it suggests them."""

    experiment: str
    path: Path
    text: str
    spec: Spec
    spec_hash: str
    points: list[Point]
    claims: list[Claim]
    search: SearchSpec | None
    validator: Validator = field(repr=False, compare=False)
    base: Draft = field(repr=False, compare=False)

    @property
    def prunes(self) -> bool:
        """Whether it is a search that gives up students whose loss lags."""
        return self.search is not None and self.search.prune


def load_spec(
    path: str | Path, *, check: Check, environ: Mapping[str, str] | None = None
) -> LoadedSpec:
    """Read a spec file; `check` yields the conflicts of a point with what plug-ins state.

    Raises:
        SpecError: the file has mistakes, one line each: `file:line:column: key: rule, but got ...`.
    """
    path = Path(path)
    document = read_document(path, os.environ if environ is None else environ)
    validator = Validator(document, check)
    spec, problems = validator.spec()
    raw = {key: value for key, value in document.data.items() if key in Settings.model_fields}
    blocks, base = Blocks(document), Draft(raw)
    drafts = blocks.expand(raw)
    search = Search(blocks, validator, raw)
    if search.is_asked:
        base, problems = search.base, problems + search.check()
    elif not document.data.get("sweep"):
        drafts = [base]
    settings, mistakes = _validated(validator, drafts)
    problems += blocks.problems + mistakes
    if spec is not None:
        problems += _too_many(document, settings, len(spec.seeds))
    # What follows from a value that could not be read is not reported.
    unread = {problem.position for problem in document.problems}
    refuse(path, document.problems + [p for p in problems if p.position not in unread])
    assert spec is not None, "a spec without problems is valid"
    return LoadedSpec(
        experiment=experiment_name(path),
        path=path,
        text=document.text,
        spec=spec,
        spec_hash=groups.digest(spec),
        points=(points := _points(drafts, settings)),
        claims=_claims(document, spec, points),
        search=next((block.search for block in spec.sweep if block.search), None),
        validator=validator,
        base=base,
    )


def resolve_point(loaded: LoadedSpec, values: Raw) -> Point:
    """Return the point with dotted keys set to values, as a search draws them.

    Raises:
        SpecError: the values are incompatible.
    """
    space = ("sweep", 0, "search", "space")  # a search stands alone in its sweep
    drawn = {key: Given(value, (*space, key)) for key, value in values.items()}
    draft = Draft(loaded.base.base, {**loaded.base.given, **drawn}, tuple(values))
    settings, problems = loaded.validator.settings(draft)
    refuse(loaded.path, problems)
    assert settings is not None, "settings without problems are valid"
    written = _written([draft])
    keys = list(dict.fromkeys(leaf for key in values for leaf in leaves(key, written)))
    drawn_values = {key: look_up(settings, key) for key in keys}
    name, is_exact = groups.name(drawn_values, groups.short_names(keys))
    # Later points are not known yet: a shortened name must not collide with theirs.
    group = name if is_exact else f"{name}~{groups.digest(settings)[:8]}"
    return Point(group, settings, _Swept(keys).of(settings))


def experiment_name(path: Path) -> str:
    """Return a spec's or a suite's path under the nearest folder `experiments`, else its own name.

    An ending of YAML is left out.
    """
    whole = Path(os.path.abspath(path))
    parts = (whole.with_suffix("") if whole.suffix in YAML_ENDINGS else whole).parts
    folders = [i for i, part in enumerate(parts[:-1]) if part == "experiments"]
    shown = parts[folders[-1] + 1 :] if folders else parts[-1:]
    # No leading dot, which hides a folder, or hyphen, which `report` would read as an option.
    return "/".join(re.sub(r"[^\w.+-]+", "_", part).lstrip(".-") or "_" for part in shown)


def _validated(
    validator: Validator, drafts: Iterable[Draft]
) -> tuple[list[Settings], list[Problem]]:
    """Return the settings of all points, and the first mistakes in them."""
    settings, problems = list[Settings](), list[Problem]()
    for draft in drafts:
        point, mistakes = validator.settings(draft)
        problems += mistakes
        if point is not None:
            settings.append(point)
        if len(problems) > MAX_MISTAKES:
            break
    return settings, problems


def _too_many(document: Document, points: Iterable[Settings], n_seeds: int) -> list[Problem]:
    """Refuse more trials, or rows of results and costs, than a plan can hold."""
    n_trials = n_rows = 0
    for point in points:
        n_methods, evaluate = len(point.evaluate.methods), point.evaluate
        own = n_seeds if point.distils else 1
        n_trials += own
        n_places = len(evaluate.datasets) * len(evaluate.short_side_px)
        n_rows += (n_methods + own - 1 + n_methods * point.measure.over_sizes) * n_places
        n_rows += n_methods * len(point.measure.image_hw)
    for what, n, most in (("trials", n_trials, MAX_TRIALS), ("rows", n_rows, MAX_ROWS)):
        if n > most:
            text = f"must make at most {most:,} {what}, but got {n:,}; ask for fewer points, seeds"
            at = document.position_of_key(("sweep",) if document.data.get("sweep") else ("seeds",))
            return [Problem(at, "", f"{text}, data sets or sizes")]
    return []


def _claims(document: Document, spec: Spec, points: list[Point]) -> list[Claim]:
    """Return the claims of a spec, with the groups that they are about.

    Raises:
        SpecError: one selects nothing, or several settings; or the spec names a table of the paper
            that has none of its backbones.
    """
    selector = Selector(document, points)
    claims = selector.claims(spec.claims)
    refuse(document.path, selector.problems + _unpublished(document, spec, points))
    return claims


def _unpublished(document: Document, spec: Spec, points: list[Point]) -> list[Problem]:
    """Refuse a table of the paper that has none of a sweep's backbones."""
    if spec.reproduces is None or not points:
        return []
    known = dict.fromkeys(one.backbone for one in published(spec.reproduces))
    own = dict.fromkeys(point.settings.backbone.name for point in points)
    if known.keys() & own.keys():
        return []
    text = (
        f"must have a number of one of the spec's backbones ({', '.join(own)}), but "
        f"{spec.reproduces} has only those of {', '.join(known)}; use one of them, or drop it"
    )
    return [Problem(document.position_of_value(("reproduces",)), "reproduces", text)]


class _Swept:
    """The values of some keys in points as JSON; each is written once for all points of a part."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = list(keys)
        self._values: dict[tuple[int, tuple[str, ...]], tuple[Any, Any]] = {}

    def of(self, settings: Settings) -> Raw:
        """Return a point's values by dotted key."""
        return {key: self._leaf(settings, key) for key in self._keys}

    def _leaf(self, settings: Settings, key: str) -> Any:
        plugin, _, setting = key.rpartition(".")
        if plugin in PLUGINS:
            found = self._value(settings, *plugin.split("."))
            return found.get(setting) if isinstance(found, dict) else None
        found = self._value(settings, *key.split("."))
        return found["name"] if key in PLUGINS and isinstance(found, dict) else found

    def _value(self, settings: Settings, part: str, *names: str) -> Any:
        model = getattr(settings, part)
        if (id(model), names) not in self._values:  # the model is kept, and so its id
            value: Any = model
            for name in names:
                value = getattr(value, name)
            self._values[id(model), names] = model, to_jsonable_python(value)
        return self._values[id(model), names][1]


def _points(drafts: list[Draft], settings: list[Settings]) -> list[Point]:
    """Merge equal points, find which keys vary, and name each point by those it sets."""
    distinct: dict[tuple[int, ...], tuple[Settings, Draft]] = {}
    for draft, point in zip(drafts, settings, strict=True):
        # The validator makes one object of equal parts.
        parts = tuple(id(getattr(point, name)) for name in Settings.model_fields)
        distinct.setdefault(parts, (point, draft))
    given = dict.fromkeys(key for draft in drafts for key in draft.axes)
    written = _written(drafts)
    spread = {key: leaves(key, written) for key in given}
    axes = list(dict.fromkeys(leaf for found in spread.values() for leaf in found))
    points = [point for point, _ in distinct.values()]
    varying = {key for key in axes if _varies(points, key)}
    short = groups.short_names(axes)
    order = {key: n for n, key in enumerate(axes)}
    names = []
    for point, draft in distinct.values():
        own = sorted({leaf for key in draft.axes for leaf in spread[key]}, key=order.__getitem__)
        values = {key: look_up(point, key) for key in own if key in varying} or {
            key: look_up(point, key) for key in own
        }
        stated = {key: v for key, v in values.items() if key in FIELDS or v is not None}
        name, _ = groups.name(stated, short)
        names.append(name)
    swept = _Swept([key for key in axes if key in varying] or axes)
    return [
        Point(name, point, swept.of(point))
        for name, point in zip(groups.unique(names, points), points, strict=True)
    ]


def _written(drafts: Iterable[Draft]) -> list[str]:
    """Return the dotted keys of the plug-ins' settings that points write out."""
    parts = {plugin.partition(".")[0] for plugin in PLUGINS}
    return written_settings(draft.raw(part) for draft in drafts for part in parts)


def _varies(points: Iterable[Settings], key: str) -> bool:
    """Return whether a key has several values; parts that are one object are looked at once."""
    part, _, rest = key.partition(".")
    parts = {id(model): model for model in (getattr(point, part) for point in points)}
    values = (look_up(model, rest) if rest else model for model in parts.values())
    return len({str(value) for value in values}) > 1
