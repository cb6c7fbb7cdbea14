"""Scenes with what the teacher says of them, in files: shards, each of scenes of one size.

    python -m recipes.patchwork_students.shards OUTPUT

The teacher reads each scene once, turned, mirrored and resized at random; a student that regresses
many of them learns the mean over such readings. Legend: B scenes, C channels, h x w patches.
"""

import argparse
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from spar_bench.backbones.patchwork import Backbone
from spar_bench.files import replace_bytes
from spar_bench.patchwork.scenes import draw_scene, scene_seed
from spar_bench.run.context import autocast, set_threads
from spar_bench.run.images import normalise
from spar_bench.run.inference import WindowBatch, stitch
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stitching import Axis, Matrix, resize_matrix
from spar_bench.windows import origins

N_SHARDS = 88
SIZES_HW = (
    *((256, 320), (128, 160), (320, 256), (192, 192), (256, 320), (160, 128)),
    *((256, 256), (192, 240), (256, 320), (320, 400), (240, 192), (320, 320)),
)
"""Of the scenes of one shard after another, again and again."""
STEPS = 16
"""A shard is read in so many steps."""

_SCENES, _MOST_SCENES = 1_000_000, 4096
_SHARD_PIXELS = 64 * 256 * 320
_PATCH_PX, _WINDOW_PX, _STRIDE_PX = 8, 64, 18
_SCALES = (0.95, 1.3)
_CELLS = 4
"""The teacher's maps have so many cells along a patch before they become patches."""
_BLUR = 0.5
"""How much patches stay as blurred as an average is, compared with fitting cells: 0 fits them."""


class Shard(NamedTuple):
    """Scenes `(B, 3, H, W)` in uint8, and their targets `(B, C, h, w)` in half precision."""

    images: Tensor
    targets: Tensor


def n_scenes(index: int) -> int:
    """Return how many scenes a shard has: about as many pixels as any, in equal steps."""
    height, width = SIZES_HW[index % len(SIZES_HW)]
    return STEPS * max(1, round(_SHARD_PIXELS / (height * width) / STEPS))


def read_shard(folder: Path, index: int, backbone: Backbone) -> Shard:
    """Return a shard; it is drawn and written first if it is not there."""
    path = folder / f"{index:04d}.safetensors"
    if not path.exists():
        replace_bytes(path, save(draw_shard(index, backbone)._asdict()))
    return Shard(**load_file(path))


def draw_shard(index: int, backbone: Backbone, n: int | None = None) -> Shard:
    """Draw the scenes of a shard, or its first `n`, and let the teacher read each once."""
    height, width = SIZES_HW[index % len(SIZES_HW)]
    rng = np.random.default_rng([0, index])
    images, targets = list[Tensor](), list[Tensor]()
    for place in range(n_scenes(index) if n is None else n):
        seed = scene_seed("train", _SCENES + _MOST_SCENES * index + place)
        image = torch.from_numpy(draw_scene(seed, (height, width))[0]).permute(2, 0, 1)
        images.append(image)
        scale, pose = rng.uniform(*_SCALES), int(rng.integers(8))
        targets.append(target(backbone, image, scale=scale, pose=pose).half())
    return Shard(torch.stack(images), torch.stack(targets))


def target(backbone: Backbone, image: Tensor, *, scale: float, pose: int) -> Tensor:
    """Return the teacher's features of an image in uint8 `(3, H, W)`, on its grid: `(C, h, w)`.

    The teacher reads it resized and posed: windows of 64 px every 18 px, averaged in cells of a
    quarter of a patch. Features of patches are those whose bilinear enlargement comes close to the
    cells, which keeps shapes sharper than an average over patches.
    """
    grid_hw = image.shape[1] // _PATCH_PX, image.shape[2] // _PATCH_PX
    height, width = (_PATCH_PX * round(side * scale / _PATCH_PX) for side in image.shape[1:])
    whole = normalise(image.float() / 255, backbone.mean, backbone.std)[None]
    resized = F.interpolate(
        whole, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    seen = posed(resized[0], pose).contiguous()
    down, across = grid_hw if pose < 4 else grid_hw[::-1]
    axes = _axis(seen.shape[1], down), _axis(seen.shape[2], across)
    with torch.inference_mode():
        encode = partial(_encode, backbone)
        [features] = stitch(seen, encode, [axes], WindowBatch(seen.device, 64))
        return unposed(features, pose)


def _encode(backbone: Backbone, windows: Tensor) -> Tensor:
    with autocast(windows.device, "bfloat16"):
        return backbone.features(windows)


def posed(maps: Tensor, pose: int) -> Tensor:
    """Return one of the eight rotations and mirror images of maps `(..., H, W)`."""
    if pose & 1:
        maps = maps.flip(-1)
    if pose & 2:
        maps = maps.flip(-2)
    return maps.transpose(-1, -2) if pose & 4 else maps


def unposed(maps: Tensor, pose: int) -> Tensor:
    """Undo `posed`."""
    if pose & 4:
        maps = maps.transpose(-1, -2)
    if pose & 2:
        maps = maps.flip(-2)
    return maps.flip(-1) if pose & 1 else maps


@cache
def _axis(length_px: int, n_patches: int) -> Axis:
    """Return how windows along a resized side become the patches of the student's grid."""
    starts = origins(length_px, _WINDOW_PX, _STRIDE_PX)
    cell_px, n_seen = _PATCH_PX // _CELLS, _WINDOW_PX // _PATCH_PX
    enlarged = resize_matrix(n_seen, n_seen * _CELLS)
    total = np.zeros((length_px // cell_px, len(starts) * n_seen))
    counts = np.zeros((len(total), 1))
    for place, start in enumerate(starts):
        cells = slice(start // cell_px, start // cell_px + len(enlarged))
        total[cells, place * n_seen : (place + 1) * n_seen] += enlarged
        counts[cells] += 1
    cells_of_grid = resize_matrix(len(total), n_patches * _CELLS) @ (total / counts)
    return Axis(tuple(starts), _WINDOW_PX, _to_patches(n_patches) @ cells_of_grid)


def _to_patches(n: int) -> Matrix:
    """Return the patches that fit cells best when enlarged, and stay near those they average to.

    `(n, n * _CELLS)`: ridge regression, whose prior is plain resampling.
    """
    enlarge, average = resize_matrix(n, n * _CELLS), resize_matrix(n * _CELLS, n)
    weight = _BLUR * _CELLS
    fitted = enlarge.T @ enlarge + weight * np.eye(n)
    return np.asarray(np.linalg.solve(fitted, enlarge.T + weight * average), np.float64)


def main() -> None:
    """Write the shards that a folder lacks, so that training need not wait for them."""
    parser = argparse.ArgumentParser(prog="python -m recipes.patchwork_students.shards")
    parser.add_argument("output", type=Path, help="shards that are there are left")
    parser.add_argument("--shards", type=int, default=N_SHARDS, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    asked = parser.parse_args()
    if asked.threads is not None:
        set_threads(asked.threads)
    asked.output.mkdir(parents=True, exist_ok=True)
    backbone = Backbone(BackboneSpec(name="patchwork"))
    for index in range(asked.shards):
        read_shard(asked.output, index, backbone)
        print(f"shard {index + 1} of {asked.shards}", flush=True)


if __name__ == "__main__":
    main()
