"""Which sizes of a data set's images stand for all of them when a method is timed."""

import math

from spar_bench.inference import ImageSizes

MOST_TIMED = 5


def spanning(sizes: ImageSizes) -> list[tuple[int, int]]:
    """Return up to MOST_TIMED sizes that span all: evenly spaced ranks of the sizes by area.

    The smallest and the largest are among them.
    """
    by_area = sorted(sizes, key=lambda image_hw: (math.prod(image_hw), image_hw))
    n, last = min(MOST_TIMED, len(by_area)), len(by_area) - 1
    return [by_area[place * last // max(n - 1, 1)] for place in range(n)]
