"""The embedded backbone: a small CLIP of procedural scenes, read like any other open_clip ViT."""

from collections.abc import Mapping, Sequence

import open_clip
from torch import Tensor

from spar_bench.backbones import base
from spar_bench.backbones._plain_vit import PlainVit
from spar_bench.components.backbone import known_sizes
from spar_bench.components.open_clip_config import stated_config
from spar_bench.components.open_clip_io import OpenClipModel, clip_export, preprocessing
from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.patchwork import weights
from spar_bench.spec.schema import BackboneSpec

VERSION = 1
BUILDS_ON = "openclip"


class Backbone(base.Backbone):
    """An `open_clip.CLIP` built from the package's config, with the weights shipped beside it.

    Its text tower knows the scenes' class names in open_clip's 80 templates, and no other word.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        self.sizes = known_sizes(spec)
        model = open_clip.CLIP(**stated_config(weights.MODEL)["model_cfg"])
        model.load_state_dict(weights.load_state_dict(), strict=True)
        self._clip = clip = OpenClipModel(model, Weights(weights.MODEL), "")
        self.model, self.visual = clip.model, clip.visual
        self._vit = PlainVit(clip.visual, self.sizes.position_embedding)
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
        """Embed prompts to `(T, C)`, normalised.

        Raises:
            SparBenchError: a prompt has a word that the text tower was never trained on.
        """
        unknown = weights.unknown_tokens(self._clip.tokenize(prompts))
        if unknown:
            word = self._clip.tokenizer.decode(unknown[:1]).strip()
            raise SparBenchError(
                "backbone patchwork: must get only words that it was trained on, but got "
                f"{word!r}; "
                "use the class names of the patchwork scenes in open_clip's 80 templates"
            )
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
