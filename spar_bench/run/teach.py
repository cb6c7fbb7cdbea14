"""The first two stages: the list of distillation images, and the teacher's features on them."""

import json
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from spar_bench.errors import SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import encoder_flops
from spar_bench.plan.inputs import open_dataset
from spar_bench.run.checkpoint import is_whole
from spar_bench.run.context import Context
from spar_bench.run.images import Drawn, Pictures, draw, normalise
from spar_bench.run.inference import sliding_window
from spar_bench.stage import Finished, Stage
from spar_bench.windows import n_windows


def make_images(stage: Stage, context: Context) -> dict[str, Any]:
    """Draw the list of distillation images into `images.json`."""
    source = open_dataset(stage.how["source"], "train")
    drawn = draw(stage.settings, len(source))
    text = json.dumps([one.to_json() for one in drawn])
    replace_text(context.store.scratch(stage) / "output" / "images.json", text)
    return {"n_images": len(drawn)}


def open_images(stage: Stage, context: Context) -> Pictures:
    """Return the distillation images that a stage takes as its input `images`."""
    listed = context.finished(stage, "images", "images")
    drawn = json.loads(listed.path("images.json").read_text(encoding="utf-8"))
    return context.pictures(
        listed.fingerprint,
        lambda: Pictures(
            open_dataset(stage.how["source"], "train"),
            [Drawn.from_json(one) for one in drawn],
            listed.manifest["settings"],
        ),
    )


def make_targets(stage: Stage, context: Context) -> dict[str, Any]:
    """Write the teacher's features on each image, `(C, h, w)` in half precision.

    An attempt that was cut short goes on after the last file it wrote.
    """
    pictures = open_images(stage, context)
    backbone = context.backbone(stage.how["backbone"])
    output = context.store.scratch(stage) / "output"
    window_px, stride_px = stage.settings["window_px"], stage.settings["stride_px"]
    n_passes = 0
    for position in range(len(pictures)):
        context.check()
        context.report(stage, position / len(pictures))
        picture = pictures[position]
        image_hw = (picture.shape[-2], picture.shape[-1])
        passes = n_windows(image_hw, window_px, stride_px)
        n_passes += passes
        path = output / target_name(position)
        if is_whole(path):
            continue
        image = normalise(picture, backbone.mean, backbone.std).to(context.device)
        features = sliding_window(
            backbone,
            image[None],
            window_px=window_px,
            stride_px=stride_px,
            upsample=stage.settings["upsample"],
        )[0].to(torch.float16)
        if not features.isfinite().all():
            raise SparBenchError(
                f"targets: the teacher's features must be finite in half precision, but those of "
                f"image {position} are not; look at the weights of the backbone"
            )
        replace_bytes(path, save({"features": features.cpu().contiguous()}))
        read_hw = (min(window_px, image_hw[0]), min(window_px, image_hw[1]))
        context.flops += passes * encoder_flops(backbone.sizes, read_hw)
    return {"n_images": len(pictures), "n_windows": n_passes}


def read_target(targets: Finished, position: int) -> Tensor:
    """Return the teacher's features on one image, `(C, h, w)` in float32."""
    features: Tensor = load_file(targets.path(target_name(position)))["features"]
    return features.float()


def target_name(position: int) -> str:
    """Return the file name of the features on the image at a position of the drawn list."""
    return f"{position:06d}.safetensors"
