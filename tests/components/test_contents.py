"""Files of weights that are broken, unreadable, links, or not what open_clip reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import display_name, identity, weights_of
from spar_bench.components.weights import require_whole
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec
from tests.components.data_files import LAION
from tests.components.hub import in_hub_cache, nowhere

__all__ = ["nowhere"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("w.safetensors", b"", "is empty, cut off or of another kind; get it again"),
        ("w.pt", b"PK\x03\x04 and no more", "is empty, cut off or of another kind; get it again"),
    ],
)
def test_a_file_that_is_plainly_no_weights_is_refused_before_loading(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(NotReady, match=told):
        identity(BackboneSpec(name=LAION, path=str(tmp_path / name)))


def test_a_file_that_open_clip_does_not_read_beside_a_config_is_refused(
    tmp_path: Path, clip: Path
) -> None:
    shutil.copy(clip / "open_clip_config.json", tmp_path)
    torch.save(load_file(clip / "open_clip_model.safetensors"), tmp_path / "epoch_1.pt")

    with pytest.raises(NotReady, match=r"but epoch_1\.pt is not; rename it to end in \.pth"):
        identity(BackboneSpec(path=str(tmp_path)))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"visual.proj": Trap()}, tmp_path / "trap.pt")

    with pytest.raises(NotReady, match="must be weights that open_clip reads") as caught:
        OpenClip(BackboneSpec(name=LAION, path=str(tmp_path / "trap.pt")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_cache_whose_blob_is_gone_is_not_found(tmp_path: Path, tiny: str, clip: Path) -> None:
    cached = in_hub_cache(tmp_path / "hub", "someone/tiny", clip)
    path = cached / "open_clip_model.safetensors"
    path.unlink()
    path.symlink_to("../../blobs/gone")

    with pytest.raises(NotReady) as caught:
        weights_of(BackboneSpec(name=tiny))

    assert str(caught.value) == (
        f"{path}: must be a file of the Hugging Face cache, but the file that it links to is "
        "missing; `hf download someone/tiny` gets it again"
    )


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_link_to_nothing_is_one_line(tmp_path: Path, tiny: str, clip: Path, ending: str) -> None:
    folder = shutil.copytree(clip, tmp_path / "linked")
    path = folder / f"open_clip_model{ending}"
    (folder / "open_clip_model.safetensors").unlink()
    path.symlink_to("gone")

    with pytest.raises(NotReady) as caught:
        identity(BackboneSpec(name=tiny, path=str(folder)))

    assert str(caught.value) == (
        f"{path}: must be readable, but cannot be read (No such file or directory); check its "
        "permissions, or get it again"
    )


@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_file_that_must_not_be_read_is_one_line(
    clip: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == f".{ending}":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    opened = Path.open
    spec = BackboneSpec(name="openclip", path=str(clip))
    identity(spec)
    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(NotReady, match="Permission denied") as caught:
        identity(spec)

    assert "\n" not in str(caught.value)


def test_a_link_to_a_file_without_an_ending_is_that_file(clip: Path, tmp_path: Path) -> None:
    blob, link = tmp_path / "blobs" / "01ee", tmp_path / "weights.safetensors"
    blob.parent.mkdir()
    folder = shutil.copytree(clip, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").rename(blob)
    link.symlink_to(blob)
    (folder / "open_clip_model.safetensors").symlink_to(blob)

    require_whole(weights_of(BackboneSpec(name="openclip", path=str(link))).files[0])

    assert display_name(BackboneSpec(name="openclip", path=str(link))) == "weights"
    assert list(identity(BackboneSpec(path=str(folder))).files) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
