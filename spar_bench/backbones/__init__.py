"""The backbones: one plug-in a file, and the sizes of each by name in data files, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patch grid of an image, height first."""
        extra = 0 if self.odd_sides == "floor" else self.patch_px - 1
        return (image_hw[0] + extra) // self.patch_px, (image_hw[1] + extra) // self.patch_px

    def whole_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size in pixels that an image has once its sides are whole patches."""
        rows, columns = self.grid_hw(image_hw)
        return rows * self.patch_px, columns * self.patch_px


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
        SpecError: the backbone has no such read-out.
    """
    stated = _stated(spec.name, Sizes)
    if not stated and spec.path is None:
        return None
    known = Sizes(**stated) if stated else _sizes_of_config(Path(spec.path or ""))
    asked: dict[str, Any] = {
        "position_embedding": spec.position_embedding,
        "odd_sides": spec.odd_sides,
        "read_out": spec.read_out,
    }
    _require_read_out(spec, known)
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
        "preprocessing": spec.preprocessing,
        "files": checksums(weights),
    }


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


def _require_read_out(spec: BackboneSpec, known: Sizes) -> None:
    offered: Sequence[str] = card(spec.name).read_outs or [known.read_out]
    if spec.read_out is not None and spec.read_out not in offered:
        raise SpecError(
            f"backbone.read_out: must be one that {spec.name} has, but got {spec.read_out!r}; "
            f"use {' or '.join(offered)}"
        )


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
