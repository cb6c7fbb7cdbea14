"""The files of weights that decide features: whether they are whole, and their checksums.

No torch here: `check` and `plan` take checksums too.
"""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from spar_bench.backbones._weights import CONFIG_FILE, WEIGHTS_ENDINGS, Weights
from spar_bench.digests import remembered_sha256s
from spar_bench.errors import NotReady

_DECIDING_ENDINGS = {".json", ".txt", ".model", ".gz"}
"""Of files that a plug-in may read beside weights that have none of open_clip's configs."""


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


def checksums(weights: Weights, tokenizer: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the SHA-256 of each file that decides features or prompts, or the random seed.

    `tokenizer` are the files of the tokenizer, which may lie elsewhere.

    Raises:
        NotReady: the folder holds no weights, or a file of weights is incomplete.
        OSError: a file cannot be read.
    """
    return {**_of_weights(weights), **_by_name(tokenizer)}


def _of_weights(weights: Weights) -> dict[str, Any]:
    """Return the checksums of weights and of what is read beside them, or the random seed.

    Raises:
        NotReady: the folder holds no weights, or a file of weights is incomplete.
        OSError: a file cannot be read.
    """
    if weights.path is None or (weights.is_random and weights.folder is None):
        return {"random": weights.seed}  # a file of weights says nothing about random ones
    if weights.is_random:
        return {"random": weights.seed, **_by_name(_beside(weights.path, weights))}
    for path in weights.files:
        require_whole(path)
    if weights.folder is None:
        return {weights.path.suffix: remembered_sha256s(weights.files)[0]}
    if not weights.files:
        raise NotReady(f"backbone.path: {_lacking(weights.folder, weights)}")
    return _by_name([*_beside(weights.folder, weights), *weights.files])


def _beside(folder: Path, weights: Weights) -> list[Path]:
    """Return the files in a folder, besides weights and tokenizer, that may decide features."""
    if weights.has_config:
        return [folder / CONFIG_FILE]
    return [path for path in sorted(folder.iterdir()) if path.suffix in _DECIDING_ENDINGS]


def _lacking(folder: Path, weights: Weights) -> str:
    """Tell that a folder holds no weights, or none that are read there."""
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


def _by_name(files: Sequence[Path]) -> dict[str, Any]:
    return dict(zip([path.name for path in files], remembered_sha256s(files), strict=True))


def require_whole(path: Path) -> None:
    """Refuse what is plainly not a file of weights, as far as this can be told without torch.

    Raises:
        NotReady: the file is empty, cut off, or of another kind.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:  # safe_open's own OSError does not say which file it is about
        is_old = file.read(1) == b"\x80"  # a pickle, as torch wrote before 1.6
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np"):
                return
    except SafetensorError:
        is_old = False
    if not is_old and not zipfile.is_zipfile(path):
        raise NotReady(
            f"{path}: must be a complete file of weights, but is empty, cut off or of another "
            "kind; get it again"
        )
