"""All blocks but the last, then its value path for patches alone, and the projection."""

from spar_bench.components import flops
from spar_bench.components.sizes import Sizes

VERSION = 1


class ReadOut(flops.ReadOut):
    """As MaskCLIP reads a CLIP. Source: arXiv 2112.01071."""

    def flops(self, sizes: Sizes, n_patches: int) -> flops.TowerFlops:
        """Return the FLOPs of an image after its patch embedding."""
        whole, n = flops.whole_blocks(sizes, n_patches), n_patches
        last = flops.BlockFlops(flops.value_linear(sizes, n), 0, flops.mlp(sizes, n))
        return flops.TowerFlops([*whole[:-1], last], [], 2 * n * sizes.width * sizes.channels)

    def n_params(self, sizes: Sizes) -> int:
        """Return the weights of the projection."""
        return sizes.width * sizes.channels
