"""All blocks, then value, output projection and MLP of the pooling head for each patch."""

from spar_bench.components import flops
from spar_bench.components.sizes import Sizes

VERSION = 1


class ReadOut(flops.ReadOut):
    """As SPAR reads a SigLIP2. Source: arXiv 2604.02252."""

    def flops(self, sizes: Sizes, n_patches: int) -> flops.TowerFlops:
        """Return the FLOPs of an image after its patch embedding."""
        head = flops.value_linear(sizes, n_patches) + flops.mlp(sizes, n_patches)
        return flops.TowerFlops(flops.whole_blocks(sizes, n_patches), [], head)

    def n_params(self, sizes: Sizes) -> int:
        """Return the weights of the pooling head."""
        return flops.attention_params(sizes) + flops.mlp_params(sizes)
