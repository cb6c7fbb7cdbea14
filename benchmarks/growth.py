"""How cost grows, measured beside what is counted: `python -m benchmarks.growth NAME`.

Writes the times to `benchmarks/results/NAME.growth.json`, and draws `docs/performance.png`.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure

import spar_bench as sb
from benchmarks.figures import in_turns
from benchmarks.training import LOSS_RECIPES, Students
from spar_bench.backbones.base import Backbone
from spar_bench.components.flops import encoder_flops
from spar_bench.files import replace_text
from spar_bench.inference import Inference
from spar_bench.plan.cost import windows_flops
from spar_bench.report.style import DIVIDES, DOES_NOT_DIVIDE, facet_grid, legend_above, save_as
from spar_bench.run.context import device_name
from spar_bench.run.inference import WindowBatch, stitch
from spar_bench.stitching import Axis, feature_axis
from spar_bench.windows import upsample_factor

_RESULTS = Path(__file__).parent / "results"
_PICTURE = Path(__file__).parents[1] / "docs" / "performance.png"
_IMAGE_HW = (256, 320)
_WINDOW_PX, _PATCH_PX = 64, 8
_WIDE = 12
"""Values that differ by more than this factor are drawn on a log axis."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Times along one axis, and what is counted there, both as ratios to those of the last."""

    title: str
    axis: str
    x: list[float]
    measured: list[float]
    counted: list[float]


def growth() -> Iterator[Curve]:
    """Measure on the embedded backbone: images of 256x320 px unless they vary."""
    backbone = sb.load_backbone("patchwork")
    strides = [64, 48, 32, 24, 16, 12, 8]
    yield _curve(
        "A finer stride",
        "stride (px), windows of 64 px",
        strides,
        [partial(_windows, backbone, _IMAGE_HW, _WINDOW_PX, each) for each in strides],
        [_flops(backbone, _IMAGE_HW, _WINDOW_PX, each) for each in strides],
    )
    windows = [32, 48, 64, 96, 128, 192]
    yield _curve(
        "A larger window",
        "window (px), stride of a quarter",
        windows,
        [partial(_windows, backbone, _IMAGE_HW, each, each // 4) for each in windows],
        [_flops(backbone, _IMAGE_HW, each, each // 4) for each in windows],
    )
    sides = [64, 128, 192, 256, 384, 512]
    yield _curve(
        "A larger image, windows",
        "side (px), windows of 64 px every 16 px",
        sides,
        [partial(_windows, backbone, (each, each), _WINDOW_PX, 16) for each in sides],
        [_flops(backbone, (each, each), _WINDOW_PX, 16) for each in sides],
    )
    yield _curve(
        "A larger image, one pass",
        "side (px)",
        sides,
        [partial(sb.single_pass, backbone, torch.rand(1, 3, each, each)) for each in sides],
        [encoder_flops(backbone.sizes, (each, each)) for each in sides],
    )
    halved = [8, 16, 32, 64]
    yield _curve(
        "More strides of one image",
        "number of strides read together: 8, 16, 32, 64 px",
        range(1, len(halved) + 1),
        [partial(_strides, backbone, halved[: n + 1]) for n in range(len(halved))],
        [_flops(backbone, _IMAGE_HW, _WINDOW_PX, halved[0])] * len(halved),
    )
    yield from _students()


def _students() -> Iterator[Curve]:
    with tempfile.TemporaryDirectory() as folder:
        several = Students(Path(folder, "losses"), LOSS_RECIPES)
        numbers = range(1, len(LOSS_RECIPES) + 1)
        yield _curve(
            "More losses of one stream of images",
            "students of the last two blocks, side by side",
            numbers,
            [partial(several.train, several.stages[:n]) for n in numbers],
            [several.gflops(several.stages[:n]) for n in numbers],
        )
        counts = [2, 4, 8, 16]
        of_images = {
            n: Students(Path(folder, str(n)), LOSS_RECIPES[:1], n_images=n) for n in counts
        }
        yield _curve(
            "More images",
            "images, four epochs, last two blocks",
            counts,
            [partial(of_images[n].train, of_images[n].stages) for n in counts],
            [of_images[n].gflops(of_images[n].stages) for n in counts],
        )


def _curve(
    title: str,
    axis: str,
    x: Sequence[float],
    ways: Sequence[Callable[[], object]],
    counted: Sequence[float],
) -> Curve:
    names = [str(place) for place in range(len(ways))]
    seconds = in_turns(dict(zip(names, ways, strict=True)), rounds=3)
    measured = [seconds[name] / seconds[names[-1]] for name in names]
    return Curve(
        title=title,
        axis=axis,
        x=[float(value) for value in x],
        measured=[round(value, 4) for value in measured],
        counted=[round(value / counted[-1], 4) for value in counted],
    )


def _windows(backbone: Backbone, image_hw: tuple[int, int], window_px: int, stride_px: int) -> None:
    image = torch.rand(1, 3, *image_hw)
    sb.sliding_window(backbone, image, window_px=window_px, stride_px=stride_px)


def _strides(backbone: Backbone, strides_px: Sequence[int]) -> None:
    image, (height, width) = torch.rand(3, *_IMAGE_HW), _IMAGE_HW
    axes = [(_axis(height, stride_px), _axis(width, stride_px)) for stride_px in strides_px]
    with torch.inference_mode():
        stitch(image, backbone.features, axes, WindowBatch(image.device, 64))


def _axis(length_px: int, stride_px: int) -> Axis:
    factor = upsample_factor(_PATCH_PX, stride_px)
    return feature_axis(length_px, _WINDOW_PX, stride_px, patch_px=_PATCH_PX, upsample=factor)


def _flops(backbone: Backbone, image_hw: tuple[int, int], window_px: int, stride_px: int) -> float:
    inference = Inference("sliding_window", window_px, stride_px, "features")
    return windows_flops(backbone.sizes, inference, image_hw)


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw each curve: what is counted as a line, what was measured as points."""
    save_as(partial(_figure, curves), path)


def _figure(curves: Sequence[Curve]) -> Figure:
    figure, facets = facet_grid(len(curves), 1.6, above_in=0.2)
    for axes, curve in zip(facets, curves, strict=True):
        axes.plot(curve.x, curve.counted, color=DIVIDES.color)
        axes.plot(
            curve.x,
            curve.measured,
            color=DOES_NOT_DIVIDE.color,
            marker=DOES_NOT_DIVIDE.marker,
            markersize=DOES_NOT_DIVIDE.size,
            linestyle="none",
            clip_on=False,
        )
        every = [*curve.counted, *curve.measured]
        axes.set_xscale("log")
        if max(every) > _WIDE * min(every):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.1 * max(every))
        axes.set(title=curve.title, xlabel=curve.axis, ylabel="times the last")
        axes.set_xticks(curve.x, [f"{value:g}" for value in curve.x])
        axes.xaxis.minorticks_off()
    counted, measured = facets[0].lines
    legend_above(figure, {"counted FLOPs": counted, "measured time": measured}, columns=2)
    return figure


@click.command()
@click.argument("name")
def main(name: str) -> None:
    """Measure all curves: about five minutes on two cores."""
    curves = list[Curve]()
    for curve in growth():
        curves.append(curve)
        click.echo(f"{curve.title}: {curve.measured}, counted {curve.counted}")
    document = {"device": device_name(torch.device("cpu")), "curves": list(map(asdict, curves))}
    replace_text(_RESULTS / f"{name}.growth.json", json.dumps(document, indent=1) + "\n")
    draw(curves, _PICTURE)


if __name__ == "__main__":
    main()
