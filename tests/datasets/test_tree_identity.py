"""What the identity of a published data set consists of, and what does not change it."""

from pathlib import Path

import numpy as np
import pytest

from spar_bench import registry
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import DatasetSpec
from tests.datasets import trees
from tests.datasets.trees import edited, make, read, write_list, write_palette


def test_identity_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    before = read("val", "voc21", make("voc21", tmp_path / "a")).identity()

    after = read("val", "voc21", make("voc21", tmp_path / "b")).identity()

    assert after == before


def test_identity_is_that_of_the_plug_in_whatever_the_data_file_is_called(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    mine = edited("voc21", tmp_path / "mine.yaml", "logit_scale: 65", "logit_scale: 40")
    specs = [DatasetSpec(name=name, path=str(root)) for name in ("voc21", str(mine))]

    identities = [Resolver().dataset(spec).identity for spec in specs]

    assert identities[0] == identities[1]
    assert identities[0]["plugin"] == registry.identity("datasets", "tree").model_dump()


@pytest.mark.parametrize("change", ["image", "mask", "list", "classes", "labels", "count"])
def test_identity_changes_with_whatever_is_used(tmp_path: Path, change: str) -> None:
    root, name, count = make("voc21", tmp_path), "voc21", None
    before = read("val", name, root).identity()
    if change == "image":
        trees.write_photograph(root / "JPEGImages" / "2008_000000.jpg", trees.HW, seed=99)
    elif change == "mask":
        write_palette(root / "SegmentationClass" / "2008_000000.png", np.zeros(trees.HW, np.uint8))
    elif change == "list":
        write_list(root / "ImageSets/Segmentation/val.txt", ["2008_000000", "2008_000001"])
    elif change == "classes":
        name = str(edited("voc21", tmp_path / "a.yaml", "[ship]", "[boat]"))
    elif change == "labels":
        new = f"labels: {{255: 255, {', '.join(f'{v}: {v}' for v in range(21))}}}"
        name = str(edited("voc21", tmp_path / "a.yaml", "labels: as_stored", new))
    else:
        count = 2

    after = read("val", name, root, count=count).identity()

    assert after != before


def test_identity_leaves_out_what_is_not_used(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    before = read("val", "voc21", root).identity()

    trees.write_photograph(root / "JPEGImages" / "2012_004331.jpg", trees.HW, seed=99)
    names = root / "ImageSets" / "Segmentation" / "val.txt"
    names.write_text(names.read_text() + "\n")

    assert read("val", "voc21", root).identity() == before
