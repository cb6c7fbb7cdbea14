"""The backbones: one plug-in a file, and the sizes of each by name in data files, without torch."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

from spar_bench import registry
from spar_bench.backbones.weights import (
    CONFIG_FILE,
    WEIGHTS_ENDINGS,
    Card,
    Weights,
    checksums,
    find,
    stated_config,
    stated_preprocessing,
)
from spar_bench.errors import NotReady, SparBenchError, SpecError
from spar_bench.spec.schema import BackboneSpec, OddSides, PositionRule

__all__ = [
    "CONFIG_FILE",
    "Card",
    "Sizes",
    "Weights",
    "card",
    "identity",
    "interpolation",
    "known_sizes",
    "label",
    "sizes",
    "weights_of",
]


_FILE_ENDINGS = {*WEIGHTS_ENDINGS, ".yaml", ".yml"}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a plan needs to know of a backbone: all that decides windows, grids, FLOPs and bytes.

    `prefix_tokens` come before those of patches (class token, registers). Sides that are no whole
    patches lose the remainder (`floor`), are padded with zeros, or stretched, as `odd_sides` says.
    An image of more patches than `token_budget` is scaled down first.
    """

    patch_px: int
    image_px: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    channels: int
    read_out: str
    prefix_tokens: int = 1
    position_embedding: PositionRule = "scale_factor"
    odd_sides: OddSides = "floor"
    token_budget: int | None = None

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patch grid of an image, height first."""
        return self._grid_hw(self.scaled_hw(image_hw))

    def whole_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size in pixels that an image has once its sides are whole patches."""
        rows, columns = self.grid_hw(image_hw)
        return rows * self.patch_px, columns * self.patch_px

    def scaled_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size in pixels at which an image is read, before its sides are made whole.

        Its own where its grid is within the token budget. Else its longer side is the longest, in
        whole pixels, that brings the grid within it; the other keeps the ratio, rounded half up.
        """
        if self._is_within_budget(image_hw):
            return image_hw
        longer_px = max(image_hw)
        first_beyond = bisect_left(
            range(1, longer_px),
            True,
            key=lambda px: not self._is_within_budget(_scaled(image_hw, px)),
        )
        return _scaled(image_hw, first_beyond)

    def _grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        extra = 0 if self.odd_sides == "floor" else self.patch_px - 1
        return (image_hw[0] + extra) // self.patch_px, (image_hw[1] + extra) // self.patch_px

    def _is_within_budget(self, image_hw: tuple[int, int]) -> bool:
        return self.token_budget is None or prod(self._grid_hw(image_hw)) <= self.token_budget


def card(name: str) -> Card:
    """Return where a backbone's weights come from, as its data file says; empty where it has none.

    Raises:
        UnknownName: no backbone of that name.
        SparBenchError: the data file has a key that is not known.
    """
    return Card(**_stated(name, Card))


def sizes(spec: BackboneSpec) -> Sizes | None:
    """Return a backbone's sizes with the spec's settings, or None where nothing states them.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: the folder of `path` has no readable config.
        SpecError: the backbone has no such read-out, rule of positions or token budget.
    """
    stated = _stated(spec.name, Sizes)
    if not stated and spec.path is None:
        return None
    known = Sizes(**stated) if stated else _sizes_of_config(Path(spec.path or ""))
    asked: dict[str, Any] = {
        "position_embedding": spec.position_embedding,
        "odd_sides": spec.odd_sides,
        "read_out": spec.read_out,
        "token_budget": spec.token_budget,
    }
    _require_offered(spec, known)
    return replace(known, **{key: value for key, value in asked.items() if value is not None})


def known_sizes(spec: BackboneSpec) -> Sizes:
    """Return a backbone's sizes; raises as `sizes`, and NotReady where nothing states them."""
    known = sizes(spec)
    if known is None:
        raise NotReady(
            f"backbone.path: {spec.name} needs the folder of its weights, but none is given; "
            f"name one that holds {CONFIG_FILE}"
        )
    return known


def weights_of(spec: BackboneSpec) -> Weights:
    """Return where a backbone's weights lie; never random ones unless the spec says so.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are not found.
    """
    return find(spec, card(spec.name), registry.data_file("backbones", spec.name))


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """Return what decides a backbone's features, as JSON: plug-in, weights by content, settings.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are not there.
    """
    known, weights = known_sizes(spec), weights_of(spec)
    return {
        "versions": registry.versions("backbones", spec.name),
        "model": card(spec.name).model,
        "position_embedding": known.position_embedding,
        "odd_sides": known.odd_sides,
        "read_out": known.read_out,
        "token_budget": known.token_budget,
        "preprocessing": spec.preprocessing,
        "files": checksums(weights),
    }


def interpolation(spec: BackboneSpec) -> str:
    """Return how a backbone's own preprocessing resamples images: its config's way, else bicubic.

    Raises:
        NotReady: its weights are not there.
    """
    own = stated_preprocessing(weights_of(spec)).get("interpolation")
    return str(own or card(spec.name).interpolation)


def label(spec: BackboneSpec) -> str:
    """Return a backbone's name in tables: its path's, or its own; random weights are marked."""
    name = Path(spec.path or spec.name)
    shown = name.stem if name.suffix in _FILE_ENDINGS else name.name
    return f"{shown} (random weights)" if spec.weights == "random" else shown


def _stated(name: str, kind: type[Sizes] | type[Card]) -> dict[str, Any]:
    """Return what a backbone's data file states of sizes, or of its weights' origin."""
    registry.plugin("backbones", name)  # an unknown name is told first
    stated = registry.data("backbones", name)
    known = {field.name for one in (Sizes, Card) for field in fields(one)}
    unknown = sorted(stated.keys() - known)
    if unknown:
        raise SparBenchError(
            f"{registry.data_file('backbones', name)}: must have known keys, but has "
            f"{unknown[0]!r}; use {', '.join(sorted(known))}"
        )
    return {field.name: stated[field.name] for field in fields(kind) if field.name in stated}


def _require_offered(spec: BackboneSpec, known: Sizes) -> None:
    """Refuse a setting that the backbone does not have; raises SpecError."""
    is_resampled_by_factor = known.position_embedding != "rope" and known.token_budget is None
    offered: dict[str, Sequence[str]] = {
        "read_out": card(spec.name).read_outs or [known.read_out],
        "position_embedding": ["scale_factor", "size"]
        if is_resampled_by_factor
        else [known.position_embedding],
    }
    for key, choices in offered.items():
        asked = getattr(spec, key)
        if asked is not None and asked not in choices:
            raise SpecError(
                f"backbone.{key}: must be one that {spec.name} has, but got {asked!r}; use "
                f"{' or '.join(choices)}"
            )
    if spec.token_budget is not None and known.token_budget is None:
        raise SpecError(
            f"backbone.token_budget: must be left out for {spec.name}, which reads images of any "
            f"size whole, but got {spec.token_budget}"
        )


def _scaled(image_hw: tuple[int, int], longer_px: int) -> tuple[int, int]:
    """Scale an image to a longer side, ratio kept; each side rounded half up, 1 at least."""
    longest = max(image_hw)
    height, width = ((2 * side * longer_px + longest) // (2 * longest) for side in image_hw)
    return max(height, 1), max(width, 1)


def _sizes_of_config(folder: Path) -> Sizes:
    """Read the sizes out of a config as open_clip writes it; its defaults fill what is not said."""
    try:
        config = stated_config(folder)["model_cfg"]
        vision = config["vision_cfg"]
        stated = [vision.get(key, 1) for key in ("patch_size", "image_size", "layers", "width")]
        if "timm_model_name" in vision or not all(isinstance(size, int) for size in stated):
            raise ValueError("it is not open_clip's own ViT for square images")
        width, head_width = vision.get("width", 768), vision.get("head_width", 64)
        return Sizes(
            patch_px=vision.get("patch_size", 16),
            image_px=vision.get("image_size", 224),
            width=width,
            depth=vision.get("layers", 12),
            heads=width // head_width,
            mlp_ratio=vision.get("mlp_ratio", 4.0),
            channels=config["embed_dim"],
            read_out="maskclip",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but "
            f"{folder / CONFIG_FILE}: {error!r}; name the folder that open_clip's `local-dir:` "
            "would take"
        ) from error
