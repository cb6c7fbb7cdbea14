"""AnyUp by the book: every cell against every patch under a mask, in float64, with numpy alone.

Shape legend: D width, H x W pixels, h x w patches, H' x W' cells, C channels, V channels of values.
"""

from collections.abc import Mapping
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = Mapping[str, Array]
Hw = tuple[int, int]


def upsample(state: State, values: Array, features: Array, image: Array, cells_hw: Hw) -> Array:
    """Upsample values `(V, h, w)` to `(V, H', W')`; the image is normalised as ImageNet's."""
    grid_hw = features.shape[1:]
    encoded = rotate(state["rope.freqs"], encode(state, "image_encoder", image))
    queries = pool(encode(state, "query_encoder", encoded), cells_hw)
    keys = pool(encode(state, "key_encoder", encoded), grid_hw)

    summary = summarise(state["key_features_encoder.0.basis"], features)
    summary = blocks(state, "key_features_encoder", summary)
    joined = np.pad(np.concatenate([keys, summary]), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    keys = blocks(state, "aggregation", convolve(state["aggregation.0.weight"], joined))

    padded = np.pad(queries, ((0, 0), (1, 1), (1, 1)))
    queries = convolve(state["cross_decode.conv2d.weight"], padded)
    weights = attend(state, queries, keys, mask(cells_hw, grid_hw))
    upsampled: Array = np.einsum("nm,vm->vn", weights, values.reshape(len(values), -1))
    return upsampled.reshape(-1, *cells_hw)


def encode(state: State, prefix: str, pixels: Array) -> Array:
    weight = state[f"{prefix}.0.weight"][:, :, 0, 0]
    return blocks(state, prefix, np.einsum("oi,ihw->ohw", weight, pixels))


def blocks(state: State, prefix: str, x: Array) -> Array:
    for block in (f"{prefix}.1.block", f"{prefix}.2.block"):
        inner = x
        for norm, conv in ((0, 2), (3, 5)):
            inner = group_norm(
                inner, state[f"{block}.{norm}.weight"], state[f"{block}.{norm}.bias"]
            )
            inner = inner / (1 + np.exp(-inner))
            inner = np.einsum("oi,ihw->ohw", state[f"{block}.{conv}.weight"][:, :, 0, 0], inner)
        x = x + inner
    return x


def group_norm(x: Array, weight: Array, bias: Array) -> Array:
    groups = [
        (group - group.mean()) / np.sqrt(group.var() + 1e-5) for group in np.split(x, 8, axis=0)
    ]
    normed: Array = weight[:, None, None] * np.concatenate(groups) + bias[:, None, None]
    return normed


def rotate(freqs: Array, x: Array) -> Array:
    rows, columns = np.linspace(0, 1, x.shape[1]), np.linspace(0, 1, x.shape[2])
    angle = (
        freqs[0][:, None, None] * rows[None, :, None]
        + freqs[1][:, None, None] * columns[None, None, :]
    )
    half = len(x) // 2
    rotated: Array = x * np.cos(angle) + np.concatenate([-x[half:], x[:half]]) * np.sin(angle)
    return rotated


def pool(x: Array, to_hw: Hw) -> Array:
    pooled = np.empty((len(x), *to_hw))
    for i in range(to_hw[0]):
        for j in range(to_hw[1]):
            top, bottom = floor(i * x.shape[1] / to_hw[0]), ceil((i + 1) * x.shape[1] / to_hw[0])
            left, right = floor(j * x.shape[2] / to_hw[1]), ceil((j + 1) * x.shape[2] / to_hw[1])
            pooled[:, i, j] = x[:, top:bottom, left:right].mean(axis=(1, 2))
    return pooled


def summarise(basis: Array, features: Array) -> Array:
    """Average over the taps that lie inside, softmax over kernels, mean over channels."""
    channels, height, width = features.shape
    normalised = features / np.linalg.norm(features, axis=0)
    found = np.empty((len(basis), height, width))
    for row in range(height):
        for column in range(width):
            compared, n_inside = np.zeros((channels, len(basis))), 0
            for i in range(5):
                for j in range(5):
                    y, x = row + i - 2, column + j - 2
                    if 0 <= y < height and 0 <= x < width:
                        compared += np.outer(normalised[:, y, x], basis[:, 0, i, j])
                        n_inside += 1
            found[:, row, column] = softmax(compared / n_inside).mean(axis=0)
    return found


def convolve(weight: Array, padded: Array) -> Array:
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    taps = [(i, j) for i in range(3) for j in range(3)]
    parts = [
        np.einsum("oi,ihw->ohw", weight[:, :, i, j], padded[:, i : i + height, j : j + width])
        for i, j in taps
    ]
    convolved: Array = np.sum(parts, axis=0)
    return convolved


def mask(cells_hw: Hw, grid_hw: Hw) -> NDArray[np.bool_]:
    """Return which patches `(h w)` each cell `(H' W')` sees; bounds are computed in float32."""
    seen = np.zeros((*cells_hw, *grid_hw), dtype=bool)
    for i in range(cells_hw[0]):
        for j in range(cells_hw[1]):
            top, bottom = bounds(i, cells_hw[0], grid_hw[0])
            left, right = bounds(j, cells_hw[1], grid_hw[1])
            seen[i, j, top:bottom, left:right] = True
    return seen.reshape(cells_hw[0] * cells_hw[1], -1)


def bounds(cell: int, n_cells: int, n_patches: int) -> tuple[int, int]:
    one = np.float32
    centre = (one(cell) + one(0.5)) / one(n_cells)
    low = np.clip(centre - one(0.1), one(0), one(1)) * one(n_patches)
    high = np.clip(centre + one(0.1), one(0), one(1)) * one(n_patches)
    assert low.dtype == high.dtype == np.float32
    return floor(low), ceil(high)


def attend(state: State, queries: Array, keys: Array, seen: NDArray[np.bool_]) -> Array:
    """Return the weights `(cells, patches)` of four heads, averaged."""
    prefix = "cross_decode.cross_attn"
    weight = state[f"{prefix}.attention.in_proj_weight"]
    bias = state[f"{prefix}.attention.in_proj_bias"]
    q = rms_norm(queries.reshape(len(queries), -1).T) * state[f"{prefix}.norm_q.weight"]
    k = rms_norm(keys.reshape(len(keys), -1).T) * state[f"{prefix}.norm_k.weight"]
    (of_q, of_k, _), (to_q, to_k, _) = np.split(weight, 3), np.split(bias, 3)
    q, k = q @ of_q.T + to_q, k @ of_k.T + to_k
    heads, size = [], len(queries) // 4
    for head in range(4):
        own = slice(size * head, size * head + size)
        products = q[:, own] @ k[:, own].T / np.sqrt(size)
        heads.append(softmax(np.where(seen, products, -np.inf)))
    found: Array = np.mean(heads, axis=0)
    return found


def rms_norm(x: Array) -> Array:
    eps = np.finfo(np.float32).eps  # the network's type decides it
    normed: Array = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return normed


def softmax(x: Array) -> Array:
    """Of the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares
