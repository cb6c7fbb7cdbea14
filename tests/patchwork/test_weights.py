"""The shipped weights: small, with the shapes that open_clip expects, and with known words."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from spar_bench.patchwork import weights
from spar_bench.patchwork.classes import CLASSES

CONFIG = json.loads((weights.MODEL / "open_clip_config.json").read_text())["model_cfg"]


def test_weights_are_at_most_5_mb() -> None:
    assert (weights.MODEL / weights.WEIGHTS_FILE).stat().st_size < 5e6


def test_open_clip_takes_them_whole() -> None:
    model = open_clip.model.CLIP(**CONFIG)

    model.load_state_dict(weights.load_state_dict(), strict=True)

    assert all(weight.isfinite().all() for weight in model.parameters())
    assert model.token_embedding.weight.shape == (49408, 64)


def test_rows_of_the_token_table_come_back_where_they_were(tmp_path: Path) -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    state = {"token_embedding.weight": table, "logit_bias": torch.tensor(-3.0)}

    weights.save_state_dict(state, torch.tensor([7, 49407]), tmp_path)

    loaded = weights.load_state_dict(tmp_path)
    full = loaded["token_embedding.weight"]
    assert full.dtype == torch.float32
    assert full.shape == (49408, 2)
    assert full[[7, 49407]].tolist() == table.tolist()
    assert full.count_nonzero() == 4
    assert loaded["logit_bias"].item() == -3.0
    assert [path.name for path in tmp_path.iterdir()] == [weights.WEIGHTS_FILE]


@pytest.mark.parametrize("name", [name for names in CLASSES for name in names])
def test_every_name_is_known_in_every_template(name: str) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{weights.MODEL}")

    prompts = [fill(name) for fill in open_clip.OPENAI_IMAGENET_TEMPLATES]

    assert weights.unknown_tokens(tokenizer(prompts)) == []


def test_word_that_was_never_taught_is_found() -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{weights.MODEL}")

    unknown = weights.unknown_tokens(tokenizer(["a photo of a zebra.", "a photo of a heart."]))

    assert unknown == tokenizer.encode("zebra")


def test_prompts_fit_the_context_with_room_to_spare() -> None:
    longest = max(int((prompts != 0).sum(dim=1).max()) for prompts in weights.taught_prompts())

    assert longest < CONFIG["text_cfg"]["context_length"]
