"""Whether weights fit a backbone, before anything is loaded: model, config, shapes; without torch.

A plug-in that builds a library's models by name states the library, `MODELS_OF = "open_clip"`, and,
if it never builds one from a config, `BY_NAME_ALONE = True`. It may also state the shapes that its
sizes determine, by their names in files of weights, as numbers and names of sizes:

    SHAPES = {"visual.positional_embedding": "n_positions width"}

A plug-in that reads one published set of weights lists all its tensors in a file beside it, as JSON
of shapes by name: `TENSORS = "anyup_keys.json"`.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

from spar_bench.components.header import Shape, header_shapes
from spar_bench.components.open_clip_config import (
    config_by_name,
    model_config,
    names_of_configs,
    stated_part,
)
from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import CONFIG_FILE, Weights, require_whole
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.sources import constant
from spar_bench.suggest import suggest

OPEN_CLIP = "open_clip"
_FIELDS = {
    "embed_dim": "channels",
    "image_size": "image_px",
    "patch_size": "patch_px",
    "width": "width",
    "layers": "depth",
}
"""Keys of open_clip's configs, to our names of the sizes."""


def require_fit(plugin: Path, weights: Weights, sizes: Sizes, model: str, place: str) -> None:
    """Refuse weights that are plainly not those of a backbone, as far as is seen without torch.

    Args:
        plugin: The file of the plug-in that is to load them.
        weights: Those to load, or random ones.
        sizes: The backbone's.
        model: The name of the library's model that a data file states, "" without one.
        place: The data file that states the name and the sizes.

    Raises:
        NotReady: nothing says which model to build; a config, or that of the model, states other
            sizes; a file is incomplete, or a tensor has another shape.
        OSError: a file cannot be read.
    """
    require_model(plugin, weights, model, place)
    by_name = model if constant(plugin, "MODELS_OF") == OPEN_CLIP else ""
    require_architecture(weights, sizes, by_name, place)
    for path in [] if weights.is_random else weights.files:
        require_whole(path)
        if path.suffix == ".safetensors":
            require_shapes(path, header_shapes(path), determined_shapes(plugin, sizes))


def require_model(plugin: Path, weights: Weights, model: str, place: str) -> None:
    """Refuse weights whose model nothing states, or is none of the library's.

    Raises:
        NotReady: there is no config beside the weights, and no name that the library knows.
    """
    library, alone = constant(plugin, "MODELS_OF"), constant(plugin, "BY_NAME_ALONE")
    if library is None or (weights.has_config and not alone):
        return
    if not model:
        folder = "" if alone else f", or name a folder with {CONFIG_FILE} as backbone.path"
        raise NotReady(
            f"{place}: model: must name one of {library}'s models, since no config says what to "
            f"build, but is left out; add it{folder}"
        )
    if library == OPEN_CLIP and config_by_name(model) is None:
        raise NotReady(
            f"{place}: model: must be one that open_clip knows, but got {model!r}; "
            f"{suggest(model, names_of_configs())}"
        )


def require_architecture(weights: Weights, sizes: Sizes, model: str, place: str) -> None:
    """Refuse weights whose config, or the config of their model, plainly states other sizes.

    What it leaves out, or leaves to the name of a timm model, is checked once the model is loaded.
    A NaFlex reads images of any size, whatever its config says.

    Raises:
        NotReady: a size differs, or the config cannot be read.
    """
    config = model_config(weights, model)
    vision = config.get("vision_cfg", {})
    if weights.has_config:
        vision = stated_part(weights, "model_cfg", "vision_cfg")
    stated = {**vision, "embed_dim": config.get("embed_dim")}
    for key, field in _FIELDS.items():
        size, own = stated.get(key), getattr(sizes, field)
        if not isinstance(size, int) or size == own:
            continue
        if key == "image_size" and sizes.token_budget is not None:
            continue
        if weights.has_config:
            raise NotReady(
                f"{weights.path}/{CONFIG_FILE}: {key} must be {own}, the backbone's, but is "
                f"{size}; name other weights, or the backbone they belong to"
            )
        raise NotReady(
            f"{place}: {field}: must be {size}, as in open_clip's {model}, but is {own}; correct "
            "it, or name the model that it belongs to"
        )


def determined_shapes(plugin: Path, sizes: Sizes) -> dict[str, Shape]:
    """Return the shapes that a plug-in, given its file, says its sizes determine; {} if none.

    Raises:
        SparBenchError: it names something that is no size, or is of another form.
    """
    stated = constant(plugin, "SHAPES") or {}
    if not isinstance(stated, dict) or not all(isinstance(one, str) for one in stated.values()):
        raise SparBenchError(
            f'{plugin}: SHAPES: must map names to sizes, such as "width 3", but got {stated!r}; '
            "correct it"
        )
    return {
        name: tuple(_determined(size, sizes, plugin) for size in shape.split())
        for name, shape in stated.items()
    }


def _determined(name: str, sizes: Sizes, plugin: Path) -> int:
    """Return a number, or the size of a name."""
    size = int(name) if name.isdecimal() else getattr(sizes, name, None)
    if type(size) is not int:
        raise SparBenchError(
            f"{plugin}: SHAPES: must name sizes, such as width, but got {name!r}; correct it"
        )
    return size


def require_shapes(path: Path, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Refuse a file of weights whose shapes are not the wanted ones; others are not looked at.

    Names may begin with `module.`, as torch's data parallelism writes them, and lack `text.`, as in
    older files of open_clip.

    Raises:
        NotReady: one has another number of elements.
    """
    bare = {name.removeprefix("module."): shape for name, shape in found.items()}
    for name, shape in wanted.items():
        own = bare.get(name, bare.get(name.removeprefix("text.")))
        if own is not None and prod(own) != prod(shape):
            raise NotReady(
                f"{path}: {name} must be of shape {shape}, but is of shape {own}; name other "
                "weights, or the backbone they belong to"
            )


def require_tensors(plugin: Path, weights: Weights) -> None:
    """Refuse weights that are not those that a plug-in lists, as far as is seen without torch.

    Raises:
        NotReady: they are not one file, or it lacks a tensor, or has another.
        OSError: a file cannot be read.
    """
    if weights.is_random or constant(plugin, "TENSORS") is None:
        return
    path = lone_file(weights)
    require_whole(path)
    if path.suffix == ".safetensors":
        require_listed(plugin, path, header_shapes(path))


def lone_file(weights: Weights) -> Path:
    """Return the file of weights that are one file.

    A folder of the Hub may hold them twice, as safetensors and as torch saves them: the first.

    Raises:
        NotReady: they are none or several.
    """
    files = [path for path in weights.files if path.suffix == ".safetensors"] or weights.files
    if len(files) != 1:
        names = ", ".join(path.name for path in weights.files) or "none"
        raise NotReady(
            f"{weights.place}: must hold one file of weights, but has {names}; keep one there, or "
            "name it"
        )
    return files[0]


def require_listed(plugin: Path, path: Path, found: Mapping[str, Shape]) -> None:
    """Refuse a file whose tensors are not exactly those that a plug-in lists.

    Raises:
        NotReady: one is missing, of another shape, or not listed; the first is named.
    """
    text = plugin.with_name(constant(plugin, "TENSORS")).read_text(encoding="utf-8")
    listed = {name: tuple(shape) for name, shape in json.loads(text).items()}
    require_exactly(listed, found, str(path), f"use the published weights of {plugin.stem}")


def require_exactly(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], place: str, way_out: str
) -> None:
    """Refuse tensors whose names and shapes are not exactly the wanted ones.

    Raises:
        NotReady: one is missing, of another shape, or not wanted; the first is named.
    """
    for name in [*wanted, *sorted(found.keys() - wanted.keys())]:
        if wanted.get(name) != found.get(name):
            must, own = _described(wanted.get(name)), _described(found.get(name))
            raise NotReady(f"{place}: {name} must be {must}, but is {own}; {way_out}")


def _described(shape: Shape | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"
