"""Draw images beside their label maps, and feature maps in the colours of one PCA."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from numpy.typing import NDArray

from spar_bench.report import text
from spar_bench.report.colors import IGNORED, class_colors, ink_on
from spar_bench.report.regions import number_places
from spar_bench.report.style import LINE_IN, PAGE_IN, new_figure
from spar_bench.results import Preview

MOST_IMAGES = 4
MOST_COLUMNS = 7  # of a legend
LETTERS_IN = 18  # letters per inch of a title
GAP_IN = 0.05
NUMBER_PT, NUMBER_IN = 4.0, 0.04
"""Size of the numbers in regions, and the radius of the disc that a number needs."""


@dataclass(frozen=True)
class Picture:
    """Pixels `(H, W, 3)`, and for a label map its labels `(H, W)`, drawn as numbers."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None = None


def panel_figure(previews: Mapping[str, Preview], classes: list[str]) -> Figure:
    """Draw the first images, one row each: image, truth, one prediction per key of `previews`.

    Classes are distinguished by colour, and by the numbers in the legend and in regions.
    """
    if not previews:
        raise ValueError("a panel needs at least one preview, but got none")
    first, *others = previews.values()
    if any(other.names != first.names for other in others):
        raise ValueError("a panel needs previews of the same images, but their names differ")
    n_images = min(MOST_IMAGES, len(first.names))
    palette = class_colors(len(classes))
    rows = [
        [
            Picture(first.images[i]),
            *(Picture(palette[p], p) for p in (first.truths[i], *_predictions(previews, i))),
        ]
        for i in range(n_images)
    ]
    seen = [first.truths, *(preview.predictions for preview in previews.values())]
    present = np.unique(np.concatenate([m.ravel() for maps in seen for m in maps[:n_images]]))
    return _grid(["image", "truth", *previews], rows, _legend(present, classes, palette))


def pca_figure(
    image: NDArray[np.uint8],
    features: Mapping[str, NDArray[np.floating[Any]]],
    *,
    fitted_to: str | None = None,
) -> Figure:
    """Draw an image, then one column per feature map in the colours of one PCA.

    The PCA is that of the features of `fitted_to`, a key of `features`; None: of all together.
    """
    if len({values.shape[0] for values in features.values()}) != 1:
        raise ValueError("a joint PCA needs at least one map, and maps with equally many channels")
    fit = None if fitted_to is None else [features[fitted_to]]
    row = [Picture(pixels) for pixels in (image, *pca_colors(list(features.values()), fit))]
    return _grid(["image", *features], [row], [])


def pca_colors(
    maps: Sequence[NDArray[np.floating[Any]]],
    fitted_to: Sequence[NDArray[np.floating[Any]]] | None = None,
) -> list[NDArray[np.uint8]]:
    """Colour maps `(C, h, w)` as `(h, w, 3)` by three principal components of some, else of all.

    The same feature has the same colour in every map; beyond the outermost hundredth of those that
    the components are fitted to, colours are clipped.
    """
    every = np.concatenate([_tokens(values) for values in (fitted_to or maps)])
    mean = every.mean(0)
    basis = np.linalg.svd(every - mean, full_matrices=False)[2][:3].T
    # The sign of a principal axis is arbitrary: make its largest entry positive.
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])
    low, high = np.quantile((every - mean) @ basis, [0.01, 0.99], axis=0)
    spread = np.where(high > low, high - low, 1.0)
    colored = []
    for values in maps:
        share = np.clip(((_tokens(values) - mean) @ basis - low) / spread, 0, 1)
        rgb = np.zeros((len(share), 3), np.uint8)
        rgb[:, : share.shape[1]] = np.round(255 * share)
        colored.append(rgb.reshape(*values.shape[1:], 3))
    return colored


def _tokens(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return features `(C, h, w)` as `(h * w, C)`."""
    return values.reshape(values.shape[0], -1).T.astype(np.float64)


def _predictions(previews: Mapping[str, Preview], index: int) -> list[NDArray[np.uint8]]:
    return [preview.predictions[index] for preview in previews.values()]


def _legend(
    present: NDArray[np.uint8], classes: list[str], palette: NDArray[np.uint8]
) -> list[Patch]:
    names = {i: f"{i} {name}" for i, name in enumerate(classes)} | {IGNORED: "ignored"}
    return [
        Patch(
            facecolor=palette[i] / 255,
            edgecolor="#999999",
            linewidth=0.4,
            label=text.plot(name, most=26),
        )
        for i, name in names.items()
        if i in present
    ]


def _grid(titles: list[str], rows: list[list[Picture]], legend: list[Patch]) -> Figure:
    """Lay out pictures: columns of one width, each row as high as its pictures need."""
    width = min((PAGE_IN - GAP_IN) / len(titles) - GAP_IN, 1.7)
    wrapped = [textwrap.wrap(text.one_line(title), int(LETTERS_IN * width)) for title in titles]
    heights = [width * max(p.pixels.shape[0] / p.pixels.shape[1] for p in row) for row in rows]
    title_in = LINE_IN * max(map(len, wrapped)) + 0.05
    across = max((width + GAP_IN) * len(titles) + GAP_IN, 3.3)
    columns, legend_in = _legend_size(legend, across)
    total = title_in + sum(heights) + GAP_IN * (len(rows) + 1) + legend_in
    figure = new_figure(across, total)
    figure.set_layout_engine("none")
    left = (across - (width + GAP_IN) * len(titles) + GAP_IN) / 2
    top = total - title_in
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            at = (left + column * (width + GAP_IN), top - height)
            axes = figure.add_axes((at[0] / across, at[1] / total, width / across, height / total))
            # Photographs are smoothed when shrunk; labels and features never are.
            _show(axes, picture.pixels, "antialiased" if titles[column] == "image" else "nearest")
            _number(axes, picture, width)
            if row is rows[0]:
                axes.set_title("\n".join(map(text.plot, wrapped[column])), pad=3, va="bottom")
        top -= height + GAP_IN
    if legend:
        _write_legend(figure, legend, columns)
    return figure


def _legend_size(legend: list[Patch], width_in: float) -> tuple[int, float]:
    """Return how many columns fit in `width_in`, and the legend's height, both in inches."""
    columns, height_in = 0, 0.0
    for columns in range(min(len(legend), MOST_COLUMNS), 0, -1):
        sheet = new_figure(width_in, 1.0)
        drawn = _write_legend(sheet, legend, columns).get_window_extent()
        height_in = drawn.height / sheet.dpi
        if drawn.width <= width_in * sheet.dpi:
            break
    return columns, height_in


def _write_legend(figure: Figure, legend: list[Patch], columns: int) -> Legend:
    return figure.legend(handles=legend, loc="lower center", ncols=columns, handlelength=1.0)


def _show(axes: Axes, picture: NDArray[np.uint8], interpolation: Any) -> None:
    axes.imshow(picture, interpolation=interpolation, aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#999999")


def _number(axes: Axes, picture: Picture, width_in: float) -> None:
    """Write the number of its class into each region that has room for it."""
    if picture.labels is None:
        return
    for y, x, label in number_places(
        picture.labels, NUMBER_IN * picture.labels.shape[1] / width_in
    ):
        ink = ink_on(picture.pixels[y, x])
        axes.text(x, y, str(label), color=ink, size=NUMBER_PT, ha="center", va="center_baseline")
