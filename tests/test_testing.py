"""The contracts themselves: a toy plug-in satisfies them, a broken one is caught."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spar_bench.backbones.base import Backbone, Parts, on_grid
from spar_bench.components.sizes import Sizes
from spar_bench.testing import BackboneContract, LossContract


class Block(nn.Module):
    """A block whose attention is the mean over all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, width)
        self.mlp = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x.mean(1, keepdim=True))
        return x + torch.tanh(self.mlp(x))


class Tower(nn.Module):
    """A patch embedding and two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.position = nn.Parameter(torch.zeros(6))
        self.blocks = nn.ModuleList([Block(6), Block(6)])


class ToyBackbone(Backbone):
    """The smallest thing that is a backbone."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.sizes = Sizes(
            patch_px=4, image_px=8, width=6, depth=2, heads=1, mlp_ratio=1.0, channels=6,
            read_out="toy",
        )  # fmt: skip
        self.tower = Tower().eval()
        self.visual = self.model = self.tower

    def embed(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.tower.patches(images)
        return tokens.flatten(2).transpose(1, 2) + self.tower.position

    def blocks(self, grid_hw: tuple[int, int]) -> list[Block]:
        return [block for block in self.tower.blocks if isinstance(block, Block)]

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        return on_grid(tokens, grid_hw)

    def encode_text(self, prompts: list[str]) -> Tensor:
        seeds = [sum(prompt.encode()) for prompt in prompts]
        rows = [torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return nn.functional.normalize(torch.stack(rows), dim=1)

    def parts(self) -> Parts:
        tower, blocks = self.tower, self.blocks((1, 1))
        return Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[list(block.attention.parameters()) for block in blocks],
            mlp=[list(block.mlp.parameters()) for block in blocks],
            position_embedding=[tower.position],
            patch_embedding=list(tower.patches.parameters()),
        )


class TestToyBackbone(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        return ToyBackbone()


class Transposed(ToyBackbone):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images).transpose(2, 3)


class Mirrored(ToyBackbone):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images).flip(3)


class Mixed(ToyBackbone):
    def features(self, images: Tensor) -> Tensor:
        features = super().features(images)
        return features - features.mean(0)


class Frozen(ToyBackbone):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images).detach().requires_grad_()


class Forgetful(ToyBackbone):
    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        self.visual.load_state_dict({}, strict=False)


@pytest.mark.parametrize(
    ("backbone", "broken"),
    [
        (Transposed, lambda c, b: c.test_features_lie_on_the_grid_height_then_width(b, (2, 3))),
        (Mirrored, BackboneContract.test_a_patch_changes_the_features_of_its_own_place_most),
        (Mixed, BackboneContract.test_images_of_a_batch_do_not_touch_each_other),
        (Frozen, BackboneContract.test_gradient_reaches_every_block_and_no_text),
        (Forgetful, BackboneContract.test_weights_of_a_student_can_be_put_in),
    ],
)
def test_broken_backbone_is_caught(backbone: type[ToyBackbone], broken: Any) -> None:
    with pytest.raises(AssertionError):
        broken(BackboneContract(), backbone())


def test_loss_that_broadcasts_or_trains_the_teacher_is_caught() -> None:
    contract = LossContract()

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()

    with pytest.raises(pytest.fail.Exception):
        contract.test_unequal_shapes_are_an_error(loss, (2, 1, 3, 4))
    with pytest.raises(AssertionError):
        contract.test_gradient_flows_to_the_student_alone(loss)
