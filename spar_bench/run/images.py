"""Distillation images: drawn once from the seed, rendered the same way each time.

Shape legend: H, W image height and width in pixels, values 0 to 1 until normalised.
"""

import os
import signal
import threading
from collections.abc import Generator, Iterable, Sequence
from multiprocessing import parent_process

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from spar_bench.datasets.base import Dataset, Image
from spar_bench.drawing import Drawing, Drawn, frame
from spar_bench.errors import SparBenchError

CACHE_BYTES = 1 << 30
"""Bytes of 8-bit rendered images that a process caches; further ones are rendered again."""

_HALF = 1e-9


def to_tensor(image: Image) -> Tensor:
    """Return an 8-bit image `(H, W, 3)` as float `(3, H, W)`, 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def resize(image: Tensor, image_hw: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resample `(3, H, W)` of 0 to 1 without antialiasing: bilinear as in the paper, or bicubic.

    Values are of 8 bits before and after, as those of the paper's code, which resizes images of
    bytes. Halves are rounded up. The same bytes come out whatever the number of threads: torch's
    interpolation then differs in its last digit, so it is done in float64, where no value but a
    half lies within `_HALF` of one.
    """
    if tuple(image.shape[-2:]) == image_hw:
        return image
    bytes_ = (image.double() * 255).round()
    resized = F.interpolate(bytes_[None], size=image_hw, mode=mode)[0].clamp(0, 255)
    return (resized + (0.5 + _HALF)).floor().float() / 255


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return `(..., 3, H, W)` minus the mean, divided by the deviation, of each channel."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]


def render(image: Tensor, drawn: Drawn, drawing: Drawing) -> Tensor:
    """Resize, crop and mirror `(3, H, W)` as it was drawn."""
    found = frame((image.shape[-2], image.shape[-1]), drawn, drawing)
    (top, left), (height, width) = found.start, found.image_hw
    image = resize(image, found.resized_hw)[:, top : top + height, left : left + width]
    return image.flip(-1) if drawn.flip else image


class Pictures:
    """The images of an `images` stage by position, rendered on demand, cached within a limit."""

    def __init__(
        self,
        source: Dataset,
        drawn: list[Drawn],
        drawing: Drawing,
        *,
        cache_bytes: int | None = None,
    ) -> None:
        self._source, self._drawn, self._drawing = source, drawn, drawing
        self._cache_bytes = CACHE_BYTES if cache_bytes is None else cache_bytes
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, position: int) -> Tensor:
        """Return the image at a position of the list, `(3, H, W)`, 0 to 1 in steps of 1/255."""
        return self.rendered(position).float() / 255

    def rendered(self, position: int) -> Tensor:
        """Return the image at a position of the list as 8-bit, `(3, H, W)`."""
        if position in self._kept:
            return self._kept[position]
        drawn = self._drawn[position]
        picture = render(to_tensor(self._source.image(drawn.index)), drawn, self._drawing)
        bytes_ = (picture * 255).round().to(torch.uint8)
        if self._kept_bytes + bytes_.numel() <= self._cache_bytes:
            self._kept[position] = bytes_
            self._kept_bytes += bytes_.numel()
        return bytes_

    def stream(self, positions: Iterable[int], n_workers: int = 0) -> Generator[Tensor]:
        """Yield the images at positions in order, equal to `self[position]`.

        Worker processes decode and render in advance; they share the cache limit. The images do not
        depend on the number of workers. Close the returned iterator to end them.

        Raises:
            DataError: an image cannot be read.
        """
        if n_workers == 0:
            yield from (self[position] for position in positions)
            return
        loader = DataLoader(
            _Rendering(self._source, self._drawn, self._drawing, self._cache_bytes // n_workers),
            batch_size=None,
            sampler=positions,
            num_workers=n_workers,
            # Not forked: a copy of this process would share its Ctrl-C handlers.
            multiprocessing_context="spawn",
            worker_init_fn=_follow_the_parent,
        )
        for found in loader:
            if isinstance(found, SparBenchError):
                raise found
            yield found.float() / 255


class _Rendering(torch.utils.data.Dataset[Tensor | SparBenchError]):
    """The images as rendered by a worker process."""

    def __init__(
        self, source: Dataset, drawn: list[Drawn], drawing: Drawing, cache_bytes: int
    ) -> None:
        self._pictures = Pictures(source, drawn, drawing, cache_bytes=cache_bytes)

    def __getitem__(self, position: int) -> Tensor | SparBenchError:
        """Return an image as 8-bit, or its file's error, since a raised one would be wrapped."""
        try:
            return self._pictures.rendered(position)
        except SparBenchError as error:
            return error


def _follow_the_parent(_: int) -> None:
    """Leave Ctrl-C to the parent, which ends its workers; end at once if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # torch's own watch checks only between images, and then waits for a queue that nobody reads.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker is started by another process"
    parent.join()
    os._exit(1)
