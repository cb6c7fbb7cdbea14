"""All blocks, then those of dino.txt's vision head: attention, and a gated MLP of width G."""

from spar_bench.components import flops
from spar_bench.components.sizes import Sizes

VERSION = 1
NEEDS_HEAD = True


class ReadOut(flops.ReadOut):
    """The patch tokens of dino.txt's vision head; `head_depth` is the number of its blocks."""

    def flops(self, sizes: Sizes, n_patches: int) -> flops.TowerFlops:
        """Return the FLOPs of an image after its patch embedding; the gated MLP's are 6NDG."""
        tokens = n_patches + sizes.prefix_tokens
        block = flops.BlockFlops(
            flops.attention_linear(sizes, tokens),
            flops.mixing(sizes, tokens),
            6 * tokens * sizes.width * _gated(sizes),
        )
        whole = flops.whole_blocks(sizes, n_patches)
        return flops.TowerFlops(whole, [block] * sizes.head_depth, 0)

    def n_params(self, sizes: Sizes) -> int:
        """Return the weights of the head."""
        return sizes.head_depth * (flops.attention_params(sizes) + 3 * sizes.width * _gated(sizes))


def _gated(sizes: Sizes) -> int:
    """Return the hidden width of the head's MLPs: two thirds of 4D, in whole 64s."""
    return -(-(4 * sizes.width * 2 // 3) // 64) * 64
