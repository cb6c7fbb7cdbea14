"""Read an image in one pass, or through a sliding window, encoding each window once.

Shape legend: B images, H x W pixels, h x w patch grid, C channels, D values per patch (features, or
cosines with each query), K windows side by side, n x m patches of a window.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone, fit_sides
from spar_bench.components.sizes import Sizes
from spar_bench.errors import SparBenchError
from spar_bench.run.context import autocast
from spar_bench.run.products import wide_products
from spar_bench.stitching import Axis, feature_axis
from spar_bench.values import Precision
from spar_bench.windows import upsample_factor

log = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
WINDOW_BATCH = {"cpu": 48, "cuda": 256}
"""The most windows encoded at once, by kind of device: bounds memory for images of any size. On
a CPU, 64 of `patchwork` were slower than 48."""
HIDDEN_BYTES = 12 << 20
"""What an MLP's hidden values of all windows at once may take on a CPU, so that they stay in its
caches: five windows of 224 px of a ViT-B/16, which are a sixth faster than 25."""


class WindowBatch:
    """How many windows of an image are encoded at once: halved whenever memory runs out.

    Whoever reads images has one, so that no other reading is affected. `used` is the number that
    windows were last encoded with, None before the first.
    """

    def __init__(self, device: torch.device, size: int | None = None) -> None:
        """Begin with `size`, by default the usual one of the device."""
        self.size = size or WINDOW_BATCH.get(device.type, WINDOW_BATCH["cpu"])
        self.used: int | None = None

    def encode(
        self,
        image: Tensor,
        encode: Encode,
        corners: list[tuple[int, int]],
        extent_hw: tuple[int, int],
    ) -> Tensor:
        """Encode the windows of an image `(3, H, W)` at some corners to `(K, D, n, m)` in float32.

        Raises:
            SparBenchError: the device has no memory for a single window.
        """
        maps, first, (height, width) = list[Tensor](), 0, extent_hw
        while first < len(corners):
            chunk = corners[first : first + self.size]
            try:
                windows = torch.stack(
                    [image[:, top : top + height, left : left + width] for top, left in chunk]
                )
                maps.append(encode(windows).float())
            except torch.OutOfMemoryError as error:
                self._halve(len(chunk), extent_hw, image.device, error)
            else:
                first += len(chunk)
                self.used = self.size
                continue
            del windows
            if image.is_cuda:  # only here: while the error is handled, its frames hold tensors
                torch.cuda.empty_cache()
        return torch.cat(maps) if len(maps) > 1 else maps[0]

    def _halve(
        self,
        n_windows: int,
        extent_hw: tuple[int, int],
        device: torch.device,
        error: torch.OutOfMemoryError,
    ) -> None:
        height, width = extent_hw
        if n_windows == 1:
            raise SparBenchError(
                f"{device}: must have memory for one window of {height}x{width} px, but "
                f"{str(error).splitlines()[0]}; use a smaller teacher.window_px, or --device cpu"
            ) from None
        self.size = n_windows // 2
        log.warning(
            "%d windows of %dx%d px do not fit into the memory of %s; %d at once from now on",
            *(n_windows, height, width, device, self.size),
        )


def usual_batch(device: torch.device, sizes: Sizes) -> int:
    """Return how many windows of a backbone's native size to encode at once.

    On a CPU, as many as its caches hold, but at least one.
    """
    most = WINDOW_BATCH.get(device.type, WINDOW_BATCH["cpu"])
    if device.type != "cpu":
        return most
    tokens = sizes.native_side**2 + sizes.prefix_tokens
    hidden = 4 * tokens * int(sizes.width * sizes.mlp_ratio)
    return max(1, min(most, HIDDEN_BYTES // hidden))


def single_pass(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the features `(B, C, h, w)` of normalised images `(B, 3, H, W)`, read in one pass.

    Raises:
        ValueError: the images have another shape, or are smaller than a patch.
    """
    _require_images(backbone, images)
    with torch.inference_mode(), wide_products(images.device):
        return backbone.features(images)


def sliding_window(
    backbone: Backbone,
    images: Tensor,
    *,
    window_px: int,
    stride_px: int,
    upsample: int | None = None,
    batch: WindowBatch | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Return the teacher's features `(B, C, h, w)` on the patch grid: the distillation target.

    Every window's features are upsampled by `upsample` (default: the paper's rule), averaged where
    windows overlap, and resampled to the patch grid.

    Args:
        backbone: Any backbone.
        images: Normalised, `(B, 3, H, W)`; sides become multiples of the patch, in the backbone's
            way.
        window_px: Side of the window, a multiple of the patch; clipped to a smaller image.
        stride_px: Step between windows; the last one is flush with the far border.
        upsample: A divisor of the patch with `stride_px` a multiple of patch / upsample.
        batch: How many windows are encoded at once; default: the device's usual number.
        precision: Of the backbone's forward pass; windows are averaged in float32.

    Raises:
        ValueError: window, stride or upsample do not fit the patch, or the images' shape does not.
    """
    _require_images(backbone, images)
    patch_px = backbone.sizes.patch_px
    r = upsample_factor(patch_px, stride_px) if upsample is None else upsample
    whole = fit_sides(images, backbone.sizes)
    rows, columns = (
        feature_axis(length, window_px, stride_px, patch_px=patch_px, upsample=r)
        for length in whole.shape[-2:]
    )
    encode = partial(_encode, backbone, precision)
    at = batch or WindowBatch(images.device, usual_batch(images.device, backbone.sizes))
    with torch.inference_mode(), wide_products(images.device):
        return torch.stack([stitch(image, encode, [(rows, columns)], at)[0] for image in whole])


def _encode(backbone: Backbone, precision: Precision, windows: Tensor) -> Tensor:
    with autocast(windows.device, precision):
        return backbone.features(windows)


def _require_images(backbone: Backbone, images: Tensor) -> None:
    """Refuse anything but a batch of images of at least a patch."""
    patch_px = backbone.sizes.patch_px
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < patch_px:
        raise ValueError(
            f"images: must be (B, 3, H, W) with sides of a patch ({patch_px} px) or more, but got "
            f"{tuple(images.shape)}; add the batch, or resize them"
        )


def stitch(
    image: Tensor, encode: Encode, axes: Sequence[tuple[Axis, Axis]], batch: WindowBatch
) -> list[Tensor]:
    """Stitch the outputs of `encode` for windows, for several strides at once.

    A window that several strides share is encoded once. Windows are processed a few rows at a time,
    as many as are encoded at once: memory grows with the image's width, not its area.

    Args:
        image: Normalised, `(3, H, W)`.
        encode: Maps windows `(K, 3, eh, ew)` to `(K, D, n, m)`.
        axes: Row and column axis of each stride; all have windows of one size.
        batch: How many windows are encoded at once.

    Returns:
        One `(D, h, w)` for each stride; its h and w are those of its axes.

    Raises:
        SparBenchError: the device has no memory for a single window.
    """
    totals: list[Tensor | None] = [None] * len(axes)
    matrices = [
        (_matrix(rows, image.device), _matrix(columns, image.device)) for rows, columns in axes
    ]
    extent_hw = axes[0][0].extent_px, axes[0][1].extent_px
    waiting = deque(_rows(axes))
    while waiting:
        together = _taken(waiting, batch.size)
        corners = [(row.top, left) for row in together for left in row.lefts]
        maps = batch.encode(image, encode, corners, extent_hw)
        of_rows = maps.split_with_sizes([len(row.lefts) for row in together])
        for row, of_row in zip(together, of_rows, strict=True):
            for i in row.present:
                rows, columns = axes[i]
                chosen = of_row[[row.lefts.index(left) for left in columns.origins]]
                part = _place(chosen, *matrices[i], rows.origins.index(row.top))
                total = totals[i]
                totals[i] = part if total is None else total.add_(part)
    return [total for total in totals if total is not None]


class _Row(NamedTuple):
    """A row of windows: its top, the strides that have it, and the lefts of their windows."""

    top: int
    present: list[int]
    lefts: list[int]


def _rows(axes: Sequence[tuple[Axis, Axis]]) -> Iterator[_Row]:
    """Yield all rows of windows, from the top."""
    for top in sorted({top for rows, _ in axes for top in rows.origins}):
        present = [i for i, (rows, _) in enumerate(axes) if top in rows.origins]
        yield _Row(top, present, sorted({left for i in present for left in axes[i][1].origins}))


def _taken(waiting: deque[_Row], n_windows: int) -> list[_Row]:
    """Take the first rows, with at most `n_windows`, or one alone that has more."""
    together = [waiting.popleft()]
    left = n_windows - len(together[0].lefts)
    while waiting and len(waiting[0].lefts) <= left:
        together.append(waiting.popleft())
        left -= len(together[-1].lefts)
    return together


def _place(maps: Tensor, down: Tensor, across: Tensor, row: int) -> Tensor:
    """Spread one row of windows `(K, D, n, m)` over the output `(D, h, w)`."""
    n, m = maps.shape[-2:]
    spread = torch.einsum("kdnm,wkm->dnw", maps, across.reshape(len(across), -1, m))
    return torch.einsum("hn,dnw->dhw", down[:, row * n : (row + 1) * n], spread)


def _matrix(axis: Axis, device: torch.device) -> Tensor:
    return torch.from_numpy(axis.stitch).float().to(device)
