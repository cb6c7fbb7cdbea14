"""Files of weights in place of a student's training: anyone's, or those in the package."""

import os
from pathlib import Path

from spar_bench.components.weights import require_whole
from spar_bench.digests import remembered_sha256
from spar_bench.errors import NotReady

_SHIPPED = Path(__file__).parents[1] / "patchwork" / "students"


def checkpoint_path(checkpoint: str) -> Path:
    """Return the file that replaces training a student: that of one in the package, or a path."""
    shipped = _SHIPPED / f"{checkpoint}.safetensors"
    is_shipped = checkpoint in shipped_students() and not os.path.lexists(checkpoint)
    return shipped if is_shipped else Path(checkpoint)


def shipped_students() -> list[str]:
    """Return the names of the students in the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.safetensors"))


def checkpoint_sha256(checkpoint: str) -> str:
    """Return the SHA-256 of the file that replaces training a student.

    Raises:
        NotReady: the file is missing or incomplete.
    """
    require_checkpoint(checkpoint)
    return remembered_sha256(checkpoint_path(checkpoint))


def require_checkpoint(checkpoint: str) -> None:
    """Refuse what names no file of weights in place of a student; only its header is read.

    Raises:
        NotReady: the file is missing or incomplete.
    """
    try:
        require_whole(checkpoint_path(checkpoint))
    except OSError as error:
        names = ", ".join(shipped_students())
        raise NotReady(
            f"student.checkpoint: must be a file of weights or one of the package's ({names}), but "
            f"{checkpoint} cannot be read ({error.strerror}); correct it"
        ) from error
