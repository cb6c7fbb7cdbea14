"""How well the backbone reads the validation scenes, in one pass and through a fine window."""

from collections.abc import Sequence

from spar_bench.api import evaluate
from spar_bench.backbones.base import Backbone
from spar_bench.spec.schema import DatasetSpec

WINDOW_PX = 64


def validation_miou(
    backbone: Backbone, stride_px: Sequence[int], *, n_images: int | None = None
) -> list[float]:
    """Return mIoU as fractions: of a single pass, then of the teacher at each stride.

    Windows are 64 px wide, with cosines averaged at pixels.
    """
    scenes = DatasetSpec(name="patchwork", count=n_images, templates="openclip_80")
    read = [evaluate(backbone, scenes)]
    read += [
        evaluate(backbone, scenes, window_px=WINDOW_PX, stride_px=stride) for stride in stride_px
    ]
    return [one.miou for one in read]
