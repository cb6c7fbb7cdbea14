"""open_clip's configs of models, beside weights or by name, and the tokenizers that they name.

No torch here: `check` and `plan` read them too. open_clip's own tokenizer needs no files.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from spar_bench.components.sizes import Sizes, TextSizes
from spar_bench.components.weights import (
    CONFIG_FILE,
    Weights,
    describe_read_error,
    hub_snapshot,
)
from spar_bench.errors import NotReady

Config = dict[str, Any]
"""open_clip's config of a model, or a part of one; its keys are open_clip's."""
_TOKENIZER_CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
"""Any one of them is enough; without one, transformers silently makes a tokenizer of no words."""
_FURTHER = ("added_tokens.json", "merges.txt", "special_tokens_map.json")


def stated_config(folder: Path) -> Config:
    """Read a folder's `open_clip_config.json`.

    Raises:
        OSError, ValueError: it is missing, or not JSON.
    """
    read: Config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return read


def config_by_name(model: str) -> Config | None:
    """Return the config that open_clip, or this package, has of a model, or None.

    open_clip is not imported; if it has been, models that were added to it count too.
    """
    for folder in [*_open_clip_folders(), Path(__file__).parents[1] / "backbones"]:
        path = folder / f"{model.replace('/', '-')}.json"
        if path.is_file():
            read: Config = json.loads(path.read_text(encoding="utf-8"))
            return read
    imported = sys.modules.get("open_clip")
    if imported is None or ":" in model:  # a prefix would have open_clip look elsewhere
        return None
    added: Config | None = imported.get_model_config(model)
    return added


def names_of_configs() -> list[str]:
    """Return the names of the models that open_clip comes with."""
    return [path.stem for folder in _open_clip_folders() for path in folder.glob("*.json")]


def _open_clip_folders() -> Iterator[Path]:
    package = importlib.util.find_spec("open_clip")
    for root in (package and package.submodule_search_locations) or []:
        yield Path(root) / "model_configs"


def model_config(weights: Weights, architecture: str) -> Config:
    """Return the `model_cfg` that weights are read with: beside them, else by name; {} if none is.

    Raises:
        NotReady: the config cannot be read.
    """
    if weights.has_config:
        return stated_part(weights, "model_cfg")
    return config_by_name(architecture) or {}


def stated_preprocessing(weights: Weights) -> Config:
    """Return what the config beside weights says about preprocessing; nothing without one.

    Raises:
        NotReady: the config cannot be read.
    """
    return stated_part(weights, "preprocess_cfg")


def stated_part(weights: Weights, *keys: str) -> Config:
    """Return a part of the config beside weights; nothing without one."""
    if weights.folder is None or not weights.has_config:
        return {}
    try:
        part = stated_config(weights.folder)
        for key in keys:
            part = part.get(key, {})
        return dict(part)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotReady(
            f"{weights.folder / CONFIG_FILE}: must be a config as open_clip writes it, but "
            f"{describe_read_error(error)}; get it again"
        ) from error


_UNREADABLE = (
    *(OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RecursionError),
)
"""What a config that is not one makes of reading it."""


def sizes_of_config(folder: Path) -> Sizes:
    """Read the sizes from a config as open_clip writes it; its defaults fill in what is missing.

    Raises:
        NotReady: the folder has no config that can be read, or it is not of open_clip's own ViT.
    """
    try:
        config = stated_config(folder)["model_cfg"]
        vision = config["vision_cfg"]
        numbers = [vision.get(key, 1) for key in ("patch_size", "image_size", "layers", "width")]
        if "timm_model_name" in vision or not all(isinstance(size, int) for size in numbers):
            raise ValueError("is not open_clip's own ViT for square images")
        width, head_width = vision.get("width", 768), vision.get("head_width", 64)
        stated = {
            "patch_px": vision.get("patch_size", 16),
            "image_px": vision.get("image_size", 224),
            "width": width,
            "depth": vision.get("layers", 12),
            "heads": width // head_width,
            "mlp_ratio": vision.get("mlp_ratio", 4.0),
            "channels": config["embed_dim"],
            "read_out": "maskclip",
        }
        return TypeAdapter(Sizes).validate_python(stated)
    except _UNREADABLE as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but "
            f"{_fault(folder, error)}; name the folder that open_clip's `local-dir:` would take"
        ) from error


def _fault(folder: Path, error: Exception) -> str:
    """Describe what is wrong with a folder, or else with the config in it."""
    if isinstance(error, NotADirectoryError):
        return f"{folder} is a file"
    if isinstance(error, FileNotFoundError):
        return f"{folder} has none" if folder.is_dir() else f"{folder} does not exist"
    return f"{folder / CONFIG_FILE} {describe_read_error(error)}"


def text_sizes_of_config(folder: Path) -> TextSizes | None:
    """Read the sizes of a text tower from a folder's config, or None if it does not state them."""
    try:
        text = stated_config(folder)["model_cfg"]["text_cfg"]
        return TextSizes(
            width=text["width"],
            depth=text["layers"],
            context=text["context_length"],
            mlp_ratio=text.get("mlp_ratio", 4.0),
        )
    except (OSError, LookupError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class HubTokenizer:
    """A tokenizer of the Hub: its repository, and the folder that open_clip reads it from, if any.

    That is the folder of weights with a config; for other weights, the Hugging Face cache's.
    """

    repository: str
    folder: Path | None

    @property
    def files(self) -> list[Path]:
        """Those of its files that are there."""
        patterns = (_TOKENIZER_CONFIG, *_VOCABULARIES, *_FURTHER)
        return sorted({path for pattern in patterns for path in self._existing(pattern)})

    @property
    def lacking(self) -> list[str]:
        """The names of files that it cannot be made without, but that are not there."""
        wanted = {_TOKENIZER_CONFIG: (_TOKENIZER_CONFIG,), _VOCABULARIES[0]: _VOCABULARIES}
        return [name for name, patterns in wanted.items() if not any(map(self._existing, patterns))]

    def _existing(self, pattern: str) -> list[Path]:
        files = [] if self.folder is None else self.folder.glob(pattern)
        return [path for path in files if path.is_file()]


def tokenizer_of(weights: Weights, architecture: str) -> HubTokenizer | None:
    """Return the tokenizer that weights need, or None where open_clip's own serves.

    Raises:
        NotReady: the config beside the weights cannot be read.
    """
    text = model_config(weights, architecture).get("text_cfg")
    repository = text.get("hf_tokenizer_name") if isinstance(text, dict) else None
    if not isinstance(repository, str) or not repository:
        return None
    folder = weights.folder if weights.has_config else hub_snapshot(repository)
    return HubTokenizer(repository, folder)


def require_tokenizer(weights: Weights, architecture: str) -> None:
    """Refuse weights whose text tower needs a tokenizer that is not there.

    Raises:
        NotReady: files of it are missing.
    """
    found = tokenizer_of(weights, architecture)
    if found is None or not found.lacking:
        return
    lacking, repository = " or ".join(found.lacking), found.repository
    if weights.has_config:
        raise NotReady(
            f"{weights.folder}: must hold its tokenizer's files beside the weights, but has no "
            f"{lacking}; put those of {repository} there"
        )
    raise NotReady(
        f"model {architecture}: its tokenizer must be in the Hugging Face cache, but {repository} "
        f"has no {lacking} there; `hf download {repository} --include '*token*'` puts it there"
    )
