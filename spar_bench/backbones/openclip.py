"""Any open_clip ViT with a class token, read densely as MaskCLIP does."""

from spar_bench.backbones._plain_vit import PlainVitBackbone, is_plain_vit, sizes_of
from spar_bench.components.open_clip_io import OpenClipModel, load_open_clip, require_sizes
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 2
MODELS_OF = "open_clip"
SHAPES = {
    "visual.conv1.weight": "width 3 patch_px patch_px",
    "visual.positional_embedding": "n_positions width",
}


class Backbone(PlainVitBackbone):
    """An open_clip CLIP with a plain ViT, from a folder as `local-dir:` reads it, or from a file.

    Raises:
        NotReady: its weights are missing, or it is not a ViT with a class token.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        super().__init__(spec, clip or load_open_clip(spec))
        visual, weights = self.clip.visual, self.clip.weights
        if not is_plain_vit(visual):
            raise NotReady(
                f"backbone.path: must hold a plain open_clip ViT with a class token, but "
                f"{weights.place} has a {type(visual).__name__}; use another backbone plug-in"
            )
        require_sizes(sizes_of(visual), self.sizes, spec, weights)
