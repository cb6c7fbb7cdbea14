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
    for label, around in enumerate(ndimage.find_objects(labels.astype(np.int32) + 1)):
        if around is None or label == IGNORED:
            continue
        pieces, _ = ndimage.label(labels[around] == label)
        for piece, within in enumerate(ndimage.find_objects(pieces), start=1):
            if min(side.stop - side.start for side in within) + 1 < 2 * radius_px:
                continue  # too narrow
            depth = ndimage.distance_transform_edt(np.pad(pieces[within] == piece, 1))
            y, x = divmod(int(depth.argmax()), depth.shape[1])
            if depth[y, x] >= radius_px:
                top, left = (a.start + w.start for a, w in zip(around, within, strict=True))
                places.append(Place(top + y - 1, left + x - 1, label))
    return places
