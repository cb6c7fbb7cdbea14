"""Contracts for plug-ins' test classes to inherit, third parties' too; needs pytest.

Such a test class is short:

    class TestHuber(LossContract):
        @pytest.fixture
        def loss(self):
            return huber.loss
"""

import inspect
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.components.sizes import Sizes
from spar_bench.datasets import image_sizes
from spar_bench.datasets.base import IGNORED, Dataset, Image, Split
from spar_bench.losses.base import Loss
from spar_bench.plan.cost import refining_flops
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.sources import constant
from spar_bench.spec.plugins import PluginSpec

MakeDataset = Callable[[Split, int | None], Dataset]


def features(seed: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw features `(2, 5, 3, 4)` from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 3, 4, generator=generator).to(dtype)


class LossContract:
    """What every loss must do; inherit from it, and supply a `loss` fixture."""

    def test_loss_is_a_finite_scalar_above_zero(self, loss: Loss) -> None:
        value = loss(features(0), features(1))

        assert value.shape == ()
        assert torch.isfinite(value)
        assert value > 0

    def test_loss_of_equal_features_is_zero(self, loss: Loss) -> None:
        value = loss(features(0), features(0))

        assert 0 <= value.item() < 1e-6

    def test_gradient_flows_to_the_student_alone(self, loss: Loss) -> None:
        student, teacher = features(0).requires_grad_(), features(1).requires_grad_()

        loss(student, teacher).backward()  # type: ignore[no-untyped-call]

        assert student.grad is not None
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_a_step_against_the_gradient_lowers_the_loss(self, loss: Loss) -> None:
        student, teacher = features(0).requires_grad_(), features(1)
        before = loss(student, teacher)
        (gradient,) = torch.autograd.grad(before, student)

        after = loss(student - 1e-2 * gradient / gradient.norm(), teacher)

        assert after < before

    @pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 5, 3, 4), (2, 1, 3, 4), (2, 5, 1, 1)])
    def test_unequal_shapes_are_an_error(self, loss: Loss, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="must both be"):
            loss(features(0), torch.zeros(shape))

    def test_half_precision_features_give_the_same_loss(self, loss: Loss) -> None:
        exact = loss(features(0), features(1))

        rounded = loss(features(0, dtype=torch.bfloat16), features(1, dtype=torch.float16))

        assert rounded.item() == pytest.approx(exact.item(), rel=0.02)

    def test_settings_have_defaults_that_a_spec_can_write(self, loss: Loss) -> None:
        for one in inspect.signature(loss).parameters.values():
            if one.kind == one.KEYWORD_ONLY:
                assert isinstance(one.default, bool | int | float | str | list | tuple), one.name


def _place(image: Image, dataset: Dataset) -> int:
    """Return the index of an image in a data set, which must have it."""
    found = (i for i in range(len(dataset)) if np.array_equal(dataset.image(i), image))
    return next(found)


class DatasetContract:
    """What every data set must do; inherit from it, and supply a `make` fixture.

    `make(split, count)` constructs the data set, which has at least two images in each split.
    """

    def test_classes_have_names_of_their_own(self, make: MakeDataset) -> None:
        names = [name for synonyms in make("val", None).classes for name in synonyms]

        assert names
        assert all(name == name.strip() != "" for name in names)
        assert len(set(names)) == len(names)

    def test_sample_is_an_image_and_the_labels_of_its_pixels(self, make: MakeDataset) -> None:
        dataset = make("val", 2)

        name, image, mask = dataset.sample(1)

        assert name
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*mask.shape, 3)
        assert set(np.unique(mask)) <= {*range(len(dataset.classes)), IGNORED}

    def test_image_is_that_of_the_sample(self, make: MakeDataset) -> None:
        dataset = make("val", 2)

        assert np.array_equal(dataset.image(1), dataset.sample(1).image)

    def test_declared_size_is_that_of_the_first_image(self, make: MakeDataset) -> None:
        dataset = make("val", None)

        assert dataset.image_hw == dataset.image(0).shape[:2]

    def test_stated_sizes_are_those_of_the_images(self, make: MakeDataset) -> None:
        dataset = make("val", None)

        found = image_sizes(dataset)

        read = (dataset.image(index).shape[:2] for index in range(len(dataset)))
        assert found == dict(Counter(read))

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_count_takes_images_of_the_whole_set_in_its_order(
        self, make: MakeDataset, split: Split
    ) -> None:
        all_of_them, two = make(split, None), make(split, 2)

        assert len(all_of_them) >= len(two) == 2
        first, second = (_place(two.image(i), all_of_them) for i in range(2))
        assert first < second

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_images_are_the_same_each_time(self, make: MakeDataset, split: Split) -> None:
        assert np.array_equal(make(split, 2).image(1), make(split, 2).image(1))

    def test_images_differ(self, make: MakeDataset) -> None:
        dataset = make("val", 2)

        assert not np.array_equal(dataset.image(0), dataset.image(1))

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_identity_is_json_and_stays(self, make: MakeDataset, split: Split) -> None:
        identity = make(split, 2).identity()

        assert json.loads(json.dumps(identity)) == identity == make(split, 2).identity()

    def test_identity_tells_splits_and_counts_apart(self, make: MakeDataset) -> None:
        identities = [make(*which).identity() for which in (("val", 2), ("val", 1), ("train", 2))]

        assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


class BackboneContract:
    """What every backbone must do; inherit from it, and supply a `backbone` fixture.

    If the text tower knows few words, supply `prompts` too: two different ones.
    """

    @pytest.fixture
    def prompts(self) -> list[str]:
        """Two prompts that the text tower knows."""
        return ["a photo of a car.", "a photo of a tree."]

    @pytest.mark.parametrize("grid_hw", [(2, 2), (2, 3), (3, 2)])
    def test_features_lie_on_the_grid_height_then_width(
        self, backbone: Backbone, grid_hw: tuple[int, int]
    ) -> None:
        with torch.no_grad():
            features = backbone.features(images(backbone, grid_hw, 2))

        assert features.shape == (2, backbone.sizes.channels, *grid_hw)
        assert torch.isfinite(features).all()

    def test_grid_of_any_image_is_the_one_that_is_stated(self, backbone: Backbone) -> None:
        image_hw = (3 * backbone.sizes.patch_px - 1, 2 * backbone.sizes.patch_px + 1)

        with torch.no_grad():
            features = backbone.features(torch.zeros(1, 3, *image_hw))

        assert features.shape[-2:] == backbone.sizes.grid_hw(image_hw)

    def test_a_patch_changes_the_features_of_its_own_place_most(self, backbone: Backbone) -> None:
        patch_px = backbone.sizes.patch_px
        image = images(backbone, (4, 5), 1)
        changed = image.clone()
        changed[:, :, :patch_px, 4 * patch_px :] += 1  # upper right

        with torch.no_grad():
            change = (backbone.features(changed) - backbone.features(image)).norm(dim=1)

        assert change.flatten().argmax() == 4

    def test_images_of_a_batch_do_not_touch_each_other(self, backbone: Backbone) -> None:
        batch = images(backbone, (2, 3), 2)

        with torch.no_grad():
            together, alone = backbone.features(batch)[1:], backbone.features(batch[1:])

        assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4)

    def test_it_is_ready_to_evaluate_in_float32(self, backbone: Backbone) -> None:
        assert not backbone.visual.training
        assert {parameter.dtype for parameter in backbone.visual.parameters()} == {torch.float32}
        assert len(backbone.mean) == len(backbone.std) == 3

    def test_prompts_are_embedded_where_the_features_are(
        self, backbone: Backbone, prompts: list[str]
    ) -> None:
        embeddings = backbone.encode_text([*prompts, prompts[0]])

        assert embeddings.shape == (3, backbone.sizes.channels)
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-4)
        assert torch.allclose(embeddings[0], embeddings[2], atol=1e-5)
        assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)
        assert not embeddings.requires_grad

    def test_parts_are_parameters_of_the_image_tower(self, backbone: Backbone) -> None:
        parts, own = backbone.parts(), set(map(id, backbone.visual.parameters()))

        assert len(parts.blocks) == len(parts.attention) == len(parts.mlp) == backbone.sizes.depth
        for block, attention, mlp in zip(parts.blocks, parts.attention, parts.mlp, strict=True):
            assert set(map(id, [*attention, *mlp])) <= set(map(id, block)) <= own
            assert not set(map(id, attention)) & set(map(id, mlp))
        assert set(map(id, parts.position_embedding + parts.patch_embedding)) <= own

    def test_gradient_reaches_every_block_and_no_text(self, backbone: Backbone) -> None:
        backbone.features(images(backbone, (2, 3), 1)).square().mean().backward()  # type: ignore[no-untyped-call]

        for index, block in enumerate(backbone.parts().blocks):
            gradients = [parameter.grad for parameter in block if parameter.grad is not None]
            assert any(gradient.abs().sum() > 0 for gradient in gradients), f"block {index}"

    def test_weights_of_a_student_can_be_put_in(self, backbone: Backbone) -> None:
        image = images(backbone, (2, 3), 1)
        state = {name: value.clone() for name, value in backbone.visual.state_dict().items()}
        with torch.no_grad():
            before = backbone.features(image)
            for parameter in backbone.visual.parameters():
                parameter.mul_(1.1)
            scaled = backbone.features(image)
            backbone.load_visual(state)
            after = backbone.features(image)

        assert not torch.allclose(scaled, before, atol=1e-4)
        assert torch.equal(after, before)

    def test_weights_with_other_names_are_refused(self, backbone: Backbone) -> None:
        state = dict(backbone.visual.state_dict())
        state.pop(next(iter(state)))

        with pytest.raises((RuntimeError, KeyError, ValueError)):
            backbone.load_visual(state)


class RefinerContract:
    """What every refiner must do; inherit from it, and supply a `refiner` fixture.

    If it needs features of a certain number of channels, supply `channels` too.
    """

    @pytest.fixture
    def channels(self) -> int:
        """Channels of the features."""
        return 6

    @pytest.mark.parametrize("grid_hw", [(3, 5), (4, 2)])
    def test_features_keep_their_channels(
        self, refiner: object, channels: int, grid_hw: tuple[int, int]
    ) -> None:
        if not isinstance(refiner, RefinesFeatures):
            pytest.skip("it refines no features")
        guidance, out_hw = guidance_of(grid_hw)
        maps = torch.randn(channels, *grid_hw, generator=torch.Generator().manual_seed(0))

        refined = refiner.features(maps, guidance, out_hw)

        assert (refined.ndim, len(refined)) == (3, channels)
        assert refined.isfinite().all()

    @pytest.mark.parametrize("grid_hw", [(3, 5), (4, 2)])
    def test_scores_keep_their_queries_with_and_without_features(
        self, refiner: object, channels: int, grid_hw: tuple[int, int]
    ) -> None:
        if not isinstance(refiner, RefinesScores):
            pytest.skip("it refines no scores")
        guidance, out_hw = guidance_of(grid_hw)
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(channels, *grid_hw, generator=generator)
        scores = 2 * torch.rand(7, *grid_hw, generator=generator) - 1

        is_needed = constant(Path(inspect.getfile(type(refiner))), "NEEDS_FEATURES")
        for features in (maps,) if is_needed else (maps, None):
            refined = refiner.scores(scores, features, guidance, out_hw)
            assert (refined.ndim, len(refined)) == (3, 7)
            assert refined.isfinite().all()

    def test_stated_cost_grows_with_the_image(self, refiner: object, channels: int) -> None:
        sizes = Sizes(
            patch_px=8, image_px=64, width=32, depth=2, heads=2, mlp_ratio=4.0, channels=channels,
            read_out="patch_tokens",
        )  # fmt: skip
        spec = PluginSpec(name=inspect.getfile(type(refiner)))
        small, large = (
            refining_flops(spec, sizes, image_hw, (64, 96), n_queries=7)
            for image_hw in ((24, 40), (48, 80))
        )
        if small is None or large is None:
            pytest.skip("it states no FLOPS")

        assert 0 <= small <= large


def guidance_of(grid_hw: tuple[int, int]) -> tuple[Guidance, tuple[int, int]]:
    """Draw pixels for a grid of patches of 8, and a size of labels that is not theirs."""
    image_hw = 8 * grid_hw[0], 8 * grid_hw[1]
    pixels = torch.randn(3, *image_hw, generator=torch.Generator().manual_seed(1))
    out_hw = image_hw[0] - 3, image_hw[1] - 1
    return Guidance(pixels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), out_hw


def images(backbone: Backbone, grid_hw: tuple[int, int], n_images: int) -> Tensor:
    """Draw normalised images `(B, 3, H, W)` of this many patches."""
    height, width = (n * backbone.sizes.patch_px for n in grid_hw)
    return torch.randn(n_images, 3, height, width, generator=torch.Generator().manual_seed(0))
