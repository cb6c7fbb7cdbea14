"""Find the regions of a label map with room for a number, and where to put it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spar_bench.report.colors import IGNORED


class Place(NamedTuple):
    """The pixel of a label map on which a number is centred, and the label there."""

    y: int
    x: int
    label: int


def number_places(labels: NDArray[np.uint8], radius_px: float) -> list[Place]:
    """Return a place in each region of `labels` `(H, W)` that holds a disc of `radius_px`.

    A region has one label and is connected. Its place is the pixel deepest inside it; the border of
    the map bounds it, and ignored pixels have none.
    """
    places = []
    for label in (int(value) for value in np.unique(labels) if value != IGNORED):
        inside = np.pad(labels == label, 1)
        depth = ndimage.distance_transform_edt(inside)
        pieces, _ = ndimage.label(inside)
        for piece in np.unique(pieces[depth >= radius_px]):
            y, x = divmod(int(np.argmax(np.where(pieces == piece, depth, 0))), depth.shape[1])
            places.append(Place(y - 1, x - 1, label))
    return places
