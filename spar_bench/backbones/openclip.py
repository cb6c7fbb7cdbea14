"""Any open_clip ViT with a class token, read densely as MaskCLIP does."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from spar_bench.backbones import base
from spar_bench.backbones._plain_vit import PlainVit, is_plain_vit
from spar_bench.components.backbone import known_sizes
from spar_bench.components.open_clip_io import (
    OpenClipModel,
    clip_export,
    load_open_clip,
    preprocessing,
    require_sizes,
)
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 1
MODELS_OF = "open_clip"
SHAPES = {
    "visual.conv1.weight": "width 3 patch_px patch_px",
    "visual.positional_embedding": "n_positions width",
}


class Backbone(base.Backbone):
    """An open_clip CLIP with a plain ViT, from a folder as `local-dir:` reads it, or from a file.

    Raises:
        NotReady: its weights are missing, or it is not a ViT with a class token.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        self._clip = clip = clip or load_open_clip(spec)
        self.model, self.visual, self.sizes = clip.model, clip.visual, known_sizes(spec)
        if not is_plain_vit(clip.visual):
            raise NotReady(
                f"backbone.path: must hold a plain open_clip ViT with a class token, but "
                f"{clip.weights.place} has a {type(clip.visual).__name__}; use another backbone "
                "plug-in"
            )
        self._vit = PlainVit(clip.visual, self.sizes.position_embedding)
        require_sizes(self._vit.sizes(), self.sizes, spec, clip.weights)
        self.mean, self.std = preprocessing(spec, clip.weights)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`."""
        return self._vit.embed(images)

    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[base.Block]:
        """Return all blocks but the last, which is a part of `read`."""
        return self._vit.blocks()

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` in the text's space."""
        return self._vit.read(tokens, grid_hw)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised."""
        return self._clip.encode_text(prompts)

    def parts(self) -> base.Parts:
        """Return the trainable parts by open_clip's own names for them."""
        return self._vit.parts()

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix."""
        return self._clip.image_weights(state)

    def export(self, library: base.Library) -> base.Exported:
        """Return the model as open_clip's or timm's `local-dir:` reads it."""
        return clip_export(self._clip, self, library)
