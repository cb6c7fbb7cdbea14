"""What data files state: the paper's protocol and classes, and mistakes in a user's own."""

import re
from pathlib import Path
from typing import Any

import pytest

from spar_bench import datasets, registry
from spar_bench.datasets._facts import Facts
from spar_bench.errors import DataError, SparBenchError
from spar_bench.resolve import open_dataset
from spar_bench.spec.schema import DatasetSpec
from tests.datasets.trees import LABELLED, make


def facts(name: str) -> Facts:
    return datasets.facts(DatasetSpec(name=name, path="anywhere"))


# For each: classes, queries, short and long side, logit scale, thresholds of MaskCLIP, of others.
# Typed from the paper's released configs, not from the data files.
PROTOCOL = {
    "voc21": (21, 56, 672, 2048, 65, (0.1, 0.1), (0, 0)),
    "voc20": (20, 30, 672, 2048, 40, (0, 0), (0, 0)),
    "context60": (60, 60, 672, 2048, 50, (0.1, 0), (0.1, 0)),
    "context59": (59, 59, 672, 2048, 40, (0, 0), (0, 0)),
    "ade20k": (150, 150, 672, 2048, 40, (0, 0), (0, 0)),
    "cityscapes": (19, 19, 1024, 2048, 40, (0, 0), (0, 0)),
}


@pytest.mark.parametrize("name", LABELLED)
def test_protocol_is_the_papers(name: str) -> None:
    found = facts(name)

    assert found.classes is not None
    assert (
        len(found.classes),
        sum(map(len, found.classes)),
        found.short_side_px,
        found.long_side_px,
        found.logit_scale,
        found.thresholds("maskclip"),
        found.thresholds("attention_pool_values"),
    ) == PROTOCOL[name]


def test_classes_are_in_the_order_of_the_labels() -> None:
    names = {name: [names[0] for names in facts(name).classes or []] for name in LABELLED}

    assert names["voc21"][1:] == names["voc20"]
    assert names["context60"][1:] == names["context59"]
    assert names["context60"][0] == "background"
    assert (names["ade20k"][0], names["ade20k"][149]) == ("wall", "flag")
    assert names["cityscapes"].index("rider") == 12
    assert (facts("voc21").classes or [])[20] == [
        "television monitor", "tv monitor", "monitor", "television", "screen"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "first"),
    [("voc21", "background"), ("context60", "background"), ("voc20", "aeroplane"),
     ("context59", "aeroplane"), ("ade20k", "wall"), ("cityscapes", "road")],
)  # fmt: skip
def test_tables_call_class_0_background_where_it_is_one(name: str, first: str) -> None:
    found = facts(name)
    classes = found.classes or []

    shown = found.shown(classes)

    assert shown == [first, *(names[0] for names in classes[1:])]


def test_background_is_what_the_spec_says_it_is() -> None:
    voc21, ade20k = facts("voc21"), facts("ade20k")

    assert voc21.shown([["sky"], ["boat"]], 0.0) == ["sky", "boat"]
    assert ade20k.shown([["wall"], ["boat"]], 0.4) == ["background", "boat"]
    assert voc21.shown([["sky"], ["background"]]) == ["sky", "background"]


@pytest.mark.parametrize("name", [*LABELLED, "sa1b"])
def test_data_file_says_where_to_get_it_and_what_it_looks_like(name: str) -> None:
    found = facts(name)

    assert found.source.startswith("http")
    assert found.license
    stated = registry.data_file("datasets", name)
    assert stated is not None
    _, _, after = stated.read_text(encoding="utf-8").partition("# The files that it expects:\n")
    assert len([line for line in after.split("\n\n")[0].splitlines() if line[:3] == "#  "]) > 2


@pytest.mark.parametrize("name", LABELLED)
def test_documentation_has_the_figures_of_the_data_file(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    _, _, images, classes, protocol, license, source, _ = (cell.strip() for cell in row.split("|"))
    found = facts(name)

    assert images == ", ".join(str(found.files[split]["n_images"]) for split in ("val", "train"))
    n_named = int(re.split(r"\W", classes)[0]) + classes.endswith("and background")
    assert n_named == len(found.classes or [])
    assert protocol == f"{found.short_side_px}, {found.logit_scale:g}"
    assert license == found.license
    assert f"({found.source})" in source


@pytest.mark.parametrize("name", ["folder", "patchwork"])
def test_data_set_without_a_data_file_is_neutral(name: str) -> None:
    found = facts(name)

    assert (found.short_side_px, found.long_side_px, found.logit_scale) == (256, None, None)
    assert found.thresholds("maskclip") == (0, 0)
    assert found.classes is None


def test_threshold_that_a_read_out_leaves_out_is_the_data_sets() -> None:
    found = Facts.model_validate(
        {"background_threshold": 0.2, "by_read_out": {"maskclip": {"area_threshold": 0.3}}}
    )

    assert found.thresholds("maskclip") == (0.2, 0.3)
    assert found.thresholds("patch_tokens") == (0.2, 0)


def mine(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logit_scal: 3", "logit_scal: must be a known key, but got 'logit_scal'; did you mean "
         "'logit_scale'?"),
        ("by_read_out: {maskclip: {area: 1}}", "by_read_out.maskclip.area: must be a known key"),
        ("by_read_out: {mask_clip: {area_threshold: 0.1}}", "by_read_out.mask_clip: must be "
         r"a known name, but got 'mask_clip'; did you mean 'maskclip'\?$"),
        ("by_read_out: {mask_clip: }", "by_read_out.mask_clip: must be a known name"),
        ("by_read_out: {maskclip: }", "maskclip: must be a mapping of keys to values, but "
         "got nothing"),
        ("classes: [[a], [b, a]]", "classes: must have each name once, but got 'a' again"),
        ("logit_scale: true", "logit_scale: must be a number, but got true"),
        ("area_threshold: true", "area_threshold: must be a number, but got true"),
        ("short_side_px: 300\nlong_side_px: 299", r"long_side_px: must not be below short_side_px "
         r"\(300\), but got 299"),
        ("long_side_px: 255", r"long_side_px: must not be below short_side_px \(256\)"),
        ("short_side_px: -1", "short_side_px: must be above 0, but got -1; raise it"),
        ("area_threshold: 2", "area_threshold: must be at most 1, but got 2; lower it"),
        ("classes: [[]]", r"classes\[0\]: must hold at least 1, but got \[\]"),
        ("classes: [[a], [b]]\nfiles: {vall: {}}", "vall: must be a known key, but got 'vall'; did "
         "you mean 'val'?"),
        ("classes: [[a]]\nfiles: {val: {image: '{name}.jpg'}}", "val.image: must be a known key"),
        ("files: {val: {images: a.jpg}}", "val.images: must be a path in the tree with one"),
        ("files: {val: {images: '/{name}'}}", "val.images: must be a path in the tree with one"),
        ("files: {val: {images: '{name}', masks: [{files: '{name}', labels: zero}]}}",
         r"masks\[0\].labels: must be as_stored, reduce_zero or a map .*, but got 'zero'"),
        ("files: {val: {images: '{name}', masks: [{files: '{name}', labels: {}}]}}",
         r"masks\[0\].labels: must be as_stored, reduce_zero or a map .*, but got a mapping"),
        ("files: {val: {images: '{name}', masks: [{files: '{name}', labels: {0: 0, 7: x}}]}}",
         r"masks\[0\].labels: must map whole numbers to labels, but got 7: 'x'; correct it"),
        ("files: {train: {images: '{name}'}}", "have data to evaluate on, but .* no val images"),
        ("files: {val: {images: '{name}'}}", "must have data to evaluate on, but .* no masks"),
        ("classes: [[a]]\nfiles: {val: {images: '{name}', masks: [{files: '{name}', labels: "
         "{7: 1}}]}}", "must map 0 to 255 to the 1 classes or 255, but has 7: 1"),
    ],
)  # fmt: skip
def test_mistake_in_a_data_file_is_told_by_its_key(tmp_path: Path, text: str, said: str) -> None:
    name = mine(tmp_path, f"plugin: tree\n{text}\n")

    with pytest.raises(DataError, match=said) as caught:
        open_dataset(DatasetSpec(name=name, path=str(tmp_path)), "val")

    assert all(name in line for line in str(caught.value).splitlines())
    assert "dict[" not in str(caught.value)


def test_long_side_may_be_the_short_one() -> None:
    assert Facts(short_side_px=300, long_side_px=300).long_side_px == 300


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    name = mine(tmp_path, "plugin: tree\nlogit_scal: 3\nshort_side_px: 0\n")

    with pytest.raises(DataError) as caught:
        facts(name)

    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("plugin", ["folder", "patchwork"])
def test_files_that_a_plug_in_would_not_look_at_are_refused(tmp_path: Path, plugin: str) -> None:
    name = mine(tmp_path, f"plugin: {plugin}\nfiles: {{looked_for: [a]}}\n")

    with pytest.raises(DataError, match="must be given only with plugin: tree, but plugin is"):
        open_dataset(DatasetSpec(name=name, path=str(tmp_path)), "val")


def test_data_file_gives_a_folder_of_ones_own_its_classes_and_protocol(tmp_path: Path) -> None:
    name = mine(tmp_path, "plugin: folder\nclasses: [[sky, heaven], [road]]\nlogit_scale: 30\n")
    root = make("ade20k", tmp_path, n=2)
    (root / "images" / "validation").rename(tmp_path / "val_images")
    (root / "annotations" / "validation").rename(tmp_path / "val_masks")

    dataset = open_dataset(DatasetSpec(name=name, path=str(tmp_path)), "val")

    assert dataset.classes == [["sky", "heaven"], ["road"]]
    assert (len(dataset), facts(name).logit_scale) == (2, 30)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "plugin: nothing\n",
            "plugin: must name one of folder, patchwork, tree, but got 'nothing'",
        ),
        ("license: mine\n", "plugin: must name one of"),
        ("- plugin\n", "must map keys to values"),
        ("plugin: tree\n7: 3\n", "must map keys to values"),
        ("plugin: [", "must be readable YAML"),
        ("plugin: [tree]\n", r"plugin: must name one of .*, but got \['tree'\]; correct it"),
        ("plugin: {tree: 1}\n", "plugin: must name one of "),
        ("plugin: tree\nlicense: 2020-99-99\n", "must be readable YAML, but is not: month must be"),
        ("plugin: tree\nlicense: !!bool mine\n", "must be readable YAML, but is not: 'mine'"),
        ("plugin: tree\nlicense: !!int\n", "must be readable YAML, but is not: string index"),
        ("%YAML 1.3\n---\nplugin: tree\n", "must be readable YAML, but is not: version minor"),
        (f"plugin: {'[' * 2000}\n", "must be readable YAML, but is not: maximum recursion"),
    ],
)
def test_file_that_is_no_data_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SparBenchError, match=said) as caught:
        facts(mine(tmp_path, text))

    assert len(str(caught.value).splitlines()) == 1


def test_reader_of_trees_is_no_data_set_by_itself() -> None:
    assert "tree" not in registry.names("datasets")


def test_value_of_any_kind_is_shown_in_one_short_line(tmp_path: Path) -> None:
    values: dict[str, Any] = {"license": "[" + "a, " * 200 + "b]", "files": "7"}
    for key, value in values.items():
        with pytest.raises(DataError) as caught:
            facts(mine(tmp_path, f"plugin: tree\n{key}: {value}\n"))

        assert len(str(caught.value)) < len(str(tmp_path)) + 200
