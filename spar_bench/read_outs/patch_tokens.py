"""All blocks, and nothing after them."""

from spar_bench.components import flops
from spar_bench.components.sizes import Sizes

VERSION = 1


class ReadOut(flops.ReadOut):
    """The final patch tokens."""

    def flops(self, sizes: Sizes, n_patches: int) -> flops.TowerFlops:
        """Return the FLOPs of an image after its patch embedding."""
        return flops.TowerFlops(flops.whole_blocks(sizes, n_patches), [], 0)

    def n_params(self, sizes: Sizes) -> int:
        """Return 0: nothing follows the blocks."""
        return 0
