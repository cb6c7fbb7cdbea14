"""Where a backbone's weights are: a path, a configured folder, the package, or the Hub's cache.

No torch here: `check` and `plan` look for weights too.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spar_bench.backbones._plainly import plainly
from spar_bench.backbones._sizes import TextSizes
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

CONFIG_FILE = "open_clip_config.json"
ORIGIN_FILE = "spar_bench.json"
"""The file beside exported weights that says what they were made from."""
WEIGHTS_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
FOLDER_VARIABLE = "SPAR_BENCH_WEIGHTS"
DEFAULT_FOLDER = "weights"
RANDOM_SEED = 0

Channels = tuple[float, float, float]


LEGACY: Channels = (0.5, 0.5, 0.5)
"""Mean and deviation of the paper's `legacy` preprocessing, as far as its code tells."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a backbone's weights come from, and what is known about them without a config.

    `model` is the architecture by its library's own name, for weights that come without a config;
    `mean`, `std` and `interpolation` are its preprocessing there. `hub` is a repository of the
    Hugging Face Hub; `folder` lies in the package, beside the data file. `text` has the sizes of a
    text tower, from which a plan computes the cost of prompts. `terms` states in one line what the
    licence asks of users, where it asks more than usual.
    """

    license: str = ""
    terms: str = ""
    source: str = ""
    hub: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+)?$")] = ""
    model: str = ""
    folder: str = ""
    read_outs: tuple[str, ...] = ()
    has_text: bool = True
    text: TextSizes | None = None
    mean: Channels | None = None
    std: Channels | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def deciding(self) -> dict[str, Any]:
        """Return the parts that affect features, as JSON."""
        of_channels = {"mean": list(self.mean or ()), "std": list(self.std or ())}
        return {"model": self.model, **of_channels}


@dataclass(frozen=True)
class Weights:
    """Weights to load: a folder or one file; or random ones, with a folder's config if any.

    Random weights are drawn from `seed`.
    """

    path: Path | None
    is_random: bool = False
    seed: int = RANDOM_SEED

    @property
    def folder(self) -> Path | None:
        """The folder with a config and a tokenizer, or None where there is just a file."""
        return self.path if self.path is not None and self.path.is_dir() else None

    @property
    def files(self) -> list[Path]:
        """The files of weights: the one that open_clip reads beside a config, else all."""
        if self.folder is None:
            return [] if self.path is None else [self.path]
        found = [path for path in sorted(self.folder.iterdir()) if path.suffix in WEIGHTS_ENDINGS]
        if not self.has_config:
            return found
        return sorted((path for path in found if path.suffix != ".pt"), key=_preference)[:1]

    @property
    def place(self) -> str:
        """Where they are, for messages."""
        return "the random model" if self.path is None else str(self.path)

    @property
    def has_config(self) -> bool:
        """Whether open_clip's config is beside them."""
        return self.folder is not None and (self.folder / CONFIG_FILE).is_file()


def _preference(path: Path) -> tuple[int, bool, Path]:
    """Return what open_clip's `local-dir:` sorts files by, of which it reads the first."""
    place = _PREFERRED.index(path.name) if path.name in _PREFERRED else len(_PREFERRED)
    return place, path.suffix != ".safetensors", path


def find(spec: BackboneSpec, card: Card, data_file: Path | None) -> Weights:
    """Find weights: where the spec says, in the package, in the weights folder or the Hub's cache.

    Raises:
        NotReady: they are in none of these.
    """
    if spec.weights == "random":
        return Weights(_existing(spec.path) if spec.path else None, is_random=True)
    if spec.path is not None:
        return Weights(_existing(spec.path))
    if card.folder and data_file is not None:
        return Weights((data_file.parent / card.folder).resolve())
    name = Path(spec.name).stem
    found = _in_weights_folder(name) or _in_hub_cache(card.hub)
    if found is None:
        where = "weights of its name" if not card.hub else f"the repository {card.hub}"
        terms = "; ".join(filter(None, [card.license, card.terms]))
        get = f"get them from {card.source} ({terms}), or " if card.source else ""
        raise NotReady(
            f"backbone {spec.name}: its weights must be in {weights_folder() / name} or in the "
            f"Hugging Face cache, but neither has {where}; {get}name them as backbone.path"
        )
    return Weights(found)


def weights_folder() -> Path:
    """Return the folder in which weights are looked for by name: $SPAR_BENCH_WEIGHTS or weights."""
    return Path(os.path.expanduser(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER))


def exported_from(path: Path) -> BackboneSpec | None:
    """Return the backbone that exported weights were made from, given their folder or file.

    None where nothing says that they were exported.

    Raises:
        NotReady: what says so cannot be read.
    """
    path = (path if path.is_dir() else path.parent) / ORIGIN_FILE
    try:
        return BackboneSpec(**json.loads(path.read_text(encoding="utf-8"))["backbone"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NotReady(
            f"{path}: must say what the weights beside it were exported from, but "
            f"{plainly(error)}; export them again"
        ) from error


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise NotReady(
            f"backbone.path: must be a folder or file of weights, but {path} does not exist; "
            "correct it"
        )
    if found.is_file() and found.suffix not in WEIGHTS_ENDINGS:
        raise NotReady(
            f"backbone.path: a file of weights must end in {', '.join(sorted(WEIGHTS_ENDINGS))}, "
            f"but got {path}; name the folder, or the weights"
        )
    return _absolute(found)


def _in_weights_folder(name: str) -> Path | None:
    """Return the folder or the file of that name."""
    folder = weights_folder()
    if _holds_weights(folder / name):
        return _absolute(folder / name)
    files = (folder / f"{name}{ending}" for ending in WEIGHTS_ENDINGS)
    return next((_absolute(path) for path in files if path.is_file()), None)


def _absolute(path: Path) -> Path:
    """Make a path absolute; links stay, since the Hub's lead to files without an ending."""
    return Path(os.path.abspath(path))


def _holds_weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHTS_ENDINGS and path.is_file() for path in folder.glob("*"))


def hub_snapshot(repository: str) -> Path | None:
    """Return the Hugging Face cache's snapshot of a repository; never uses the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _in_hub_cache(repository: str) -> Path | None:
    """Return the cached snapshot of a repository if it holds weights.

    Raises:
        NotReady: it holds links to files of weights that are not there.
    """
    folder = hub_snapshot(repository) if repository else None
    if folder is None:
        return None
    for path in Weights(folder).files:
        if not path.exists():
            raise NotReady(
                f"{path}: must be a file of the Hugging Face cache, but the file that it links to "
                f"is missing; `hf download {repository}` gets it again"
            )
    return folder if _holds_weights(folder) else None
