"""Read image and mask files of every common kind into arrays, or explain in one line why not.

Shape legend: H, W image height and width in pixels.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from spar_bench.datasets.base import Image, Mask
from spar_bench.errors import DataError

MOST_LONG = 32
"""Largest ratio of long to short side: the short side is resized, so a strip would get huge."""

_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
# What Pillow's decoders raise on broken streams.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, struct.error)
_HEADER_TELLS = {"JPEG", "MPO", "WEBP", "PNG", "BMP", "GIF", "PPM"}
"""Formats whose header has the size as it is stored, and the tag that turns it."""
_ORIENTATION, _ON_ITS_SIDE = 0x0112, {5, 6, 7, 8}
_PNG_SIGNATURE_BYTES, _PNG_CHECKSUM_BYTES = 8, 4
_PNG_DEPTH_AT = 24  # signature 8, length and name of the first chunk 8, width and height 8


def read_image(path: Path) -> Image:
    """Return an image as RGB `(H, W, 3)`, upright as its EXIF tag says.

    Sixteen-bit grey is scaled by 255 / 65535 and rounded; transparent pixels become white, as in a
    browser; of several frames the first is used.

    Raises:
        DataError: the file is not an image, is damaged, is too elongated, or cannot be converted to
            8 bits unambiguously.
    """
    with _decoding(path, "image"):
        picture, kind = _open_upright(path)
        _require_compact(path, picture.size)
        if picture.mode.startswith("I;16") or (picture.mode, kind) == ("I", "PPM"):
            return _grey_of_16_bits(picture)
        if picture.mode in _EIGHT_BIT:
            return _rgb(picture)
    raise DataError(
        f"{path}: an image must hold 8 or 16 bits per channel, but has mode {picture.mode}; "
        "save it as an 8-bit PNG or JPEG"
    )


def read_image_hw(path: Path) -> tuple[int, int]:
    """Return the size of an image as `read_image` gives it, height first, without its pixels.

    Only where the header may not tell whether it is turned, as in a TIFF, is it decoded.

    Raises:
        DataError: the file is not an image, its header is damaged, or it is too elongated.
    """
    with _decoding(path, "image"), Pillow.open(path) as picture:
        if picture.format not in _HEADER_TELLS or not _is_told_by_header(path, picture):
            width, height = ImageOps.exif_transpose(picture).size
        else:
            width, height = picture.size
            # Pillow's own method for a PNG decodes it, to look for a tag behind its pixels.
            if Pillow.Image.getexif(picture).get(_ORIENTATION) in _ON_ITS_SIDE:
                width, height = height, width
        _require_compact(path, (width, height))
    return height, width


def _is_told_by_header(path: Path, picture: Pillow.Image) -> bool:
    """Return whether nothing follows the pixels of a PNG, which might turn it; True of others."""
    if picture.format != "PNG":
        return True
    names = list[bytes]()
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8:
            n_bytes, name = struct.unpack(">I4s", head)
            names.append(name)
            file.seek(n_bytes + _PNG_CHECKSUM_BYTES, os.SEEK_CUR)
    return set(names[names.index(b"IDAT") :]) <= {b"IDAT", b"IEND"}


def _require_compact(path: Path, size: tuple[int, int]) -> None:
    """Refuse an image, of a width and height, that is too elongated."""
    width, height = size
    if max(size) > MOST_LONG * min(size):
        raise DataError(
            f"{path}: an image must be at most {MOST_LONG} times as long as it is short, "
            f"but is {height}x{width} px; crop it, or leave it out"
        )


def read_mask(path: Path) -> Mask:
    """Return the class indices of a PNG mask, `(H, W)`, upright as its EXIF tag says.

    Palette indices are read, not colours, and grey values as they are stored, of 1 to 16 bits,
    below 256.

    Raises:
        DataError: the file is not a PNG, is damaged or in colour, or holds larger values.
    """
    with _decoding(path, "mask"):
        picture, kind = _open_upright(path)
    if kind != "PNG":  # others may be lossy, or scale small values in ways that Pillow hides
        raise DataError(f"{path}: a mask must be a PNG, but is {kind}; save it as an index PNG")
    if picture.mode not in {"1", "L", "P"} and not picture.mode.startswith("I;16"):
        raise DataError(
            f"{path}: a mask must hold one class index per pixel, but has mode {picture.mode}; "
            "save indices, not colours, as a PNG of mode L or P"
        )
    values = np.asarray(picture).astype(np.uint16)
    if values.max() > 255:
        raise DataError(
            f"{path}: a mask must hold class indices below 256, but has {values.max()}; "
            "number its classes from 0"
        )
    if picture.mode == "L":
        values //= 255 // (2 ** _png_depth(path) - 1)  # Pillow scales 2 and 4 bits to 0..255
    return values.astype(np.uint8)


@contextmanager
def _decoding(path: Path, kind: str) -> Iterator[None]:
    """Turn any exception from decoding a damaged file into a DataError that names the file."""
    try:
        yield
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        found = "no known image format" if size else "an empty file"
        raise DataError(
            f"{path}: must be an image, but is {found}; remove or replace it"
        ) from error
    except Pillow.DecompressionBombError as error:
        raise DataError(
            f"{path}: {kind} must be small enough to be read safely, but is not "
            f"({error}); shrink it"
        ) from error
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or error  # without repeating the path
        raise DataError(
            f"{path}: {kind} must be readable, but is not ({reason}); replace it"
        ) from error


def _open_upright(path: Path) -> tuple[Pillow.Image, str | None]:
    """Decode a file; return its first frame turned upright, and the name of its format."""
    with Pillow.open(path) as picture:
        return ImageOps.exif_transpose(picture), picture.format


def _grey_of_16_bits(picture: Pillow.Image) -> Image:
    grey = np.asarray(picture).astype(np.uint32)
    grey = (grey * 255 + 32767) // 65535
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _rgb(picture: Pillow.Image) -> Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Pillow.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Pillow.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def _png_depth(path: Path) -> int:
    """Return the bits per sample of a PNG, which Pillow does not report."""
    with path.open("rb") as file:
        file.seek(_PNG_DEPTH_AT)
        return file.read(1)[0]


def read_labels(path: Path, table: Sequence[int | None]) -> Mask:
    """Return the labels of a mask file, `(H, W)`.

    Args:
        path: The file.
        table: The label of each of the 256 stored values; None where a value is a mistake.

    Raises:
        DataError: it cannot be read, or holds a value without a label.
    """
    stored = read_mask(path)
    labels = np.array([-1 if label is None else label for label in table])
    counts = np.bincount(stored.ravel(), minlength=len(labels))
    wrong = np.flatnonzero((counts > 0) & (labels < 0))
    if len(wrong):
        value = int(wrong[0])
        raise DataError(
            f"{path}: a mask must hold only {_ranges(np.flatnonzero(labels >= 0))}, but has "
            f"{value} in {counts[value]} px; relabel them, or correct the class list"
        )
    return labels.astype(np.uint8)[stored]


def _ranges(values: NDArray[np.intp]) -> str:
    """Write numbers as ranges: 0 to 20 and 255."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
