"""The library without the command line: load a backbone by name, read images, score, measure.

Shape legend: N images, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from spar_bench import registry
from spar_bench.accuracy import Counts, class_iou, miou
from spar_bench.backbones.base import Backbone
from spar_bench.components.weights import CONFIG_FILE
from spar_bench.datasets import facts
from spar_bench.errors import NotReady
from spar_bench.inference import SINGLE_PASS, Inference, Resize
from spar_bench.plan.cost import image_flops, windows_of
from spar_bench.protocol import declare
from spar_bench.resolve import class_names, open_dataset
from spar_bench.run.context import build_backbone, open_student, prepare_device
from spar_bench.run.latency import TimedReading, random_classifier, time_together
from spar_bench.run.pixel_counts import PixelCounts, read_images
from spar_bench.run.segment import Segmenter
from spar_bench.run.text import classifier_of, embed
from spar_bench.spec.schema import BackboneSpec, DatasetSpec, EvaluateSpec
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.values import Average
from spar_bench.windows import upsample_factor


@dataclass(frozen=True)
class Evaluation:
    """What a backbone scored: mIoU as a fraction, IoU by class name, and the counts behind them."""

    miou: float
    class_iou: dict[str, float]
    counts: Counts

    def __repr__(self) -> str:
        """Show the score in one line, without the arrays."""
        return (
            f"Evaluation(miou={self.miou:.4f}, {len(self.class_iou)} classes, "
            f"{self.counts.n_images} images)"
        )


def load_backbone(name: str | Path | BackboneSpec, *, device: str = "cpu") -> Backbone:
    """Return a backbone ready to read images.

    Args:
        name: A backbone's name, whose weights are looked for; a folder with
            `open_clip_config.json`; a finished student's folder in the store
            (`.spar_bench/stages/student/...`); or a backbone as in a spec.
        device: Where its weights go: `auto`, `cpu`, `cuda`, `cuda:1`. TF32 is switched off.

    Raises:
        UnknownName: neither a folder nor a backbone has that name.
        NotReady: its weights are missing, a student's pretrained weights have changed, or torch
            cannot use the device.
        Damaged: a student's weights were altered.
    """
    at = prepare_device(device, None)
    if isinstance(name, BackboneSpec):
        return build_backbone(name, at)
    folder = Path(name)
    if (folder / TRAINED_FILE).is_file():
        return open_student(folder, at)[0]
    if not folder.is_dir() or str(name) in registry.names("backbones"):
        return build_backbone(BackboneSpec(name=str(name)), at)
    if not (folder / CONFIG_FILE).is_file():
        raise NotReady(
            f"{folder}: must hold {CONFIG_FILE} or a student's {TRAINED_FILE}, but holds "
            "neither; name another folder, or a plug-in"
        )
    return build_backbone(BackboneSpec(path=str(folder)), at)


def evaluate(
    backbone: Backbone,
    dataset: str | DatasetSpec = "patchwork",
    *,
    short_side_px: int | None = None,
    window_px: int | None = None,
    stride_px: int | None = None,
    average: Average = "logits",
) -> Evaluation:
    """Score a backbone on a labelled data set: in one pass, or with a sliding window.

    Args:
        backbone: What `load_backbone` returned.
        dataset: A plug-in's name, or a data set as in a spec.
        short_side_px: Images are resized to it, but not the truth; default: the data set's own
            rule.
        window_px: Side of the window; default with a stride: the backbone's native side.
        stride_px: Step between windows; None reads each image in one pass.
        average: What is averaged where windows overlap: features or logits.

    Raises:
        ValueError: an argument is out of its range.
        UnknownName: no data set plug-in has that name.
        NotReady: the data set is missing.
        DataError: an image or mask cannot be read, or no pixel has a label.
    """
    spec = _named(dataset) if isinstance(dataset, str) else dataset
    _require_positive("evaluate", short_side_px=short_side_px)
    own, inference = facts(spec), _inference("evaluate", backbone, window_px, stride_px, average)
    resize = Resize(short_side_px or own.short_side_px, None if short_side_px else own.long_side_px)
    _require_a_patch("evaluate: short_side_px", backbone, resize.short_side_px)
    data = open_dataset(spec, "val")
    classes = class_names(spec, data.classes)
    declared = declare(EvaluateSpec(), spec, own, classes=classes, resize=resize)
    protocol = declared.resolved(backbone.sizes.read_out)
    assert protocol.templates is not None, "only a linear probe has no prompts"
    queries = embed(backbone, classes, protocol.templates)
    segmenter = Segmenter(
        backbone,
        classifier_of(queries, classes, protocol),
        device=next(backbone.visual.parameters()).device,
    )
    pixels = PixelCounts([inference], len(data), len(classes))
    for image in read_images(segmenter, data, resize, pixels):
        pixels.add(image)
    counts = pixels.of(0, spec.display_name)
    shown = own.shown(classes, spec.background_threshold)
    ious = dict(zip(shown, class_iou(counts).tolist(), strict=True))
    return Evaluation(miou(counts), ious, counts)


def measure(
    backbone: Backbone,
    image_hw: tuple[int, int],
    *,
    window_px: int | None = None,
    stride_px: int | None = None,
    n_queries: int = 20,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Return what reading one image costs: `gflops`, `n_windows`, latency in ms, `peak_mib`.

    `latency_note` says why the latency does not stand for a quiet machine, if it does not.

    Args:
        backbone: What `load_backbone` returned.
        image_hw: Height and width of the image in pixels.
        window_px: As in `evaluate`.
        stride_px: As in `evaluate`.
        n_queries: Text queries that features are compared with; no threshold applies.
        seconds: Time given to timing, in addition to a warm-up.

    Raises:
        ValueError: an argument is out of its range.
    """
    _require_a_patch("measure: image_hw", backbone, min(image_hw))
    _require_positive("measure", n_queries=n_queries, seconds=seconds)
    inference = _inference("measure", backbone, window_px, stride_px, "logits")
    device = next(backbone.visual.parameters()).device
    classifier = random_classifier(n_queries, backbone.sizes.channels, device)
    reading = TimedReading(backbone, inference, image_hw, classifier=classifier, device=device)
    timings = time_together({"": reading}, seconds)
    return {
        "gflops": image_flops(backbone.sizes, inference, image_hw, n_queries=n_queries) / 1e9,
        "n_windows": windows_of(backbone.sizes, inference, image_hw),
        **timings.by_key[""].model_dump(),
        "latency_note": timings.note(""),
    }


def _require_positive(caller: str, **numbers: float | None) -> None:
    """Refuse a number of 0 or less; None stands for a default."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{caller}: {name}: must be above 0, but got {number!r}; raise it")


def _require_a_patch(place: str, backbone: Backbone, side_px: int) -> None:
    patch_px = backbone.sizes.patch_px
    if side_px < patch_px:
        raise ValueError(
            f"{place}: must be at least the backbone's patch ({patch_px}), but got {side_px}; "
            "raise it"
        )


def _named(dataset: str) -> DatasetSpec:
    """Return the data set with a plug-in's name."""
    try:
        return DatasetSpec(name=dataset)
    except ValidationError:  # the plug-in that reads a folder, without a folder
        raise ValueError(
            f"evaluate: dataset: must name a folder, but got only {dataset!r}; give "
            'DatasetSpec(path="...")'
        ) from None


def _inference(
    caller: str,
    backbone: Backbone,
    window_px: int | None,
    stride_px: int | None,
    average: Average,
) -> Inference:
    _require_positive(caller, window_px=window_px, stride_px=stride_px)
    if average not in get_args(Average):
        ways = " or ".join(get_args(Average))
        raise ValueError(f"{caller}: average: must be {ways}, but got {average!r}; use one of them")
    if stride_px is None:
        if window_px is not None:
            raise ValueError(
                f"{caller}: window_px: must come with a stride, but got only {window_px}; give "
                "stride_px, or leave window_px out to read in one pass"
            )
        return SINGLE_PASS
    by_features = average == "features"
    return Inference(
        "sliding_window",
        window_px=window_px or backbone.sizes.image_px,
        stride_px=stride_px,
        average=average,
        upsample=upsample_factor(backbone.sizes.patch_px, stride_px) if by_features else None,
    )
