"""FLOPs of reading one image: its windows or single pass, products with text, and its refiner.

Counted as in `components/flops.py`.
"""

from spar_bench.components.flops import cosine_flops, encoder_flops
from spar_bench.components.refiner import RefinedSizes
from spar_bench.components.refiner import refining_flops as component_flops
from spar_bench.components.sizes import Sizes
from spar_bench.inference import Inference
from spar_bench.spec.plugins import PluginSpec
from spar_bench.windows import n_encoded, n_windows


def windows_of(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> int:
    """Return how many passes of the encoder one image takes.

    If features are averaged, windows slide over an image with sides that are multiples of the
    patch.
    """
    if inference.window_px is None or inference.stride_px is None:
        return 1
    return n_windows(slid_hw(sizes, inference, image_hw), inference.window_px, inference.stride_px)


def pass_hw(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size that one encoder pass reads: the image, or a window clipped to it."""
    if inference.window_px is None:
        return image_hw
    height, width = slid_hw(sizes, inference, image_hw)
    return min(inference.window_px, height), min(inference.window_px, width)


def slid_hw(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size windows slide over: the image, in whole patches if features are averaged."""
    return sizes.whole_hw(image_hw) if inference.average == "features" else image_hw


def image_flops(
    sizes: Sizes, inference: Inference, image_hw: tuple[int, int], *, n_queries: int
) -> int:
    """Return the FLOPs of reading one image: encoder over all windows, and products with text.

    If logits are averaged, each window is multiplied with the text; if features, only the stitched
    grid.
    """
    is_each = inference.average == "logits"
    heads = windows_of(sizes, inference, image_hw) if is_each else 1
    met_hw = pass_hw(sizes, inference, image_hw) if is_each else image_hw
    cosines = heads * cosine_flops(sizes, met_hw, n_queries)
    return windows_flops(sizes, inference, image_hw) + cosines


def windows_flops(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image: of all its windows, or of its single pass."""
    passes = windows_of(sizes, inference, image_hw)
    return passes * encoder_flops(sizes, pass_hw(sizes, inference, image_hw))


def shared_flops(sizes: Sizes, inferences: list[Inference], image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image in several ways: a shared window counts once."""
    window_px = inferences[0].window_px
    if window_px is None:
        return encoder_flops(sizes, image_hw)
    strides = [one.stride_px for one in inferences if one.stride_px is not None]
    n_passes = n_encoded(slid_hw(sizes, inferences[0], image_hw), window_px, strides)
    return n_passes * encoder_flops(sizes, pass_hw(sizes, inferences[0], image_hw))


def refining_flops(
    refiner: PluginSpec,
    sizes: Sizes,
    image_hw: tuple[int, int],
    out_hw: tuple[int, int],
    *,
    n_queries: int,
) -> int | None:
    """Return the FLOPs of refining one image by its plug-in's `FLOPS`, None if it states none.

    The image is read at `image_hw`, its labels are of `out_hw`.

    Raises:
        SparBenchError: it states no arithmetic, and no function.
    """
    return component_flops(
        refiner,
        RefinedSizes(
            sizes.channels, n_queries, sizes.grid_hw(image_hw), sizes.whole_hw(image_hw), out_hw
        ),
    )
