"""Read an experiment: its points, resolved and validated, or every mistake with its position."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spar_bench.spec import group as groups
from spar_bench.spec.blocks import Blocks
from spar_bench.spec.document import read_document, refuse
from spar_bench.spec.keys import leaves, look_up, named
from spar_bench.spec.resolve import Resolver
from spar_bench.spec.schema import Settings, Spec
from spar_bench.spec.search import Search
from spar_bench.spec.sweep import Draft, expand, overlay
from spar_bench.spec.swept import SearchSpec


@dataclass(frozen=True)
class Point:
    """One point of a sweep, without a seed.

    `swept` holds this point's value for every key that varies anywhere in the sweep.
    """

    group: str
    settings: Settings
    swept: dict[str, Any]


@dataclass(frozen=True)
class LoadedSpec:
    """An experiment as its file states it; a search has no points until it suggests them."""

    experiment: str
    path: Path
    text: str
    spec: Spec
    spec_hash: str
    points: list[Point]
    search: SearchSpec | None
    resolver: Resolver = field(repr=False, compare=False)
    base: Draft = field(repr=False, compare=False)

    @property
    def prunes(self) -> bool:
        """Whether it is a search that gives up students whose loss lags."""
        return self.search is not None and self.search.prune


def read_spec(path: str | Path, *, environ: Mapping[str, str] | None = None) -> LoadedSpec:
    """Read a spec file, with `${NAME}` and `${NAME:-default}` in it taken from `environ`.

    The default `environ` is the process's own. Paths in a spec are relative to the working
    directory.

    Raises:
        SpecError: the file has mistakes, one line each: `file:line:column: key: rule, but got ...`.
    """
    path = Path(path)
    document = read_document(path, os.environ if environ is None else environ)
    resolver = Resolver(document)
    spec, problems = resolver.spec()
    base = Draft(named({k: v for k, v in document.data.items() if k in Settings.model_fields}))
    blocks = Blocks(document)
    drafts = expand(blocks, base.raw)
    search = Search(blocks, resolver, base.raw)
    if search.is_asked:
        base, problems = search.base, problems + search.check()
    elif not document.data.get("sweep"):
        drafts = [base]
    problems += blocks.problems
    resolved = [resolver.resolve(draft) for draft in drafts]
    problems += [problem for _, found in resolved for problem in found]
    unread = {problem.place for problem in document.problems}  # their consequences are not reported
    refuse(path, document.problems + [p for p in problems if p.place not in unread])
    assert spec is not None, "a spec without problems is valid"
    return LoadedSpec(
        experiment=experiment_name(path),
        path=path,
        text=document.text,
        spec=spec,
        spec_hash=groups.digest(spec),
        points=_points(drafts, [settings for settings, _ in resolved if settings]),
        search=next((block.search for block in spec.sweep if block.search), None),
        resolver=resolver,
        base=base,
    )


def resolve_point(loaded: LoadedSpec, values: dict[str, Any]) -> Point:
    """Return the point with dotted keys set to values, as a search draws them.

    Raises:
        SpecError: the values are incompatible.
    """
    origins = loaded.base.origins
    axes = {key: (value, origins.get(key, tuple(key.split(".")))) for key, value in values.items()}
    draft = overlay(loaded.base.raw, axes, {})
    settings, problems = loaded.resolver.resolve(draft)
    refuse(loaded.path, problems)
    assert settings is not None, "settings without problems are valid"
    keys = list(dict.fromkeys(leaf for key in values for leaf in leaves(key)))
    swept = {key: look_up(settings, key) for key in keys}
    name, is_exact = groups.name(swept, groups.short_names(keys))
    # Later points are not known yet: a shortened name must not collide with theirs.
    group = name if is_exact else f"{name}~{groups.digest(settings)[:8]}"
    return Point(group, settings, swept)


def experiment_name(path: Path) -> str:
    """Return a spec's path under the nearest folder `experiments`, else its stem; no ending."""
    parts = Path(os.path.abspath(path)).with_suffix("").parts
    folders = [i for i, part in enumerate(parts[:-1]) if part == "experiments"]
    shown = parts[folders[-1] + 1 :] if folders else parts[-1:]
    # No leading dot, which hides a folder, or hyphen, which `report` would read as an option.
    return "/".join(re.sub(r"[^\w.+-]+", "_", part).lstrip(".-") or "_" for part in shown)


def _points(drafts: list[Draft], settings: list[Settings]) -> list[Point]:
    """Merge equal points, find which keys vary, and name each point by those it sets."""
    distinct: dict[str, tuple[Settings, Draft]] = {}
    for draft, point in zip(drafts, settings, strict=True):
        distinct.setdefault(groups.digest(point), (point, draft))
    swept = dict.fromkeys(key for draft in drafts for key in draft.axes)
    axes = list(dict.fromkeys(leaf for key in swept for leaf in leaves(key)))
    points = [point for point, _ in distinct.values()]
    varying = [key for key in axes if len({str(look_up(point, key)) for point in points}) > 1]
    shown = varying or axes
    short = groups.short_names(axes)
    names = []
    for point, draft in distinct.values():
        own = [key for key in axes if any(key in leaves(wide) for wide in draft.axes)]
        telling = [key for key in own if key in varying] or own
        name, _ = groups.name({key: look_up(point, key) for key in telling}, short)
        names.append(name)
    unique = groups.unique(names, points)
    return [
        Point(name, point, {key: look_up(point, key) for key in shown})
        for name, point in zip(unique, points, strict=True)
    ]
