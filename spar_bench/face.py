"""The library without the command line: a backbone by name, read, scored and measured.

Shape legend: N images, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spar_bench.accuracy import Counts, class_iou, miou
from spar_bench.backbones import CONFIG_FILE, identity
from spar_bench.backbones.base import Backbone
from spar_bench.errors import NotReady
from spar_bench.plan.cost import SINGLE_PASS, Inference, image_flops, windows_of
from spar_bench.plan.inputs import class_names, open_dataset
from spar_bench.run.context import TRAINED_FILE, build_backbone
from spar_bench.run.evaluate import count_pixels
from spar_bench.run.latency import Arm
from spar_bench.run.segment import Segmenter
from spar_bench.run.text import classifier
from spar_bench.spec.schema import Average, BackboneSpec, DatasetSpec, EvaluateSpec
from spar_bench.stage import Finished, read_manifest
from spar_bench.windows import upsample_factor


@dataclass(frozen=True)
class Evaluation:
    """What a backbone scored: mIoU as a fraction, IoU by class name, and the counts behind them."""

    miou: float
    class_iou: dict[str, float]
    counts: Counts


def load_backbone(name: str | Path, *, device: str = "cpu") -> Backbone:
    """Return a backbone ready to read images.

    Args:
        name: A plug-in's name, a folder with `open_clip_config.json`, or a finished student's
            folder in the store (`.spar_bench/stages/student/...`).
        device: Where its weights go.

    Raises:
        UnknownName: neither a folder nor a plug-in has that name.
        NotReady: its weights are missing, or a student's are not those it was trained from.
        Damaged: a student's weights were altered.
    """
    folder = Path(name)
    student = None
    if (folder / TRAINED_FILE).is_file():
        student = Finished(folder, read_manifest(folder))
        spec = BackboneSpec(**student.summary["backbone"])
        if identity(spec) != student.manifest["settings"]["backbone"]:
            raise NotReady(
                f"{folder}: must meet the backbone it was trained from, but "
                f"{spec.path or spec.name} has changed since; put the old weights back"
            )
    elif folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise NotReady(
                f"{folder}: must hold {CONFIG_FILE} or a student's {TRAINED_FILE}, but holds "
                "neither; name another folder, or a plug-in"
            )
        spec = BackboneSpec(path=str(folder))
    else:
        spec = BackboneSpec(name=str(name))
    return build_backbone(spec, torch.device(device), student)


def evaluate(
    backbone: Backbone,
    dataset: str | DatasetSpec = "patchwork",
    *,
    short_side_px: int = 256,
    window_px: int | None = None,
    stride_px: int | None = None,
    average: Average = "logits",
) -> Evaluation:
    """Score a backbone on a labelled data set: in one pass, or with a window that slides.

    Args:
        backbone: What `load_backbone` returned.
        dataset: A plug-in's name, or a data set as a spec has it.
        short_side_px: Images are resized to it; truth is not.
        window_px: Side of the window; default with a stride: the backbone's native side.
        stride_px: Step of the window; None reads each image in one pass.
        average: What overlapping windows are averaged as.
    """
    spec = DatasetSpec(name=dataset) if isinstance(dataset, str) else dataset
    data, protocol = open_dataset(spec, "val"), EvaluateSpec()
    inference = _inference(backbone, window_px, stride_px, average)
    classes = class_names(spec, data)
    segmenter = Segmenter(
        backbone,
        classifier(
            backbone,
            classes,
            spec.templates or protocol.templates,
            logit_scale=spec.logit_scale or protocol.logit_scale,
            background_threshold=spec.background_threshold,
        ),
        device=next(backbone.visual.parameters()).device,
    )
    n_classes = len(classes)
    confusion = np.zeros((len(data), n_classes, n_classes), np.int64)
    for index in range(len(data)):
        _, image, mask = data.sample(index)
        truth_hw = (mask.shape[0], mask.shape[1])
        [labels] = segmenter.read(image, short_side_px, truth_hw, [inference])
        confusion[index] = count_pixels(mask, labels, n_classes)
    counts = Counts(
        np.diagonal(confusion, axis1=1, axis2=2).copy(), confusion.sum(1), confusion.sum(2)
    )
    names = [names[0] for names in classes]
    return Evaluation(
        miou(counts), dict(zip(names, class_iou(counts).tolist(), strict=True)), counts
    )


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

    Args:
        backbone: What `load_backbone` returned.
        image_hw: Height and width of the image in pixels.
        window_px: As in `evaluate`.
        stride_px: As in `evaluate`.
        n_queries: Text queries that features are held against.
        seconds: Time given to timing, beside a warm-up.
    """
    inference = _inference(backbone, window_px, stride_px, "logits")
    device = next(backbone.visual.parameters()).device
    arm = Arm(backbone, inference, image_hw, n_queries=n_queries, device=device)
    arm.warm_up(seconds / 2)
    for _ in range(arm.n_passes(seconds)):
        arm.sample()
    timing = arm.summary()
    return {
        "gflops": image_flops(backbone.sizes, inference, image_hw, n_queries=n_queries) / 1e9,
        "n_windows": windows_of(backbone.sizes, inference, image_hw),
        **timing,
    }


def _inference(
    backbone: Backbone,
    window_px: int | None,
    stride_px: int | None,
    average: Literal["logits", "features"],
) -> Inference:
    if stride_px is None:
        return SINGLE_PASS
    by_features = average == "features"
    return Inference(
        "sliding_window",
        window_px=window_px or backbone.sizes.image_px,
        stride_px=stride_px,
        average=average,
        upsample=upsample_factor(backbone.sizes.patch_px, stride_px) if by_features else None,
    )
