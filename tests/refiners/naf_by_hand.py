"""NAF in plain loops over pixels, in double precision, with NATTEN's own words for neighbours.

That is: patches are repeated to the cells, and a cell sees those 9 by 9 around it that are a whole
number of patches away. A pixel is a vector of channels last.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
N_HEADS, N_SEEN = 4, 9


def naf(weights: Mapping[str, Array], image: Array, features: Array, cells_hw: list[int]) -> Array:
    """Return features `(h', w', C)` for features `(h, w, C)` and an image `(H, W, 3)`."""
    encoded = encode(weights, image, cells_hw)
    keys = averaged(encoded, [*features.shape[:2]])
    refined = np.zeros((*cells_hw, features.shape[2]))
    per_head, width = features.shape[2] // N_HEADS, encoded.shape[2] // N_HEADS
    per_patch = [cells // patches for cells, patches in zip(cells_hw, features.shape, strict=False)]
    for row, column in np.ndindex(*cells_hw):
        rows, columns = (
            [round_down((place + 0.5) / per_patch[axis]) for place in dilated]
            for axis, dilated in enumerate(
                neighbours(place, cells_hw[axis], per_patch[axis])
                for axis, place in enumerate((row, column))
            )
        )
        for head in range(N_HEADS):
            part = slice(head * width, (head + 1) * width)
            query = encoded[row, column, part]
            scores = {(r, c): query @ keys[r, c, part] / 8 for r in rows for c in columns}
            highest = max(scores.values())
            powers = {place: math.exp(score - highest) for place, score in scores.items()}
            own = slice(head * per_head, (head + 1) * per_head)
            for place, power in powers.items():
                refined[row, column, own] += power / sum(powers.values()) * features[*place, own]
    return refined


def neighbours(place: int, length: int, dilation: int) -> list[int]:
    """Return the 9 places nearest to one among those a multiple of `dilation` away, or all."""
    reachable = list(range(place % dilation, length, dilation))
    first = reachable.index(place) - N_SEEN // 2
    first = max(0, min(first, len(reachable) - N_SEEN))
    return reachable[first : first + N_SEEN]


def round_down(value: float) -> int:
    return math.floor(value)


def encode(weights: Mapping[str, Array], image: Array, cells_hw: list[int]) -> Array:
    """Return the encoded image with its positions, `(h', w', 256)`."""
    branches = []
    for name in ("encoder", "sem_encoder"):
        own = {
            key.removeprefix(f"image_encoder.{name}."): value
            for key, value in weights.items()
            if key.startswith(f"image_encoder.{name}.")
        }
        maps = convolved(image, own["0.weight"], own["0.bias"])
        for block in (1, 2):
            for half in (1, 2):
                norm = (own[f"{block}.norm{half}.{kind}"] for kind in ("weight", "bias"))
                maps = normed(maps, *norm)
                maps = maps / (1 + np.exp(-maps))
                conv = (own[f"{block}.conv{half}.{kind}"] for kind in ("weight", "bias"))
                maps = convolved(maps, *conv)
        branches.append(averaged(maps, cells_hw))
    return turned(np.concatenate(branches, axis=2), weights["image_encoder.rope.periods"])


def convolved(maps: Array, weight: Array, bias: Array) -> Array:
    """Convolve, beyond the border by reflection that does not repeat it."""
    border = weight.shape[2] // 2
    padded = np.pad(maps, ((border, border), (border, border), (0, 0)), mode="reflect")
    out = np.zeros((*maps.shape[:2], len(weight)))
    for row, column in np.ndindex(*maps.shape[:2]):
        around = padded[row : row + 2 * border + 1, column : column + 2 * border + 1]
        out[row, column] = np.einsum("ocyx,yxc->o", weight, around) + bias
    return out


def normed(maps: Array, weight: Array, bias: Array) -> Array:
    """Normalise each of 8 groups of channels over the image."""
    out = np.zeros_like(maps)
    for group in np.split(np.arange(maps.shape[2]), 8):
        values = maps[:, :, group]
        out[:, :, group] = (values - values.mean()) / math.sqrt(values.var() + 1e-5)
    return out * weight + bias


def averaged(maps: Array, out_hw: list[int]) -> Array:
    """Average over blocks of a whole number of places."""
    rows, columns = (n // m for n, m in zip(maps.shape, out_hw, strict=False))
    out = np.zeros((*out_hw, maps.shape[2]))
    for row, column in np.ndindex(*out_hw):
        block = maps[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        out[row, column] = block.mean(axis=(0, 1))
    return out


def turned(maps: Array, periods: Array) -> Array:
    """Turn each pair of channels of a head by its angle: 16 by the row, 16 by the column."""
    out, width = maps.copy(), maps.shape[2] // N_HEADS
    for row, column in np.ndindex(*maps.shape[:2]):
        for pair in range(width // 2):
            place, length = (row, maps.shape[0]) if pair < 16 else (column, maps.shape[1])
            angle = 2 * math.pi * (2 * (place + 0.5) / length - 1) / periods[pair % 16]
            for head in range(N_HEADS):
                one, other = head * width + pair, head * width + pair + width // 2
                a, b = maps[row, column, one], maps[row, column, other]
                out[row, column, one] = a * math.cos(angle) - b * math.sin(angle)
                out[row, column, other] = b * math.cos(angle) + a * math.sin(angle)
    return out
