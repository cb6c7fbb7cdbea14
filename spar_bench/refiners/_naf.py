"""NAF's network and its attention: the image alone says how the features around a cell are mixed.

The modules have the names of the published weights, so that these load as they are. Source: the
public model definition, valeoai/NAF @ad4e24d `src/model/naf.py`, and for the positions DINOv3's
paper (arXiv 2508.10104); rewritten from the maths.

Shape legend: C channels, h x w patch grid, H x W pixels as the backbone saw them, h' x w' cells of
the output, P of them in a patch, K patches that a cell sees.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.components.tensors import read_listed
from spar_bench.components.weights import Weights
from spar_bench.refiners._naf_cost import BRANCH_WIDTH, HEAD_WIDTH, HEADS, SIDE, Hw

TILE_BYTES = 64 * 2**20
"""What the attention of the patches that are mixed at once may take."""
_GROUPS = 8
_LONGEST_PERIOD = 100.0
_PLUGIN = Path(__file__).with_name("naf.py")


class Naf(nn.Module):
    """Two branches that encode the image, by pixel and by surroundings, and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = nn.ModuleDict(
            {"encoder": _branch(1), "sem_encoder": _branch(3), "rope": Positions()}
        )

    def forward(self, image: Tensor, out_hw: Hw) -> Tensor:
        """Encode an image `(3, H, W)`, normalised as ImageNet is, to `(4 * 64, h', w')`."""
        parts = self.image_encoder
        # the larger branch first: it takes the most memory, and should find most of it free
        around = F.adaptive_avg_pool2d(parts["sem_encoder"](image[None]), out_hw)
        alone = F.adaptive_avg_pool2d(parts["encoder"](image[None]), out_hw)
        encoded: Tensor = parts["rope"](torch.cat([alone, around], dim=1)[0])
        return encoded


class Block(nn.Module):
    """Two convolutions, each after a norm and SiLU; without a shortcut."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, BRANCH_WIDTH)
        self.conv1 = _convolution(BRANCH_WIDTH, side)
        self.norm2 = nn.GroupNorm(_GROUPS, BRANCH_WIDTH)
        self.conv2 = _convolution(BRANCH_WIDTH, side)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(1, 128, H, W)` to the same shape."""
        x = self.conv1(F.silu(self.norm1(x), inplace=True))
        mapped: Tensor = self.conv2(F.silu(self.norm2(x), inplace=True))
        return mapped


class Positions(nn.Module):
    """Rotary positions: half of a head's channels turn with the row, half with the column.

    Coordinates are those of centres, -1 to 1 over the map.
    """

    periods: Tensor

    def __init__(self) -> None:
        super().__init__()
        n_periods = HEAD_WIDTH // 4
        self.register_buffer("periods", _LONGEST_PERIOD ** (torch.arange(n_periods) / n_periods))

    def forward(self, maps: Tensor) -> Tensor:
        """Turn maps `(4 * 64, h', w')` in place: a channel is a pair with the 32nd after it."""
        rows, columns = (self._angles(length) for length in maps.shape[1:])
        angles = torch.cat(
            [
                rows[:, :, None].expand(-1, -1, maps.shape[2]),
                columns[:, None, :].expand(-1, maps.shape[1], -1),
            ]
        )
        cos, sin = angles.cos(), angles.sin()
        for first, second in maps.view(HEADS, 2, -1, *maps.shape[1:]):
            turned = first * cos - second * sin
            second.mul_(cos).addcmul_(first, sin)
            first.copy_(turned)
        return maps

    def _angles(self, length: int) -> Tensor:
        """Return the angles along one side, `(16, length)`."""
        centres = torch.arange(0.5, length, device=self.periods.device)
        return 2 * math.pi * (2 * centres / length - 1) / self.periods[:, None]


def load(weights: Weights) -> Naf:
    """Build the network with its weights, on the CPU.

    Raises:
        NotReady: they cannot be read, or are not NAF's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        network = Naf()
    if not weights.is_random:
        network.load_state_dict(read_listed(_PLUGIN, weights))
    return network.eval().requires_grad_(False)


def mixed(queries: Tensor, keys: Tensor, features: Tensor) -> Tensor:
    """Mix for each cell the features of the 9 x 9 patches around its own, by softmax of q.k / 8.

    The square is shifted to lie inside the grid, and cut to it if the grid is smaller. Each of the
    4 heads mixes a quarter of the channels. Patches are worked on together as far as they fit into
    `TILE_BYTES`.

    Args:
        queries: The encoded image at the cells, `(4 * 64, h', w')`, a whole number to a patch.
        keys: The same at the patches, `(4 * 64, h, w)`.
        features: `(C, h, w)`; C is a multiple of 4.

    Returns:
        `(C, h', w')`.
    """
    (channels, h, w), out_hw = features.shape, queries.shape[1:]
    seen = neighbours((h, w), features.device)
    heads = HEADS, -1
    cells = queries.reshape(*heads, h, out_hw[0] // h, w, out_hw[1] // w)
    own, values = (maps.reshape(*heads, h * w) for maps in (keys, features))
    out = features.new_empty((channels, *out_hw))
    patches = out.view(HEADS, -1, *cells.shape[2:])  # (4, C / 4, h, ., w, .)
    n_at_once = _n_at_once(cells, features, seen)
    for first in range(0, h * w, n_at_once):
        tile = torch.arange(first, min(first + n_at_once, h * w), device=features.device)
        place = slice(None), slice(None), tile // w, slice(None), tile % w
        asked = cells[place].flatten(3)  # (n, 4, 64, P)
        answers, held = (maps[:, :, seen[tile]].permute(2, 0, 1, 3) for maps in (own, values))
        weights = (answers.transpose(2, 3) @ asked / math.sqrt(HEAD_WIDTH)).softmax(dim=2)
        patches[place] = (held @ weights).view(*held.shape[:3], cells.shape[3], cells.shape[5])
    return out


def neighbours(grid_hw: Hw, device: torch.device) -> Tensor:
    """Return the places in the grid of the patches that each patch's cells see, `(h * w, K)`."""
    rows, columns = (_along(length, device) for length in grid_hw)
    square = rows[:, None, :, None] * grid_hw[1] + columns[:, None, :]
    return square.reshape(len(rows) * len(columns), -1)


def _along(length: int, device: torch.device) -> Tensor:
    """Return for each place on a side those that it sees, `(length, 9)` or all if fewer."""
    n_seen = min(SIDE, length)
    first = (torch.arange(length, device=device) - SIDE // 2).clamp(0, length - n_seen)
    return first[:, None] + torch.arange(n_seen, device=device)


def _n_at_once(cells: Tensor, features: Tensor, seen: Tensor) -> int:
    """Return how many patches are mixed at once: each gathers, and multiplies, copies."""
    width, n_cells, n_seen = len(features), cells.shape[3] * cells.shape[5], seen.shape[1]
    floats = 3 * n_cells * n_seen + 2 * (HEADS * HEAD_WIDTH + width) * (n_cells + n_seen)
    return max(1, TILE_BYTES // (features.element_size() * floats))


def _branch(side: int) -> nn.Sequential:
    return nn.Sequential(_convolution(3, side), Block(side), Block(side))


def _convolution(channels: int, side: int) -> nn.Conv2d:
    if side == 1:  # there is no border, and reflecting it would copy the maps
        return nn.Conv2d(channels, BRANCH_WIDTH, 1)
    return nn.Conv2d(channels, BRANCH_WIDTH, side, padding=side // 2, padding_mode="reflect")
