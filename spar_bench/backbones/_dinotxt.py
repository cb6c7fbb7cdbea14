"""What dino.txt adds to a DINOv3 trunk: a vision head of two blocks, and a causal text tower.

The modules have the names of the published weights, so that these load as they are. Source: the
public model definition, facebookresearch/dinov3 `dinov3/eval/text/`; rewritten from the maths.

Shape legend: B images or T prompts, N tokens, D width.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64
"""Width of every attention head in DINOv3 and dino.txt."""
Shapes = Mapping[str, Sequence[int]]


class DinoTxt(nn.Module):
    """The vision head and the text tower, published in one file; the weights give their sizes."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(1))  # not used: the spec sets the scale
        self.visual_model = nn.ModuleDict({"head": VisionHead(shapes)})
        self.text_model = TextTower(shapes)


class VisionHead(nn.Module):
    """Blocks over all tokens of the trunk, prefix tokens too, without positions."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        prefix = "visual_model.head"
        hidden, width = shapes[f"{prefix}.blocks.0.mlp.w1.weight"]
        depth = _depth(shapes, prefix)
        self.blocks = nn.ModuleList(VisionBlock(width, hidden) for _ in range(depth))
        self.ln_final = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens in the text's space, `(B, N, D)`, of the trunk's normalised ones."""
        for block in self.blocks:
            tokens = block(tokens)
        aligned: Tensor = self.ln_final(tokens)
        return aligned


class TextTower(nn.Module):
    """A transformer over token ids, each token seeing those before it, and a projection."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, projected = reversed(shapes["text_model.head.linear_projection.weight"])
        self.backbone = TextBlocks(shapes)
        self.head = nn.ModuleDict({"linear_projection": nn.Linear(width, projected, bias=False)})

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids `(T, N)` to `(T, projected)`: what the end of each text holds.

        The end of text has the largest id of the vocabulary.
        """
        end = ids.argmax(dim=1)
        tokens = self.backbone(ids[:, : int(end.max()) + 1])  # causal: later tokens do not matter
        ends = tokens[torch.arange(len(ids), device=ids.device), end]
        embedded: Tensor = self.head["linear_projection"](ends)
        return embedded


class TextBlocks(nn.Module):
    """The text tower without its projection."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        prefix = "text_model.backbone"
        n_tokens, width = shapes[f"{prefix}.token_embedding.weight"]
        hidden = shapes[f"{prefix}.blocks.0.feed_forward.fc1.weight"][0]
        depth = _depth(shapes, prefix)
        self.token_embedding = nn.Embedding(n_tokens, width)
        self.positional_embedding = nn.Parameter(
            0.01 * torch.randn(*shapes[f"{prefix}.positional_embedding"])
        )
        self.blocks = nn.ModuleList(TextBlock(width, hidden) for _ in range(depth))
        self.ln_final = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        """Return normalised tokens `(T, N, D)` of token ids `(T, N)`."""
        tokens: Tensor = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.ln_final(tokens)
        return normalised


class VisionBlock(nn.Module):
    """Attention and a gated MLP, each scaled by channel."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, is_causal=False)
        self.mlp = GatedMlp(width, hidden)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, D)` to tokens."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        mapped: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return mapped


class TextBlock(nn.Module):
    """Causal attention and an MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, is_causal=True)
        self.feed_forward = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(T, N, D)` to tokens."""
        x = x + self.attention(self.attention_norm(x))
        mapped: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return mapped


class Attention(nn.Module):
    """Self-attention; queries, keys and values have no bias."""

    def __init__(self, width: int, *, is_causal: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.is_causal = is_causal

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, D)` to tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class GatedMlp(nn.Module):
    """SwiGLU: a gate, the values it gates, and the output projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, D)` to tokens."""
        mapped: Tensor = self.w3(F.silu(self.w1(x)) * self.w2(x))
        return mapped


class Scale(nn.Module):
    """One factor per channel; 1e-5 before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Scale `(B, N, D)`."""
        return x * self.gamma


def _depth(shapes: Shapes, prefix: str) -> int:
    """Return how many blocks there are under a prefix."""
    blocks = f"{prefix}.blocks."
    return 1 + max(
        int(k.removeprefix(blocks).split(".")[0]) for k in shapes if k.startswith(blocks)
    )
