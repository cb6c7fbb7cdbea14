"""Distillation images: drawn once from the seed, rendered the same way each time."""

import itertools
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.folder import Dataset as Folder
from spar_bench.datasets.patchwork import Dataset
from spar_bench.drawing import Drawing, Drawn, draw
from spar_bench.errors import DataError
from spar_bench.run import images
from spar_bench.run.images import Pictures, render, resize, to_tensor
from tests.small import printed

DRAWING = Drawing(
    count=200, short_side_px=(40, 72), crop=0.5, flip=0.25, seed=3, patch_px=8, shortest_px=32
)


def with_(**changes: Any) -> Drawing:
    return DRAWING.model_copy(update=changes)


def test_list_depends_on_the_seed_alone() -> None:
    assert draw(DRAWING, 50) == draw(DRAWING, 50)
    assert draw(DRAWING, 50) != draw(with_(seed=4), 50)


def test_small_source_is_gone_through_again_and_a_large_one_sampled() -> None:
    again, sample = draw(DRAWING, 50), draw(DRAWING, 1000)

    assert [sorted(one.index for one in again[i : i + 50]) for i in range(0, 200, 50)] == [
        list(range(50))
    ] * 4
    assert len({one.index for one in sample}) == 200
    assert max(one.index for one in sample) > 800


def test_sizes_crops_and_flips_are_drawn_as_the_settings_say() -> None:
    drawn = draw(with_(count=4000), 50)

    sides = [one.short_side_px for one in drawn]
    crops = [one.crop for one in drawn if one.crop is not None]
    assert (min(sides), max(sides)) == (40, 72)
    assert len(crops) / 4000 == pytest.approx(0.5, abs=0.03)
    assert sum(one.flip for one in drawn) / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(0.4 <= share <= 1 for crop in crops for share in crop[:2])
    assert np.mean([crop[0] for crop in crops]) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("crop", "flip", "expected"), [(0.0, 0.0, 0), (1.0, 1.0, 200)])
def test_never_and_always_are_meant(crop: float, flip: float, expected: int) -> None:
    drawn = draw(with_(crop=crop, flip=flip), 50)

    assert sum(one.crop is not None for one in drawn) == expected
    assert sum(one.flip for one in drawn) == expected


def test_drawn_image_survives_json() -> None:
    for one in draw(DRAWING, 50)[:20]:
        assert Drawn.from_json(one.to_json()) == one


def of_bytes(*shape: int) -> torch.Tensor:
    """Return an image of random bytes as values of 0 to 1."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float() / 255


def exact_bytes(image: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
    """Resample bilinearly with pixel centres aligned, in rational numbers; halves up."""
    height, width = image.shape[1:]

    def taps(index: int, length: int, out: int) -> list[tuple[int, Fraction]]:
        at = max(Fraction(2 * index + 1, 2) * Fraction(length, out) - Fraction(1, 2), Fraction(0))
        low = int(at)
        return [(low, 1 - (at - low)), (min(low + 1, length - 1), at - low)]

    bytes_ = (image * 255).round().int().tolist()
    found = torch.zeros(len(bytes_), *image_hw)
    for y, x in itertools.product(*map(range, image_hw)):
        weights = itertools.product(taps(y, height, image_hw[0]), taps(x, width, image_hw[1]))
        weighed = [(row, column, w * v) for (row, w), (column, v) in weights]
        for channel, plane in enumerate(bytes_):
            value = sum((w * plane[row][column] for row, column, w in weighed), Fraction(0))
            found[channel, y, x] = int(value + Fraction(1, 2))
    return found


def test_whole_image_is_resized_and_cut_to_whole_patches() -> None:
    image = of_bytes(3, 60, 90)

    found = render(image, Drawn(0, 45, None, flip=False), DRAWING)

    assert torch.equal(found * 255, exact_bytes(image, (45, 68))[:, :40, :64])


@pytest.mark.parametrize("image_hw", [(10, 15), (40, 60), (25, 36), (31, 47)])
def test_resized_bytes_are_those_of_exact_arithmetic(image_hw: tuple[int, int]) -> None:
    image = of_bytes(2, 20, 30)

    assert torch.equal((resize(image, image_hw) * 255).round(), exact_bytes(image, image_hw))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("image_hw", [(128, 160), (200, 250), (384, 480)])
def test_resized_bytes_do_not_depend_on_the_number_of_threads(
    image_hw: tuple[int, int], mode: str
) -> None:
    image, before = of_bytes(3, 256, 320), torch.get_num_threads()
    resized = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            resized.append(resize(image, image_hw, mode))
    finally:
        torch.set_num_threads(before)

    assert torch.equal(*resized)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resized_image_has_values_of_8_bits(mode: str) -> None:
    image = of_bytes(3, 20, 30)

    found = resize(image, (31, 47), mode) * 255
    exact = F.interpolate(image[None], size=(31, 47), mode=mode)[0].clamp(0, 1) * 255

    assert torch.allclose(found, found.round(), atol=1e-4)
    assert float((found - exact).abs().max()) <= 0.501
    assert torch.equal(resize(image, (20, 30), mode), image)


def test_crop_lies_where_it_was_drawn_and_is_mirrored_after() -> None:
    image = torch.rand(3, 80, 120)
    drawn = Drawn(0, 80, (0.5, 0.6, 1.0, 0.5), flip=True)

    found = render(image, drawn, DRAWING)

    # 40 of 80 rows at the far border; 72 of 120 columns in the middle.
    assert torch.equal(found, image[:, 40:80, 24:96].flip(-1))


def test_crop_keeps_the_shortest_side_where_the_image_has_it() -> None:
    drawn = Drawn(0, 50, (0.4, 0.4, 0.0, 0.0), flip=False)

    tall, small = torch.rand(3, 100, 50), torch.rand(3, 20, 20)

    assert render(tall, drawn, DRAWING).shape == (3, 40, 32)
    tiny = Drawn(0, 20, (0.4, 0.4, 0.0, 0.0), flip=False)
    assert render(small, tiny, DRAWING).shape == (3, 16, 16)


@pytest.mark.parametrize("cache_bytes", [0, 10_000, 1 << 30])
def test_pictures_are_the_same_kept_or_rendered_again(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int
) -> None:
    source = Dataset("train", DatasetSettings(count=2))
    drawn = draw(with_(count=3), 2)
    expected = [render(to_tensor(source.image(one.index)), one, DRAWING) for one in drawn]
    monkeypatch.setattr(images, "CACHE_BYTES", cache_bytes)
    pictures = Pictures(source, drawn, DRAWING)

    for _ in range(2):
        for position, picture in enumerate(expected):
            found = pictures[position]
            assert torch.equal(found, (picture * 255).round() / 255)
    assert pictures._kept_bytes <= cache_bytes


def test_read_only_image_is_read_without_a_warning() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    image.setflags(write=False)

    assert to_tensor(image).shape == (3, 4, 5)


SCENES = with_(count=9, long_side_ratio=1.5)


def test_workers_give_the_same_bytes_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "CACHE_BYTES", 20_000)  # an image or two
    pictures = Pictures(Dataset("train", DatasetSettings(count=4)), draw(SCENES, 4), SCENES)
    positions = [7, 0, 3, 3, 8, 1, 0]

    found = list(pictures.stream(iter(positions), n_workers=2))

    expected = [pictures[position] for position in positions]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    alone = list(pictures.stream(positions))
    assert all(torch.equal(a, b) for a, b in zip(alone, expected, strict=True))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_image_that_cannot_be_read_is_named_whoever_reads_it(
    tmp_path: Path, n_workers: int
) -> None:
    for index in range(3):
        pixels = np.full((40, 60, 3), index, np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    source = Folder("train", DatasetSettings(path=str(tmp_path)))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    drawn = [Drawn(index, 40, None, flip=False) for index in range(3)]
    stream = Pictures(source, drawn, DRAWING).stream([0, 1, 2], n_workers)

    assert next(stream).shape == (3, 40, 56)
    with pytest.raises(DataError, match=r"1\.png") as caught:
        next(stream)

    assert "\n" not in str(caught.value)


LONG_LIST = """
import resource, sys
import numpy as np
from spar_bench.drawing import Drawing, draw
from spar_bench.run import images

class Source:
    def image(self, index):
        return np.full((600, 900, 3), index % 256, np.uint8)

settings = Drawing(count=600, short_side_px=(512, 600), crop=0.0, flip=0.5, seed=0, patch_px=16,
                   shortest_px=512)
images.CACHE_BYTES = 50 << 20
pictures = images.Pictures(Source(), draw(settings, 600), settings)
peaks = []
for position, _ in enumerate(pictures.stream(range(600))):
    if position in (119, 599):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(*peaks)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_list() -> None:
    early, late = map(int, printed(LONG_LIST).split())
    # 600 images of 1.4 MB are 840 MB; the 50 MiB that are kept are full after 36 of them.
    assert late - early < 30


ORPHAN = """
import time
import numpy as np
from spar_bench.drawing import Drawing, Drawn
from spar_bench.run.images import Pictures

class Source:
    def image(self, index):
        time.sleep(60 * index)
        return np.zeros((40, 60, 3), np.uint8)

if __name__ == "__main__":
    drawn = [Drawn(index, 40, None, flip=False) for index in range(2)]
    drawing = Drawing(count=2, short_side_px=(40, 40), crop=0.0, flip=0.0, seed=0, patch_px=8,
                      shortest_px=32)
    stream = Pictures(Source(), drawn, drawing).stream([0, 1], 1)
    print(tuple(next(stream).shape), flush=True)
    next(stream)
"""


@pytest.mark.slow
def test_worker_in_the_midst_of_an_image_ends_where_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    command = [sys.executable, "orphan.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"(3, 40, 56)\n"
        running.kill()

        # Its processes write to the pipe too: it ends when the last of them has.
        running.communicate(timeout=10)

    assert running.returncode == -signal.SIGKILL
