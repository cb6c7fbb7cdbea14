"""What the backbones of open_clip share: text tower, preprocessing, and exchange of weights."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import open_clip
from torch import Tensor

from spar_bench.backbones import base
from spar_bench.components.backbone import known_sizes
from spar_bench.components.open_clip_config import Config, stated_config, tokenizer_of
from spar_bench.components.open_clip_io import OpenClipModel, preprocessing
from spar_bench.components.weights import CONFIG_FILE
from spar_bench.errors import SparBenchError
from spar_bench.spec.schema import BackboneSpec


class OpenClipBackbone(base.Backbone):
    """A backbone with a model of open_clip; a subclass says how its image tower is read."""

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel) -> None:
        self.clip, self.model, self.visual = clip, clip.model, clip.visual
        self.sizes = known_sizes(spec)
        self.mean, self.std = preprocessing(spec, clip.weights)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised."""
        return self.clip.encode_text(prompts)

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a whole checkpoint, whatever its prefix.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it is of another model.
        """
        others = ("visual.", "logit_")
        own = {k: v for k, v in self.model.state_dict().items() if not k.startswith(others)}
        base.require_same_text(own, state)
        return base.under_any_prefix(self.visual.state_dict(), state)

    def export(self, library: base.Library) -> base.Exported:
        """Return the model as open_clip's `local-dir:` reads it, or its image tower as timm's.

        Raises:
            SparBenchError: timm has no such tower, or the tokenizer's files are not beside the
                weights.
        """
        return self.timm_export() if library == "timm" else self._open_clip_export()

    @abstractmethod
    def timm_export(self) -> base.Exported:
        """Return the image tower as timm's `local-dir:` reads it."""

    def stated_config(self) -> Config:
        """Return open_clip's config of the model: that beside its weights, else by its name."""
        weights = self.clip.weights
        if weights.folder is not None and weights.has_config:
            return stated_config(weights.folder)
        return {"model_cfg": open_clip.get_model_config(self.clip.architecture)}

    def _open_clip_export(self) -> base.Exported:
        weights, stated = self.clip.weights, self.stated_config()
        preprocess = {"mean": list(self.mean), "std": list(self.std)}
        needed = tokenizer_of(weights, self.clip.architecture)
        further = needed.files if needed else []
        if "hf_tokenizer_name" in stated["model_cfg"]["text_cfg"] and not further:
            raise SparBenchError(
                "--format open_clip: must have the tokenizer's files beside the weights, but "
                f"{weights.path or 'random weights'} has none; put them there, or export as timm"
            )

        def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
            read = open_clip.create_model(f"local-dir:{folder}", weights_only=True).eval()
            return read.encode_image(images), self.clip.model.encode_image(images)

        return base.Exported(
            CONFIG_FILE,
            {**stated, "preprocess_cfg": {**stated.get("preprocess_cfg", {}), **preprocess}},
            "open_clip_model.safetensors",
            dict(self.model.state_dict()),
            further,
            check,
        )
