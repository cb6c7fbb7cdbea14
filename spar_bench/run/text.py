"""Class names to queries: each synonym's prompts, embedded, averaged and normalised.

Shape legend: Q queries, C channels.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.components.flops import prompt_flops
from spar_bench.files import replace_bytes
from spar_bench.protocol import Protocol
from spar_bench.run.classifier import Classifier
from spar_bench.run.context import Context
from spar_bench.run.resume import (
    RESUME_FILE,
    SAVE_EVERY_S,
    load_state,
    save_state,
)
from spar_bench.stage import Finished
from spar_bench.stages import text
from spar_bench.values import Templates

CHUNK = 2**24
"""Values of an image's features that are normalised at once, by rows: 64 MiB in float32."""


@dataclass(frozen=True, kw_only=True)
class TextClassifier(Classifier):
    """Text queries, `(Q, C)`, normalised: a pixel's scores are its cosines with them."""

    queries: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return cosines `(B, Q, h, w)` of features `(B, C, h, w)` with each query, in float32."""
        rows = max(1, CHUNK // features[0, :, :1].numel())
        parts = [
            torch.einsum("bchw,qc->bqhw", F.normalize(part.float(), dim=1), self.queries)
            for part in torch.split(features, rows, dim=2)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def classifier_of(queries: Tensor, classes: list[list[str]], protocol: Protocol) -> TextClassifier:
    """Return the classifier of queries `(Q, C)`, one for each name, under a protocol."""
    class_of = [index for index, names in enumerate(classes) for _ in names]
    return TextClassifier(
        queries=queries,
        class_of=torch.tensor(class_of, device=queries.device),
        n_classes=len(classes),
        logit_scale=protocol.logit_scale,
        background_threshold=protocol.background_threshold,
        area_threshold=protocol.area_threshold,
    )


def embed(backbone: Backbone, classes: list[list[str]], templates: Templates) -> Tensor:
    """Embed every name of every class in every template: queries `(Q, C)`."""
    return torch.stack([_query(backbone, name, templates) for names in classes for name in names])


def make_text(stages: list[text.Stage], context: Context) -> list[text.Summary]:
    """Embed the class names of data sets; writes the queries.

    Resumes where an earlier attempt was interrupted.
    """
    return [_make_text(stage, context) for stage in stages]


def _make_text(stage: text.Stage, context: Context) -> text.Summary:
    templates, names = stage.settings.templates, stage.settings.names
    n_prompts = len(_prompts(templates, ""))
    backbone = context.backbone(stage.places.backbone)
    path = context.store.scratch(stage) / RESUME_FILE
    queries, saved_at = _resumed(path), time.monotonic()
    for name in names[len(queries) :]:
        is_due = context.stop.is_set() or time.monotonic() - saved_at > SAVE_EVERY_S
        if queries and is_due:
            save_state(path, {"queries": torch.stack(queries)}, {})
            saved_at = time.monotonic()
        context.check()
        context.report(stage, len(queries) / len(names))
        queries.append(_query(backbone, name, templates).cpu())
        context.flops += n_prompts * prompt_flops(stage.places.text_sizes)
    content = save({"queries": torch.stack(queries)})
    replace_bytes(context.store.output(stage) / text.QUERIES_FILE, content)
    return text.Summary(n_queries=len(names), n_prompts=len(names) * n_prompts)


def _resumed(path: Path) -> list[Tensor]:
    resumed = load_state(path)
    return list(resumed[0]["queries"]) if resumed else []


def read_queries(embedded: Finished) -> Tensor:
    """Return the queries `(Q, C)` of a finished `text` stage, on the CPU."""
    queries: Tensor = load_file(embedded.path(text.QUERIES_FILE))["queries"]
    return queries


def _query(backbone: Backbone, name: str, templates: Templates) -> Tensor:
    """Return the embedding of a name `(C,)`, in float32.

    Its prompts are normalised, averaged and normalised again. Source: CLIP's zero-shot classifier.
    """
    embedded = backbone.encode_text(_prompts(templates, name))
    return F.normalize(embedded.float().mean(dim=0), dim=0)


def _prompts(templates: Templates, name: str) -> list[str]:
    forms = _openclip_templates() if templates == "openclip_80" else templates
    return [form.replace("{}", name) for form in forms]


def _openclip_templates() -> list[str]:
    import open_clip

    return [str(template("{}")) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
