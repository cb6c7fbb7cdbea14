"""What a spec's refiner stands for: its card, weights, identity and cost; without torch.

A refiner has weights if its data file says where they come from (`hub`, `source`, `folder`). They
are found as a backbone's are, or where its own setting `path` says; or drawn at random, where its
own setting `weights` is `random`.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spar_bench import registry
from spar_bench.components.backbone import read_data
from spar_bench.components.fits import require_tensors
from spar_bench.components.identity import ComponentIdentity, identify
from spar_bench.components.weights import (
    Card,
    Checksums,
    Wanted,
    Weights,
    checksums,
    find,
    readable,
)
from spar_bench.errors import SparBenchError
from spar_bench.sources import arithmetic, constant
from spar_bench.spec.plugins import PluginSpec

_PATH = "evaluate.refiner.path"
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class RefinedSizes:
    """The sizes that the cost of refining one image depends on.

    `grid_hw` is in patches, `seen_hw` are the pixels that the backbone saw, `out_hw` those of the
    labels.
    """

    channels: int
    n_queries: int
    grid_hw: tuple[int, int]
    seen_hw: tuple[int, int]
    out_hw: tuple[int, int]


def refiner_card(name: str) -> Card:
    """Return where a refiner's weights come from, from its data file; empty where it has none.

    Raises:
        UnknownName: no refiner of that name.
        DataFileError: its data file is invalid.
    """
    return read_data("refiners", name, Card)


def refiner_weights(spec: PluginSpec) -> Weights | None:
    """Return where a refiner's weights lie, or None if it has none.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are not found.
        SparBenchError: its setting `weights` is neither `find` nor `random`.
    """
    card, stated = refiner_card(spec.name), spec.settings.get("path")
    path = str(stated) if stated else None
    if path is None and not (card.hub or card.source or card.folder):
        return None
    wanted = Wanted(
        f"refiner {spec.name}",
        _PATH,
        spec.name,
        path,
        card,
        registry.data_file("refiners", spec.name),
        is_random=has_random_weights(spec),
    )
    with readable(wanted.what):
        return find(wanted)


def has_random_weights(spec: PluginSpec) -> bool:
    """Return whether a refiner's weights are drawn at random.

    Raises:
        SparBenchError: its setting `weights` is neither `find` nor `random`.
    """
    asked = spec.settings.get("weights", "find")
    if asked not in ("find", "random"):
        raise SparBenchError(
            f"evaluate.refiner.weights: must be find or random, but got {asked!r}; use one of them"
        )
    return asked == "random"


def refiner_identity(spec: PluginSpec) -> ComponentIdentity:
    """Return what decides a refiner's numbers: plug-in, settings, weights by content.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are missing, incomplete, or plainly not its own.
    """
    weights, files = refiner_weights(spec), Checksums()
    with readable(f"refiner {spec.name}"):
        if weights is not None:
            files = checksums(weights, key=_PATH)
            require_tensors(registry.source("refiners", spec.name), weights)
        return identify("refiners", spec.name, settings=spec.settings, files=files)


def refining_flops(spec: PluginSpec, refined: RefinedSizes) -> int | None:
    """Return what refining one image costs by its plug-in's `FLOPS`; None if it states none.

    Raises:
        SparBenchError: it is no arithmetic in those sizes and the refiner's settings, and no
            function of them.
    """
    path = registry.source("refiners", spec.name)
    stated = constant(path, "FLOPS")
    if stated is None:
        return None
    settings = registry.parameters("refiners", spec.name) | spec.settings
    if isinstance(stated, str) and _DOTTED.fullmatch(stated):
        return _function(stated, path)(refined, **settings)
    (h, w), (height, width), (t, u) = refined.grid_hw, refined.seen_hw, refined.out_hw
    known = {"C": refined.channels, "Q": refined.n_queries, "h": h, "w": w}
    known |= {"H": height, "W": width, "T": t, "U": u}
    try:
        return round(arithmetic(str(stated), settings | known))
    except (ValueError, TypeError, SyntaxError, ArithmeticError) as error:
        raise SparBenchError(
            f"{path}: FLOPS: must be arithmetic in {', '.join(known)} and settings that are "
            f"numbers, but got {stated!r}: {error}; correct it"
        ) from error


def _function(stated: str, path: Path) -> Callable[..., int]:
    """Return the function that a refiner states in its file, `module:function`.

    Raises:
        SparBenchError: there is none.
    """
    module, _, name = stated.partition(":")
    try:
        found: Callable[..., int] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SparBenchError(
            f"{path}: FLOPS: must name a function that can be imported, but got {stated!r}: "
            f"{error}; correct it"
        ) from error
    return found
