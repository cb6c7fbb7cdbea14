"""The pretraining objective: tell which classes a picture shows, and nothing more.

Legend: B pictures, R regions of a collage, K classes, P prompts of a class, N patches, C channels.
"""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

SOFTNESS = 0.1
"""Of the soft maximum over patches, in units of a cosine: 0 would be the best patch alone."""


def patch_features(visual: VisionTransformer, images: Tensor, *, value_path: bool) -> Tensor:
    """Encode normalised images of the native size to features in the text's space, `(B, N, C)`.

    With `value_path` the last block's attention is replaced as the read-out replaces it.
    """
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding.to(x.dtype))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = _run(block, x, value_path=False)
    x = visual.ln_post(_run(last, x, value_path=value_path))
    features: Tensor = x[:, 1:] @ visual.proj
    return features


def _run(block: ResidualAttentionBlock, x: Tensor, *, value_path: bool) -> Tensor:
    """Run a block with attention spelled out: its bfloat16 gradient is six times faster so."""
    attention, width = block.attn, x.shape[-1]
    normed = block.ln_1(x)
    if value_path:
        weight, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        mixed = F.linear(normed, weight, bias)
    else:
        packed = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        parts = packed.view(*x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        mixed = (scores.softmax(dim=-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)
    x = x + attention.out_proj(mixed)
    out: Tensor = x + block.mlp(block.ln_2(x))
    return out


def tag_loss(
    model: CLIP, features: Tensor, prompts: Tensor, regions: Tensor, tags: Tensor
) -> Tensor:
    """Return the sigmoid loss of regions against the prompts of every class, a scalar `()`.

    How far a region shows a class is the log-mean-exp of its patches' cosines with the prompt: a
    few patches that show it suffice, and their position does not matter.

    Args:
        model: Has the logit scale and bias.
        features: `(B, N, C)`.
        prompts: Embedded and normalised prompts, `(K, P, C)`.
        regions: Which region each patch belongs to, `(B, N)`, 0 to R - 1.
        tags: 1 shown, 0 not shown, NaN ignored, `(B, R, K)`.
    """
    cosines = torch.einsum("bnc,kpc->bnkp", F.normalize(features.float(), dim=-1), prompts)
    inside = F.one_hot(regions, tags.shape[1]).bool().transpose(1, 2)
    apart = (cosines / SOFTNESS)[:, None].masked_fill(~inside[..., None, None], -1e4)
    n_patches = inside.sum(dim=2).clamp(min=1)[..., None, None]
    shown = SOFTNESS * (torch.logsumexp(apart, dim=2) - n_patches.log())
    asked = ~tags.isnan()
    logits = (shown * model.logit_scale.exp() + model.logit_bias)[asked]
    target = tags[asked][:, None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, target)
