"""Where a backbone's weights are: a path, a configured folder, the package, or the Hub's cache.

No torch here: `check` and `plan` look for weights too, and take their checksums.
"""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from spar_bench.backbones._sizes import Sizes, TextSizes
from spar_bench.digests import remembered_sha256s
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

CONFIG_FILE = "open_clip_config.json"
ORIGIN_FILE = "spar_bench.json"
"""The file beside exported weights that says what they were made from."""
WEIGHTS_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
FOLDER_VARIABLE = "SPAR_BENCH_WEIGHTS"
DEFAULT_FOLDER = "weights"
TOKENIZER_ENDINGS = (".json", ".txt", ".model", ".gz")
_DECIDING_ENDINGS = {*WEIGHTS_ENDINGS, *TOKENIZER_ENDINGS}
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
    hub: str = ""
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
        """The files of weights: the one, or all of the folder."""
        if self.folder is None:
            return [] if self.path is None else [self.path]
        return [path for path in sorted(self.folder.iterdir()) if path.suffix in WEIGHTS_ENDINGS]

    @property
    def has_config(self) -> bool:
        """Whether open_clip's config is beside them."""
        return self.folder is not None and (self.folder / CONFIG_FILE).is_file()


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
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


def stated_config(folder: Path) -> dict[str, Any]:
    """Read a folder's `open_clip_config.json`.

    Raises:
        OSError, ValueError: it is missing, or not JSON.
    """
    read: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return read


def stated_preprocessing(weights: Weights) -> dict[str, Any]:
    """Return what the config beside weights says about preprocessing; nothing without one.

    Raises:
        NotReady: the config cannot be read.
    """
    return _stated(weights, "preprocess_cfg")


def require_architecture(weights: Weights, sizes: Sizes) -> None:
    """Refuse weights whose config plainly states other sizes than the backbone's.

    What it leaves out, or leaves to the name of a timm model, is checked once the model is loaded.
    A NaFlex reads images of any size, whatever its config says.

    Raises:
        NotReady: a size differs, or the config cannot be read.
    """
    stated = {"embed_dim": _stated(weights, "model_cfg").get("embed_dim")}
    vision = _stated(weights, "model_cfg", "vision_cfg")
    stated |= {key: vision.get(key) for key in ("image_size", "patch_size")}
    known = {"embed_dim": sizes.channels, "patch_size": sizes.patch_px}
    if sizes.token_budget is None:
        known["image_size"] = sizes.image_px
    for key, value in known.items():
        if isinstance(stated[key], int) and stated[key] != value:
            raise NotReady(
                f"{weights.path}/{CONFIG_FILE}: {key} must be {value}, the backbone's, but is "
                f"{stated[key]}; name other weights, or the backbone they belong to"
            )


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
            f"{path}: must say what the weights beside it were exported from, but cannot be read: "
            f"{error!r}; export them again"
        ) from error


def _stated(weights: Weights, *keys: str) -> dict[str, Any]:
    """Return a part of the config beside weights; nothing without one."""
    if weights.folder is None or not weights.has_config:
        return {}
    try:
        part = stated_config(weights.folder)
        for key in keys:
            part = part.get(key, {})
        return dict(part)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise NotReady(
            f"{weights.folder / CONFIG_FILE}: must be a config as open_clip writes it, but cannot "
            f"be read: {error!r}; get it again"
        ) from error


def checksums(weights: Weights) -> dict[str, Any]:
    """Return the SHA-256 of each file that decides features or prompts, or the random seed.

    Raises:
        NotReady: the folder holds no weights, or a file of weights is incomplete.
    """
    if weights.path is None or (weights.is_random and weights.folder is None):
        return {"random": weights.seed}  # a file of weights says nothing about random ones
    if not weights.is_random:
        for path in weights.files:
            require_whole(path)
    if weights.path.is_file():
        return {weights.path.suffix: remembered_sha256s([weights.path])[0]}
    files = [path for path in sorted(weights.path.glob("*")) if path.suffix in _DECIDING_ENDINGS]
    if weights.is_random:
        files = [path for path in files if path.suffix not in WEIGHTS_ENDINGS]
    elif weights.has_config and {path.suffix for path in weights.files} == {".pt"}:
        raise NotReady(
            f"backbone.path: {weights.path} must hold weights that open_clip reads beside a "
            f"config, but {weights.files[0].name} is not; rename it to end in .pth"
        )
    elif not weights.files:
        raise NotReady(
            f"backbone.path: {weights.path} must hold a config and weights, but has no file that "
            f"ends in {', '.join(sorted(WEIGHTS_ENDINGS))}; put the weights there"
        )
    found: dict[str, Any] = dict(
        zip([path.name for path in files], remembered_sha256s(files), strict=True)
    )
    return {**found, "random": weights.seed} if weights.is_random else found


def require_whole(path: Path) -> None:
    """Refuse what is plainly not a file of weights, as far as this can be told without torch.

    Raises:
        NotReady: the file is empty, cut off, or of another kind.
        OSError: it cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np"):
                return
        with path.open("rb") as file:
            is_old = file.read(1) == b"\x80"  # a pickle, as torch wrote before 1.6
    except SafetensorError:
        is_old = False
    if not is_old and not zipfile.is_zipfile(path):
        raise NotReady(
            f"{path}: must be a complete file of weights, but is empty, cut off or of another "
            "kind; get it again"
        )


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
    return found.resolve()


def _in_weights_folder(name: str) -> Path | None:
    """Return the folder or the file of that name."""
    folder = weights_folder()
    if _holds_weights(folder / name):
        return (folder / name).resolve()
    files = (folder / f"{name}{ending}" for ending in WEIGHTS_ENDINGS)
    return next((path.resolve() for path in files if path.is_file()), None)


def _holds_weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHTS_ENDINGS for path in folder.glob("*"))


def _in_hub_cache(repository: str) -> Path | None:
    """Return the Hugging Face cache's snapshot of a repository; never uses the network."""
    if not repository:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _holds_weights(folder) else None
