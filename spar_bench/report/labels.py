"""Write labels beside points: none covers another or a point, far ones have a leader line."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from spar_bench.report import text
from spar_bench.report.placement import Floats, Surroundings, place_labels
from spar_bench.report.style import GREY

LABEL_GID = "aggregate-label"
MARGIN_PT = 3.0  # between a label and the edge of the axes


@dataclass(frozen=True)
class Label:
    """Words about a point of the data, and the colour of what is drawn there."""

    words: str
    at: tuple[float, float]
    color: str


def write_labels(
    axes: Axes, labels: Sequence[Label], points: Floats, *, radius_pt: float = 3.2
) -> None:
    """Write each label beside its point, once the layout is final; one without room is left out.

    Args:
        axes: Where everything else is drawn already.
        labels: What to write, and where.
        points: All marks `(N, 2)`, in the data's coordinates, of which no label covers any.
        radius_pt: Half the width of a mark.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    point_px = figure.dpi / 72
    marks, anchors = (
        axes.transData.transform(np.reshape(some, (-1, 2)))
        for some in (points, [label.at for label in labels])
    )
    notes = _annotations(axes, labels)
    extents = [note.get_window_extent() for note in notes]
    boxes = place_labels(
        anchors,
        np.array([[e.width + 2 * point_px, e.height + point_px] for e in extents]),
        Surroundings(
            frame=np.array(axes.bbox.padded(-MARGIN_PT * point_px).extents, dtype=float),
            points=marks,
            radius=radius_pt * point_px,
            curves=_dots_on_curves(axes, step_px=1.5 * point_px),
        ),
    )
    for note, anchor, box in zip(notes, anchors, boxes, strict=True):
        if box is None:
            note.remove()
            continue
        note.set_position(tuple((box.reshape(2, 2).mean(0) - anchor) / point_px))
        _lead(axes, anchor, box, point_px)


def _annotations(axes: Axes, labels: Sequence[Label]) -> list[Annotation]:
    halo = [withStroke(linewidth=1.6, foreground="white")]  # legible on a line, too
    return [
        axes.annotate(
            text.plot(label.words), label.at, xytext=(0, 0), textcoords="offset points",
            ha="center", va="center", color=_ink(label.color), gid=LABEL_GID, zorder=6,
            annotation_clip=False, path_effects=halo,
        )
        for label in labels
    ]  # fmt: skip


def _lead(axes: Axes, anchor: Floats, box: Floats, point_px: float) -> None:
    end = np.clip(anchor, box[:2], box[2:])
    far = float(np.linalg.norm(end - anchor))
    if far < 7 * point_px:
        return
    start = anchor + (end - anchor) * (3.4 * point_px / far)
    (x0, y0), (x1, y1) = axes.transData.inverted().transform([start, end])
    axes.plot([x0, x1], [y0, y1], color=GREY, linewidth=0.45, zorder=3, scalex=False, scaley=False)


def _ink(color: str) -> str:
    """Return a darker shade of a colour, so that small letters have contrast."""
    parts = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{int(0.62 * part):02x}" for part in parts)


def _dots_on_curves(axes: Axes, *, step_px: float) -> Floats:
    """Return points along every line and error bar drawn in `axes`, in pixels, `(P, 2)`."""
    paths = [line.get_transform().transform(line.get_xydata()) for line in axes.get_lines()]
    for bars in axes.collections:
        paths += [axes.transData.transform(path.vertices) for path in bars.get_paths()]
    dots = [np.zeros((0, 2))]
    for path in paths:
        for start, end in pairwise(path):
            count = max(int(np.linalg.norm(end - start) / step_px), 1)
            dots.append(start + np.linspace(0, 1, count + 1)[:, None] * (end - start))
    return np.concatenate(dots)
