"""The models that a library builds by name, for weights that come without a config; without torch.

A plug-in that builds them states the library, `MODELS_OF = "open_clip"`, and, if it never builds
one from a config, `BY_NAME_ALONE = True`.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from spar_bench.backbones._weights import CONFIG_FILE, Weights
from spar_bench.errors import NotReady
from spar_bench.sources import constant
from spar_bench.suggest import suggest

OPEN_CLIP = "open_clip"


def config_by_name(model: str) -> dict[str, Any] | None:
    """Return the config that open_clip, or this package, has of a model, or None.

    open_clip is not imported; if it has been, models that were added to it count too.
    """
    for folder in _folders():
        path = folder / f"{model.replace('/', '-')}.json"
        if path.is_file():
            read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return read
    imported = sys.modules.get(OPEN_CLIP)
    if imported is None or ":" in model:  # a prefix would have open_clip look elsewhere
        return None
    added: dict[str, Any] | None = imported.get_model_config(model)
    return added


def builds_of_open_clip(plugin: Path) -> bool:
    """Tell whether a plug-in, given its file, builds open_clip's models by their names."""
    return bool(constant(plugin, "MODELS_OF") == OPEN_CLIP)


def require_model(plugin: Path, weights: Weights, model: str, place: str) -> None:
    """Refuse weights whose model nothing states, or is none of the library's.

    Args:
        plugin: The file of the plug-in that is to build it.
        weights: Those to load, or random ones.
        model: The name that a data file states.
        place: The data file.

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
        names = [path.stem for folder in _folders()[:-1] for path in folder.glob("*.json")]
        raise NotReady(
            f"{place}: model: must be one that open_clip knows, but got {model!r}; "
            f"{suggest(model, names)}"
        )


def _folders() -> list[Path]:
    """Return the folders that hold configs by name: open_clip's, then this package's."""
    package = importlib.util.find_spec(OPEN_CLIP)
    roots = (package and package.submodule_search_locations) or []
    return [*(Path(root) / "model_configs" for root in roots), Path(__file__).parent]
