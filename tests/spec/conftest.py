"""Specs written by a test, read with plug-ins and backbones that no release changes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spar_bench import registry
from spar_bench.conflicts import read_spec
from spar_bench.errors import SpecError
from spar_bench.spec import LoadedSpec

PLUGINS = {
    "backbones": ["openclip", "patchwork"],
    "datasets": ["folder", "patchwork"],
    "losses": ["cosine", "l1", "mse", "normalized_mse", "smooth_l1"],
    "read_outs": ["maskclip", "patch_tokens"],
    "refiners": ["none"],
    "stages": [],
}
CLIP_CONFIG = """{"model_cfg": {"embed_dim": 64, "vision_cfg":
    {"image_size": 64, "layers": 5, "width": 64, "head_width": 32, "patch_size": 8}}}"""

Read = Callable[..., LoadedSpec]
Problems = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that has a backbone of patch 8, image 64 and depth 5 in `clip/`."""
    monkeypatch.setattr(registry, "names", PLUGINS.__getitem__)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/open_clip_config.json").write_text(CLIP_CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Read:
    """Write a text to `spec.yaml` and read it."""

    def read(text: str, **environ: str) -> LoadedSpec:
        Path("spec.yaml").write_text(text, encoding="utf-8")
        return read_spec(Path("spec.yaml"), environ=environ)

    return read


@pytest.fixture
def problems(read: Read) -> Problems:
    """Read a text that has mistakes, and return the lines that report them."""

    def problems(text: str, **environ: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            read(text, **environ)
        assert str(caught.value).splitlines() == list(caught.value.problems)
        return list(caught.value.problems)

    return problems
