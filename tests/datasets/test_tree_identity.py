"""What the identity of a published data set consists of, and what does not change it."""

from pathlib import Path

import pytest

from spar_bench import registry
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import DatasetSpec
from tests.datasets.trees import edited, make, read, write_list


def test_identity_is_that_of_the_plug_in_whatever_the_data_file_is_called(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    mine = edited("voc21", tmp_path / "mine.yaml", "logit_scale: 65", "logit_scale: 40")
    specs = [DatasetSpec(name=name, path=str(root)) for name in ("voc21", str(mine))]

    identities = [Resolver().dataset(spec).identity for spec in specs]

    assert identities[0] == identities[1]
    assert identities[0]["plugin"] == registry.identity("datasets", "tree").model_dump()


@pytest.mark.parametrize("change", ["list", "classes", "labels"])
def test_identity_changes_with_what_only_a_tree_has(tmp_path: Path, change: str) -> None:
    root, name = make("voc21", tmp_path), "voc21"
    before = read("val", name, root).identity()
    if change == "list":
        write_list(root / "ImageSets/Segmentation/val.txt", ["2008_000000", "2008_000001"])
    elif change == "classes":
        name = str(edited("voc21", tmp_path / "a.yaml", "[ship]", "[boat]"))
    else:
        new = f"labels: {{255: 255, {', '.join(f'{v}: {v}' for v in range(21))}}}"
        name = str(edited("voc21", tmp_path / "a.yaml", "labels: as_stored", new))

    after = read("val", name, root).identity()

    assert after != before
