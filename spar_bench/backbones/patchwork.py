"""The embedded backbone: a small CLIP of procedural scenes, read like any other open_clip ViT."""

import open_clip
from torch import Tensor

from spar_bench.backbones._plain_vit import PlainVitBackbone
from spar_bench.components.open_clip_config import stated_config
from spar_bench.components.open_clip_io import OpenClipModel
from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.patchwork import weights
from spar_bench.spec.schema import BackboneSpec

VERSION = 2
BUILDS_ON = "openclip"


class Backbone(PlainVitBackbone):
    """An `open_clip.CLIP` built from the package's config, with the weights shipped beside it.

    Its text tower knows the scenes' class names in open_clip's 80 templates, and no other word.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        model = open_clip.CLIP(**stated_config(weights.MODEL)["model_cfg"])
        model.load_state_dict(weights.load_state_dict(), strict=True)
        super().__init__(spec, OpenClipModel(model, Weights(weights.MODEL), ""))

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised.

        Raises:
            SparBenchError: a prompt has a word that the text tower was never trained on.
        """
        unknown = weights.unknown_tokens(self.clip.tokenize(prompts))
        if unknown:
            word = self.clip.tokenizer.decode(unknown[:1]).strip()
            raise SparBenchError(
                "backbone patchwork: must get only words that it was trained on, but got "
                f"{word!r}; "
                "use the class names of the patchwork scenes in open_clip's 80 templates"
            )
        return super().encode_text(prompts)
