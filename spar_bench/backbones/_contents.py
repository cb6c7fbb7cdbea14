"""The files of weights that decide features: whether they are whole, and their checksums.

No torch here: `check` and `plan` take checksums too.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from spar_bench.backbones._weights import TOKENIZER_ENDINGS, WEIGHTS_ENDINGS, Weights
from spar_bench.digests import remembered_sha256s
from spar_bench.errors import NotReady

_DECIDING_ENDINGS = {*WEIGHTS_ENDINGS, *TOKENIZER_ENDINGS}


def checksums(weights: Weights, tokenizer: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the SHA-256 of each file that decides features or prompts, or the random seed.

    `tokenizer` are the files of the tokenizer, which may lie elsewhere.

    Raises:
        NotReady: the folder holds no weights, or a file of weights is incomplete.
    """
    return {**_of_weights(weights), **_by_name(tokenizer)}


def _of_weights(weights: Weights) -> dict[str, Any]:
    """Return the checksums of weights and of what lies beside them, or the random seed.

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
    found = _by_name(files)
    return {**found, "random": weights.seed} if weights.is_random else found


def _by_name(files: Sequence[Path]) -> dict[str, Any]:
    return dict(zip([path.name for path in files], remembered_sha256s(files), strict=True))


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
