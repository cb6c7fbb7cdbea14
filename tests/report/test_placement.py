"""Labels never cover each other or a point, never leave the frame, and are deterministic."""

import itertools

import numpy as np
import pytest

from spar_bench.report.placement import Floats, Surroundings, overlap, place_labels

FRAME = np.array([0.0, 0.0, 600.0, 400.0])


def around(points: Floats, curves: Floats | None = None) -> Surroundings:
    """Return what is around `points` in a frame of 600 x 400."""
    nothing = np.zeros((0, 2))
    return Surroundings(FRAME, points, 6.0, nothing if curves is None else curves)


def intersect(a: Floats, b: Floats) -> bool:
    """Say whether two boxes share any area, by the definition."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return bool(width > 0 and height > 0)


def assert_clear(boxes: list[Floats | None], surroundings: Surroundings) -> None:
    """Assert that all boxes are there, inside the frame, off the points and off each other."""
    found = [box for box in boxes if box is not None]
    assert len(found) == len(boxes)
    for box in found:
        assert (box[:2] >= FRAME[:2]).all()
        assert (box[2:] <= FRAME[2:]).all()
        assert not any(intersect(box, point) for point in surroundings.taken)
    assert not any(intersect(a, b) for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("seed", range(6))
def test_labels_of_crowded_points_are_clear(seed: int) -> None:
    rng = np.random.default_rng(seed)
    anchors = rng.uniform((200, 150), (420, 260), (16, 2))
    sizes = np.stack([rng.uniform(30, 150, 16), np.full(16, 18.0)], axis=1)
    surroundings = around(anchors)

    assert_clear(place_labels(anchors, sizes, surroundings), surroundings)


def test_labels_of_one_column_of_points_are_stacked_in_order_beside_it() -> None:
    heights = np.array([100.0, 104, 110, 110, 180, 186, 300])
    anchors = np.stack([np.full(7, 50.0), heights], axis=1)
    surroundings = around(anchors)

    boxes = place_labels(anchors, np.full((7, 2), (120.0, 18.0)), surroundings)

    assert_clear(boxes, surroundings)
    bottoms = [box[1] for box in boxes if box is not None]
    assert bottoms == sorted(bottoms)
    assert len({box[0] for box in boxes if box is not None}) == 1


def test_points_that_all_coincide_have_their_labels_apart() -> None:
    anchors = np.full((8, 2), (590.0, 390.0))
    surroundings = around(anchors)

    boxes = place_labels(anchors, np.full((8, 2), (100.0, 18.0)), surroundings)

    assert_clear(boxes, surroundings)


def test_a_label_touches_its_lonely_point() -> None:
    (box,) = place_labels(
        np.array([[300.0, 200.0]]), np.array([[60.0, 18.0]]), around(np.array([[300.0, 200.0]]))
    )

    assert box is not None
    assert 0 < box[0] - 306 < 6
    assert box[1] < 200 < box[3]


def test_a_label_keeps_off_a_curve_where_it_can() -> None:
    anchor = np.array([[300.0, 200.0]])
    curve = np.stack([np.linspace(300, 600, 200), np.full(200, 200.0)], axis=1)

    (box,) = place_labels(anchor, np.array([[60.0, 18.0]]), around(anchor, curve))

    assert box is not None
    assert not overlap(box[None], np.concatenate([curve, curve], axis=1)).any()


def test_a_label_keeps_off_points_that_have_no_label() -> None:
    points = np.array([[300.0, 200.0], [330, 200], [270, 200], [300, 225], [300, 175]])

    surroundings = around(points)
    boxes = place_labels(points[:1], np.array([[60.0, 18.0]]), surroundings)

    assert_clear(boxes, surroundings)


def test_a_frame_that_is_full_leaves_labels_out_rather_than_covering() -> None:
    anchors = np.full((5, 2), (300.0, 200.0))
    surroundings = around(anchors)

    boxes = place_labels(anchors, np.full((5, 2), (580.0, 150.0)), surroundings)

    assert sum(box is not None for box in boxes) == 2


def test_the_same_points_give_the_same_places() -> None:
    anchors = np.random.default_rng(3).uniform(100, 300, (12, 2))
    sizes = np.full((12, 2), (70.0, 18.0))

    first, second = (place_labels(anchors, sizes, around(anchors)) for _ in range(2))

    np.testing.assert_array_equal(np.array(first), np.array(second))


def test_a_label_goes_farther_rather_than_onto_a_line() -> None:
    across = np.arange(0.0, 600, 12)
    lines = np.concatenate(
        [np.stack([across, np.full(50, y)], axis=1) for y in (182.0, 200.0, 218.0)]
    )
    anchors = np.array([[300.0, 200.0]])

    (box,) = place_labels(anchors, np.array([[90.0, 18.0]]), around(anchors, lines))

    assert box is not None
    assert not any(intersect(box, np.concatenate([dot - 0.1, dot + 0.1])) for dot in lines)
