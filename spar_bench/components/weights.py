"""A component's weights: where they are, whether they are whole, and their checksums.

They lie at a path, in the package, in the weights folder, or in the Hugging Face cache. No torch
here: `check` and `plan` look for weights too.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from spar_bench.components.header import header_shapes
from spar_bench.components.sizes import TextSizes
from spar_bench.digests import remembered_sha256s
from spar_bench.errors import NotReady
from spar_bench.validation import dotted, mistakes

CONFIG_FILE = "open_clip_config.json"
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
_DECIDING_ENDINGS = {".json", ".txt", ".model", ".gz"}
"""Of files that a plug-in may read beside weights that have none of open_clip's configs."""
FOLDER_VARIABLE = "SPAR_BENCH_WEIGHTS"
DEFAULT_FOLDER = "weights"
RANDOM_SEED = 0

Channels = tuple[float, float, float]
LEGACY: Channels = (0.5, 0.5, 0.5)
"""Mean and deviation of the paper's `legacy` preprocessing, as far as its code tells."""
Checksums = dict[str, str | int]
"""SHA-256 by file name, and the seed of random weights as `random`."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a component's weights come from: licence, source, and where they are looked for.

    `hub` is a repository of the Hugging Face Hub; `folder` lies in the package, beside the data
    file. `terms` states in one line what the licence asks of users, where it asks more than usual.
    """

    license: str = ""
    terms: str = ""
    source: str = ""
    hub: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+)?$")] = ""
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class BackboneCard(Card):
    """What is known about a backbone without a config beside its weights.

    `model` is the architecture by its library's own name, for weights that come without a config;
    `mean`, `std` and `interpolation` are its preprocessing there. `text` has the sizes of a text
    tower, from which a plan computes the cost of prompts.
    """

    model: str = ""
    read_outs: tuple[str, ...] = ()
    has_text: bool = True
    text: TextSizes | None = None
    mean: Channels | None = None
    std: Channels | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


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
    rank = _PREFERRED.index(path.name) if path.name in _PREFERRED else len(_PREFERRED)
    return rank, path.suffix != ".safetensors", path


@dataclass(frozen=True)
class Wanted:
    """Which weights a spec asks for; `what` and `key` name the component and its path in messages.

    `data_file` is the component's, beside which `card.folder` lies.
    """

    what: str
    key: str
    name: str
    path: str | None
    card: Card
    data_file: Path | None
    is_random: bool = False


def find(wanted: Wanted) -> Weights:
    """Find weights: where the spec says, in the package, in the weights folder or the Hub's cache.

    Raises:
        NotReady: they are in none of these.
    """
    card = wanted.card
    if wanted.is_random:
        return Weights(_existing(wanted) if wanted.path else None, is_random=True)
    if wanted.path is not None:
        return Weights(_existing(wanted))
    if card.folder and wanted.data_file is not None:
        return Weights((wanted.data_file.parent / card.folder).resolve())
    name = Path(wanted.name).stem
    found = _in_weights_folder(name) or _in_hub_cache(card.hub)
    if found is None:
        where = "weights of its name" if not card.hub else f"the repository {card.hub}"
        terms = "; ".join(filter(None, [card.license, card.terms]))
        get = f"get them from {card.source} ({terms}), or " if card.source else ""
        raise NotReady(
            f"{wanted.what}: its weights must be in {weights_folder() / name} or in the "
            f"Hugging Face cache, but neither has {where}; {get}name them as {wanted.key}"
        )
    return Weights(found)


def weights_folder() -> Path:
    """Return the folder in which weights are looked for by name: $SPAR_BENCH_WEIGHTS or weights."""
    return Path(os.path.expanduser(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER))


def _existing(wanted: Wanted) -> Path:
    found = Path(wanted.path or "")
    if not found.exists():
        raise NotReady(
            f"{wanted.key}: must be a folder or file of weights, but {wanted.path} does not exist; "
            "correct it"
        )
    if found.is_file() and found.suffix not in WEIGHTS_ENDINGS:
        raise NotReady(
            f"{wanted.key}: a file of weights must end in {', '.join(sorted(WEIGHTS_ENDINGS))}, "
            f"but got {wanted.path}; name the folder, or the weights"
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
    from huggingface_hub import constants

    if not Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}").is_dir():
        return None  # without the rest of the library, which takes longer than all of `check`
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


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn a file that the system does not let us read into one line.

    Raises:
        NotReady: a file is missing, or must not be read.
    """
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"{error.filename or what}: must be readable, but cannot be read "
            f"({error.strerror or error}); check its permissions, or get it again"
        ) from error


def checksums(weights: Weights, tokenizer: Sequence[Path] = (), *, key: str) -> Checksums:
    """Return the SHA-256 of each file that decides features or prompts, or the random seed.

    Args:
        weights: Those to load.
        tokenizer: The files of the tokenizer, which may lie elsewhere.
        key: The spec's key of their path, for messages.

    Raises:
        NotReady: the folder holds no weights, or a file of weights is incomplete.
        OSError: a file cannot be read.
    """
    return {**_of_weights(weights, key), **_by_name(tokenizer)}


def _of_weights(weights: Weights, key: str) -> Checksums:
    if weights.path is None or (weights.is_random and weights.folder is None):
        return {"random": weights.seed}  # a file of weights says nothing about random ones
    if weights.is_random:
        return {"random": weights.seed, **_by_name(_beside(weights.path, weights))}
    for path in weights.files:
        require_whole(path)
    if weights.folder is None:
        return {weights.path.suffix: remembered_sha256s(weights.files)[0]}
    if not weights.files:
        raise NotReady(f"{key}: {_lacking(weights.folder, weights)}")
    return _by_name([*_beside(weights.folder, weights), *weights.files])


def _beside(folder: Path, weights: Weights) -> list[Path]:
    """Return the files in a folder, besides weights and tokenizer, that may decide features."""
    if weights.has_config:
        return [folder / CONFIG_FILE]
    return [path for path in sorted(folder.iterdir()) if path.suffix in _DECIDING_ENDINGS]


def _lacking(folder: Path, weights: Weights) -> str:
    """Describe a folder that holds no weights, or none that are read there."""
    unread = sorted(folder.glob("*.pt")) if weights.has_config else []
    if unread:
        return (
            f"{folder} must hold weights that open_clip reads beside a config, but "
            f"{unread[0].name} is not; rename it to end in .pth"
        )
    return (
        f"{folder} must hold a config and weights, but has no file that ends in "
        f"{', '.join(sorted(WEIGHTS_ENDINGS))}; put the weights there"
    )


def _by_name(files: Sequence[Path]) -> Checksums:
    return dict(zip([path.name for path in files], remembered_sha256s(files), strict=True))


def require_whole(path: Path) -> None:
    """Refuse what is not a file of weights, as far as its header or directory shows.

    Raises:
        NotReady: the file is empty, cut off, or of another kind.
        OSError: it cannot be read.
    """
    if not _is_whole(path):
        raise NotReady(
            f"{path}: must be a complete file of weights, but is empty, cut off or of another "
            "kind; get it again"
        )


def _is_whole(path: Path) -> bool:
    if path.suffix == ".safetensors":
        try:
            header_shapes(path)
        except ValueError:
            return False
        return True
    with path.open("rb") as file:
        is_old = file.read(1) == b"\x80"  # a pickle, as torch wrote before 1.6
    return is_old or zipfile.is_zipfile(path)


def describe_read_error(error: Exception) -> str:
    """Return what an error while a file was read says about it, to follow "but the file"."""
    match error:
        case OSError():
            return f"cannot be read ({error.strerror or error})"
        case KeyError():
            return f"lacks {error.args[0]}"
        case json.JSONDecodeError():
            return f"is not JSON ({error})"
        case UnicodeDecodeError():
            return "is not text"
        case ValidationError():
            first = next(mistakes(error))
            return f"has a wrong {dotted(first.steps)} ({first.text.partition(', but got')[0]})"
        case ZeroDivisionError():
            return "states a size of 0"
        case TypeError() | AttributeError():
            return "has values of another kind than expected"
    return " ".join(str(error).split())
