"""Image and mask files of every kind: read correctly, or reported in one line."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile

from spar_bench.datasets._images import read_image, read_image_hw, read_mask
from spar_bench.errors import DataError

# Three pixels wide, two high; every pixel its own colour.
RGB = np.array(
    [[[10, 20, 30], [40, 50, 60], [70, 80, 90]], [[250, 0, 0], [0, 250, 0], [0, 0, 250]]], np.uint8
)
INDICES = np.array([[0, 1, 2], [3, 11, 255]], np.uint8)
ORIENTATION = 0x0112


def saved(path: Path, pixels: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    picture = Pillow.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def png(path: Path, pixels: NDArray[np.uint8], *, depth: int, colour_type: int = 0) -> Path:
    """Write a one-channel PNG by hand, with samples of `depth` bits, independently of Pillow."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape
    bits = np.unpackbits(pixels[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes([200, 100, 50] * 2**depth)) if colour_type == 3 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_colour_is_read_height_then_width(tmp_path: Path, ending: str) -> None:
    assert np.array_equal(read_image(saved(tmp_path / f"a.{ending}", RGB)), RGB)


def test_jpeg_and_webp_are_read_within_what_they_lose(tmp_path: Path) -> None:
    flat = np.full((9, 16, 3), (200, 100, 50), np.uint8)

    for name, options in (("a.jpg", {"quality": 95}), ("a.webp", {"lossless": True})):
        image = read_image(saved(tmp_path / name, flat, **options))

        assert image.shape == (9, 16, 3)
        assert np.abs(image.astype(int) - flat).max() <= 3


def test_grey_is_repeated_over_the_channels(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.png", RGB[:, :, 0]))

    assert np.array_equal(image, np.repeat(RGB[:, :, :1], 3, axis=2))


def test_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    image = read_image(png(tmp_path / "a.png", np.array([[0, 1, 0]], np.uint8), depth=1))

    assert image[0].tolist() == [[0] * 3, [255] * 3, [0] * 3]


def test_palette_image_is_read_as_its_colours(tmp_path: Path) -> None:
    picture = Pillow.fromarray(INDICES[:1].copy(), "L").convert("P")
    picture.putpalette([5, 6, 7, 8, 9, 10, 11, 12, 13])
    picture.putdata([2, 0, 1])
    picture.save(tmp_path / "a.png")

    assert read_image(tmp_path / "a.png")[0].tolist() == [[11, 12, 13], [5, 6, 7], [8, 9, 10]]


def test_cmyk_is_converted_to_rgb(tmp_path: Path) -> None:
    inks = np.zeros((2, 3, 4), np.uint8)
    inks[:, :, 0] = 255  # all cyan
    path = tmp_path / "a.tif"
    Pillow.fromarray(inks, "CMYK").save(path)

    assert np.array_equal(read_image(path), np.broadcast_to([0, 255, 255], (2, 3, 3)))


SIXTEEN_BITS = np.array([[0, 128, 129], [257, 32896, 65535]], "<u2")
EIGHT_BITS = [[0, 0, 1], [1, 128, 255]]


@pytest.mark.parametrize(
    ("name", "dtype", "mode"),
    [("a.png", "<u2", "I;16"), ("a.tif", "<u2", "I;16"), ("a.tif", ">u2", "I;16B")],
)
def test_sixteen_bit_grey_is_scaled_to_eight(
    tmp_path: Path, name: str, dtype: str, mode: str
) -> None:
    path = saved(tmp_path / name, SIXTEEN_BITS.astype(dtype))

    image = read_image(path)

    with Pillow.open(path) as picture:
        assert picture.mode == mode
    assert image[:, :, 0].tolist() == EIGHT_BITS
    assert image.shape == (2, 3, 3)


def test_sixteen_bit_portable_grey_map_is_scaled_to_eight(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + SIXTEEN_BITS.astype(">u2").tobytes())

    assert read_image(path)[:, :, 0].tolist() == EIGHT_BITS


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    alpha = np.array([[255, 0, 51], [255, 255, 0]], np.uint8)  # 51 is a fifth
    rgba = np.dstack([RGB, alpha])

    image = read_image(saved(tmp_path / "a.png", rgba))

    assert image[0, 0].tolist() == [10, 20, 30]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert image[0, 2].tolist() == [218, 220, 222]  # 255 + (c - 255) / 5


def test_grey_and_palette_with_transparency_lie_on_white(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey.png", np.dstack([RGB[:, :, 0], RGB[:, :, 0] * 0]))
    palette = saved(tmp_path / "palette.png", RGB, "P", transparency=bytes(256))

    assert (read_image(grey) == 255).all()
    assert (read_image(palette) == 255).all()


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_image_is_turned_upright_as_its_exif_tag_says(tmp_path: Path, ending: str) -> None:
    left_dark = np.zeros((8, 16, 3), np.uint8)
    left_dark[:, 8:] = 255
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6  # turn a quarter clockwise: the left side comes to the top

    image = read_image(saved(tmp_path / f"a.{ending}", left_dark, exif=exif))

    assert image.shape == (16, 8, 3)
    assert image[:8].max() < 10
    assert image[8:].min() > 245


def test_sixteen_bit_grey_is_turned_upright_too(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    grey = np.array([[0, 65535, 65535]], np.uint16)

    image = read_image(saved(tmp_path / "a.png", grey, exif=exif))

    assert image[:, 0, 0].tolist() == [0, 255, 255]


def test_image_of_one_pixel_is_read(tmp_path: Path) -> None:
    assert np.array_equal(read_image(saved(tmp_path / "a.png", RGB[:1, :1])), RGB[:1, :1])


@pytest.mark.parametrize("image_hw", [(2, 66), (66, 2)])
def test_strip_is_refused_in_one_line(tmp_path: Path, image_hw: tuple[int, int]) -> None:
    path = saved(tmp_path / "strip.png", np.zeros((*image_hw, 3), np.uint8))

    said = rf"^{path}: an image must be at most 32 times .* {image_hw[0]}x{image_hw[1]} px; crop it"
    with pytest.raises(DataError, match=said):
        read_image(path)


def test_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Pillow.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_ending_that_belies_the_format_is_read_by_content(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", RGB)

    assert np.array_equal(read_image(path.rename(tmp_path / "a.jpg")), RGB)


def broken(path: Path, kind: str) -> None:
    """Write a file that cannot be read as an image."""
    whole = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404 Not Found</html>")
    elif kind == "folder":
        path.mkdir()
    elif kind.startswith("half"):
        saved(path, whole, format=kind.split()[1])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "no pixels":
        png(path, np.zeros((1, 1), np.uint8), depth=8)
        path.write_bytes(path.read_bytes()[:33])
    elif kind == "enormous":
        png(path, np.zeros((1, 1), np.uint8), depth=8)
        header = bytearray(path.read_bytes())
        header[16:24] = struct.pack(">II", 50_000, 50_000)
        header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
        path.write_bytes(header)
    elif kind == "float":
        saved(path, np.zeros((2, 3), np.float32), format="TIFF")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "an empty file"),
        ("text", "no known image format"),
        ("missing", "No such file"),
        ("folder", "Is a directory"),
        ("half PNG", "truncated"),
        ("half JPEG", "truncated"),
        ("half BMP", "truncated"),
        ("half TIFF", "truncated|could not|cannot"),
        ("no pixels", "no known image format"),
        ("enormous", "must be small enough"),
        ("float", "mode F"),
    ],
)
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_file_that_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, kind: str, said: str
) -> None:
    path = tmp_path / "holiday.png"
    broken(path, kind)

    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=said if read is read_image else "holiday") as caught:
            read(path)

        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_mask_is_read_as_stored_in_grey(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(saved(tmp_path / "a.png", INDICES)), INDICES)


@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_mask_of_few_bits_keeps_its_indices(tmp_path: Path, depth: int, colour_type: int) -> None:
    indices = (np.arange(6).reshape(2, 3) % 2**depth).astype(np.uint8)

    mask = read_mask(png(tmp_path / "a.png", indices, depth=depth, colour_type=colour_type))

    assert np.array_equal(mask, indices)
    assert mask.dtype == np.uint8


def test_palette_mask_gives_indices_not_colours(tmp_path: Path) -> None:
    picture = Pillow.new("P", (3, 2))
    picture.putpalette([200, 100, 50] * 256)
    picture.putdata(INDICES.ravel().tolist())
    picture.save(tmp_path / "a.png")

    assert np.array_equal(read_mask(tmp_path / "a.png"), INDICES)


def test_sixteen_bit_mask_below_256_is_read_unscaled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", INDICES.astype(np.uint16))

    assert np.array_equal(read_mask(path), INDICES)


@pytest.mark.parametrize(
    ("name", "pixels", "said"),
    [
        ("a.png", RGB, "one class index per pixel, but has mode RGB"),
        ("a.png", np.dstack([INDICES, INDICES]), "mode LA"),
        ("a.png", np.full((2, 3), 256, np.uint16), "below 256, but has 256"),
        ("a.jpg", INDICES, "must be a PNG, but is JPEG"),
    ],
)
def test_mask_that_holds_no_indices_says_what_it_holds(
    tmp_path: Path, name: str, pixels: NDArray[Any], said: str
) -> None:
    path = saved(tmp_path / name, pixels)

    with pytest.raises(DataError, match=said) as caught:
        read_mask(path)

    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_size_is_that_of_the_image_as_it_is_read(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation

    path = saved(tmp_path / f"a.{ending}", np.zeros((9, 16, 3), np.uint8), exif=exif)

    assert read_image_hw(path) == ((9, 16) if orientation < 5 else (16, 9))
    assert read_image_hw(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "ppm"])
def test_size_is_read_without_the_pixels(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / f"a.{ending}", np.zeros((9, 16, 3), np.uint8))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))

    assert read_image_hw(path) == (9, 16)


def test_png_whose_tag_follows_its_pixels_has_its_upright_size(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", np.zeros((9, 16), np.uint8), depth=8)
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    tag = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    before, end = path.read_bytes()[:-12], path.read_bytes()[-12:]

    path.write_bytes(before + tag + end)

    assert read_image_hw(path) == read_image(path).shape[:2] == (16, 9)


def test_size_of_what_is_no_image_or_too_elongated_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    strip = saved(tmp_path / "b.png", np.zeros((2, 65, 3), np.uint8))

    for path, reason in ((tmp_path / "a.png", "no known image format"), (strip, "32 times")):
        with pytest.raises(DataError, match=reason):
            read_image_hw(path)
