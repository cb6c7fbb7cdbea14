"""Read an experiment: its points resolved and validated, or every mistake and its position."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spar_bench.spec import group as groups
from spar_bench.spec.document import read_document, refuse
from spar_bench.spec.keys import leaves, look_up, named
from spar_bench.spec.schema import SearchSpec, Settings, Spec
from spar_bench.spec.sweep import Draft, Expansion, overlay


@dataclass(frozen=True)
class Point:
    """One point of a sweep, seed aside.

    `swept` holds the value that this point has of every key that varies anywhere in the sweep.
    """

    group: str
    settings: Settings
    swept: dict[str, Any]


@dataclass(frozen=True)
class LoadedSpec:
    """An experiment as its file says it; a search has no points until it asks for them."""

    experiment: str
    path: Path
    text: str
    spec: Spec
    spec_hash: str
    points: list[Point]
    search: SearchSpec | None
    base: dict[str, Any] = field(repr=False)


def read_spec(path: Path, *, environ: Mapping[str, str] = os.environ) -> LoadedSpec:
    """Read a spec file; `${NAME}` and `${NAME:-default}` in it are taken from `environ`.

    Paths in a spec are relative to the working directory.

    Raises:
        SpecError: the file has mistakes, one line each: `file:line:column: key: rule, but got ...`.
    """
    document = read_document(path, environ)
    spec = Spec.model_validate(document.data)
    base = named({key: document.data[key] for key in Settings.model_fields if key in document.data})
    expansion = Expansion(document, base)
    drafts = [draft for index in range(len(spec.sweep)) for draft in expansion.block(index)]
    refuse(path, expansion.problems)
    if not spec.sweep:
        drafts = [Draft(base, {}, ())]
    settings = [Settings.model_validate(draft.raw) for draft in drafts]
    search = next((block.search for block in spec.sweep if block.search), None)
    return LoadedSpec(
        experiment=experiment_name(path),
        path=path,
        text=document.text,
        spec=spec,
        spec_hash=hashlib.sha256(groups.canonical(spec).encode()).hexdigest(),
        points=_points(drafts, settings),
        search=search,
        base=base,
    )


def resolve_point(loaded: LoadedSpec, values: dict[str, Any]) -> Point:
    """Return the point with dotted keys set to values, as a search draws them.

    Raises:
        SpecError: the values do not go together.
    """
    draft = overlay(loaded.base, {key: (value, ()) for key, value in values.items()}, {})
    settings = Settings.model_validate(draft.raw)
    keys = list(dict.fromkeys(leaf for key in values for leaf in leaves(key)))
    swept = {key: look_up(settings, key) for key in keys}
    return Point(groups.name(swept, groups.short_names(keys), settings), settings, swept)


def experiment_name(path: Path) -> str:
    """Return a spec's path under the nearest folder `experiments`, else its stem; no ending."""
    parts = path.absolute().with_suffix("").parts
    folders = [i for i, part in enumerate(parts[:-1]) if part == "experiments"]
    shown = parts[folders[-1] + 1 :] if folders else parts[-1:]
    return "/".join(re.sub(r"[^A-Za-z0-9._+-]+", "_", part).lstrip(".") or "_" for part in shown)


def _points(drafts: list[Draft], settings: list[Settings]) -> list[Point]:
    """Merge equal points, find which keys vary, and name each point by those it asked for."""
    distinct: dict[str, tuple[Settings, Draft]] = {}
    for draft, point in zip(drafts, settings, strict=True):
        distinct.setdefault(groups.canonical(point), (point, draft))
    swept = dict.fromkeys(key for draft in drafts for key in draft.axes)
    axes = list(dict.fromkeys(leaf for key in swept for leaf in leaves(key)))
    points = [point for point, _ in distinct.values()]
    varying = [key for key in axes if len({str(look_up(point, key)) for point in points}) > 1]
    shown = varying or axes
    short = groups.short_names(shown)
    names = []
    for point, draft in distinct.values():
        own = {leaf for key in draft.axes for leaf in leaves(key)}
        values = {key: look_up(point, key) for key in shown if key in own}
        names.append(groups.name(values, short, point))
    unique = groups.unique(names, points)
    return [
        Point(name, point, {key: look_up(point, key) for key in shown})
        for name, point in zip(unique, points, strict=True)
    ]
