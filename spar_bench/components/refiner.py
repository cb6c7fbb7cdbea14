"""What a spec's refiner stands for: its card, weights, identity and cost; without torch.

A refiner has weights if its data file says where they come from (`hub`, `source`, `folder`), or its
module lists them (`TENSORS`). They are found as a backbone's are, or where its own setting `path`
says; or drawn at random, where its own setting `weights` is `random`.
"""

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.modules import digests
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
        NotReady: its weights are not found, or nothing says where they are.
        SparBenchError: its setting `weights` is neither `find` nor `random`.
    """
    card, stated = refiner_card(spec.name), spec.settings.get("path")
    path = os.path.expanduser(str(stated)) if stated else None
    is_random = has_random_weights(spec)
    if path is None and not (is_random or card.hub or card.source or card.folder):
        if constant(registry.source("refiners", spec.name), "TENSORS") is None:
            return None
        raise NotReady(
            f"refiner {spec.name}: must have weights, but its data file states no source; name "
            f"them as {_PATH}"
        )
    wanted = Wanted(
        f"refiner {spec.name}",
        _PATH,
        spec.name,
        path,
        card,
        registry.data_file("refiners", spec.name),
        is_random=is_random,
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
    """Return what decides a refiner's numbers: plug-in, settings, weights by content, cost.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are missing, incomplete, or plainly not its own.
    """
    weights, files = refiner_weights(spec), Checksums()
    with readable(f"refiner {spec.name}"):
        if weights is not None:
            files = checksums(weights, key=_PATH)
            require_tensors(registry.source("refiners", spec.name), weights)
        known = identify("refiners", spec.name, settings=spec.settings, files=files)
    return known.model_copy(update={"sources": known.sources | _cost_sources(spec.name)})


def _cost_sources(name: str) -> dict[str, str]:
    """Return the SHA-256 of the modules of another package that state what a refiner costs."""
    module, separator, _ = str(constant(registry.source("refiners", name), "FLOPS")).partition(":")
    is_ours = module.partition(".")[0] == __name__.partition(".")[0]
    return digests(module) if separator and not is_ours else {}


def refining_flops(spec: PluginSpec, refined: RefinedSizes) -> int | None:
    """Return what refining one image costs by its plug-in's `FLOPS`; None if it states none.

    Raises:
        SparBenchError: it is no arithmetic in those sizes and the refiner's settings, and no
            function of them; or the function refuses a setting.
    """
    path = registry.source("refiners", spec.name)
    stated = constant(path, "FLOPS")
    if stated is None:
        return None
    settings = registry.parameters("refiners", spec.name) | spec.settings
    if isinstance(stated, str) and _DOTTED.fullmatch(stated):
        return _by_function(stated, path, refined, settings)
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


def _by_function(
    stated: str, path: Path, refined: RefinedSizes, settings: Mapping[str, Any]
) -> int:
    """Return what the function gives that a refiner states in its file, `module:function`.

    Raises:
        SparBenchError: it does, or there is no function of sizes and settings.
    """
    module, _, name = stated.partition(":")
    try:
        flops: int = round(getattr(importlib.import_module(module), name)(refined, **settings))
        return flops
    except SparBenchError:
        raise
    except Exception as error:  # another package's module may raise anything
        reason = " ".join(str(error).split())
        raise SparBenchError(
            f"{path}: FLOPS: must name a function of sizes and settings, but {stated!r} gives "
            f"{type(error).__name__}: {reason}; correct it"
        ) from error
