"""The qualitative panel, the colours of classes and the joint PCA of features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_cie76, deltaE_ciede2000, rgb2lab
from sklearn.decomposition import PCA

from spar_bench.report import draw_panel, draw_pca
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.colors import class_colors
from spar_bench.report.figures import plan_figures
from spar_bench.report.pictures import panel_figure, pca_colors, pca_figure
from spar_bench.report.regions import Place, number_places
from spar_bench.report.style import house_style
from spar_bench.results import Preview
from tests.report.synthetic import (
    CLASSES,
    baseline,
    evaluations_of,
    preview_of,
    results_of,
    students,
    teacher,
)

READERS = {
    "trichromat": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as each sees it: Machado et al. 2009, severity 1.0."""


def test_a_panel_has_a_row_an_image_and_a_column_a_method() -> None:
    previews = {"single pass": preview_of(1), "SPAR": preview_of(2)}

    with house_style():
        figure = panel_figure(previews, CLASSES)

    assert len(figure.axes) == 3 * 4
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["image", "truth", "single pass", "SPAR"]
    shown = [axes.get_images()[0].get_array() for axes in figure.axes[:4]]
    np.testing.assert_array_equal(shown[0], previews["SPAR"].images[0])
    np.testing.assert_array_equal(
        shown[3], class_colors(len(CLASSES))[previews["SPAR"].predictions[0]]
    )


def test_a_panels_legend_names_the_classes_that_occur() -> None:
    labels = np.array([[0, 2, 255]], np.uint8)
    image = np.zeros((1, 3, 3), np.uint8)
    preview = Preview(["x"], [image], [labels], [np.zeros_like(labels)])

    with house_style():
        figure = panel_figure({"single pass": preview}, ["road", "sky", "c$t$", "dog"])

    (legend,) = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()] == [
        "0 road",
        r"2 c\$t\$",
        "ignored",
    ]


@pytest.mark.parametrize("n_methods", [1, 4])
def test_the_names_of_many_classes_stay_on_the_page_below_the_pictures(n_methods: int) -> None:
    labels = np.arange(150, dtype=np.uint8).reshape(10, 15)
    preview = Preview(["x"], [np.zeros((10, 15, 3), np.uint8)], [labels], [labels])
    classes = [f"a class of {'long ' * (i % 4)}name {i}" for i in range(150)]

    with house_style():
        figure = panel_figure({f"method {n}": preview for n in range(n_methods)}, classes)
        figure.draw_without_rendering()

    (legend,) = figure.legends
    names = [name.get_window_extent() for name in legend.get_texts()]
    assert len(names) == 150
    assert min(box.x0 for box in names) > 0
    assert max(box.x1 for box in names) < figure.bbox.width
    assert min(box.y0 for box in names) > 0
    assert max(box.y1 for box in names) < min(axes.bbox.y0 for axes in figure.axes)


def test_a_region_has_a_number_in_its_middle_where_there_is_room() -> None:
    labels = np.zeros((9, 20), np.uint8)
    labels[1:8, 2:9] = 3
    labels[2:7, 12:17] = 3
    labels[4, 18:] = 5
    labels[0] = 255

    places = number_places(labels, radius_px=3)

    assert places == [Place(4, 5, 3), Place(4, 14, 3)]


def test_pieces_of_a_label_have_their_own_numbers_and_narrow_ones_none() -> None:
    labels = np.full((40, 60), 7, np.uint8)
    labels[5:16, 30:41] = 2
    labels[16:27, 41:52] = 2  # touches the other at a corner only
    labels[30:34, 5:45] = 2

    places = number_places(labels, radius_px=4)

    assert [place for place in places if place.label == 2] == [Place(10, 35, 2), Place(21, 46, 2)]
    for radius_px, n in ((2.5, 2), (2, 3)):  # the third is four pixels wide
        assert [place.label for place in number_places(labels, radius_px)].count(2) == n


def test_title_of_a_column_is_whole_however_many_lines_it_takes() -> None:
    title = "SPAR mlp of last 2 blocks, cosine, learning rate = 0.0001, train 128–320 px"

    with house_style():
        figure = panel_figure({title: preview_of(1), **{n: preview_of(2) for n in "abcd"}}, CLASSES)
        figure.draw_without_rendering()

    written = figure.axes[2].get_title()
    assert written.split() == title.split()
    assert written.count("\n") >= 2
    box = figure.axes[2].title.get_window_extent()
    assert box.y1 <= figure.bbox.height
    assert box.y0 >= figure.axes[2].get_window_extent().y1


def test_panel_has_the_colours_of_image_truth_and_prediction_side_by_side(tmp_path: Path) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :] = (250, 20, 60)
    truth, prediction = np.zeros((30, 40), np.uint8), np.ones((30, 40), np.uint8)
    truth[:, 20:] = 255

    draw_panel(
        {"a": Preview(["x"], [image], [truth], [prediction])},
        ["road", "sky"],
        tmp_path / "panel.png",
    )

    with Image.open(tmp_path / "panel.png") as picture:
        drawn = np.asarray(picture.convert("RGB"))
    # Three columns of 1.7 inches and gaps of 0.05 at 200 dots an inch; the title above is a line.
    centres = [(0.05 + 1.75 * column + 1.7 / 4) * 200 for column in range(3)]
    y = round((0.135 + 0.05 + 1.7 * 30 / 40 / 4) * 200)
    left = [tuple(drawn[y, round(x)]) for x in centres]
    right = [tuple(drawn[y, round(x + 200 * 1.7 / 2)]) for x in centres]
    road, sky = (tuple(color) for color in class_colors(2)[:2])
    assert left == [(250, 20, 60), road, sky]
    assert right == [(250, 20, 60), (255, 255, 255), sky]


def test_numbers_stand_in_truth_and_predictions_but_not_in_the_image() -> None:
    labels = np.full((30, 40), 2, np.uint8)
    preview = Preview(["x"], [np.zeros((30, 40, 3), np.uint8)], [labels], [np.zeros_like(labels)])

    with house_style():
        figure = panel_figure({"single pass": preview}, ["road", "sky", "tree"])

    assert [[t.get_text() for t in axes.texts] for axes in figure.axes] == [[], ["2"], ["0"]]


def test_pictures_keep_their_shape_and_touch_no_other() -> None:
    with house_style():
        figure = panel_figure({"a": preview_of(1)}, CLASSES)
        figure.draw_without_rendering()

    for axes in figure.axes:
        height, width = np.asarray(axes.get_images()[0].get_array()).shape[:2]
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(height / width, rel=0.02)


def test_previews_of_different_images_are_refused(tmp_path: Path) -> None:
    first, other = preview_of(1), preview_of(2)
    other.names[0] = "another.png"

    with pytest.raises(ValueError, match="same images"):
        draw_panel({"a": first, "b": other}, CLASSES, tmp_path / "x.png")
    with pytest.raises(ValueError, match="got none"):
        draw_panel({}, CLASSES, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_drawing_writes_that_file_alone(tmp_path: Path) -> None:
    draw_panel({"a": preview_of(1)}, CLASSES, tmp_path / "panel.png")
    maps = {"a": np.random.default_rng(0).normal(size=(5, 3, 4))}
    draw_pca(np.zeros((30, 40, 3), np.uint8), maps, tmp_path / "pca.png")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["panel.png", "pca.png"]
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == round(200 * (3 * 1.75 + 0.05))


def test_a_class_in_a_script_the_font_lacks_does_not_stop_a_report(tmp_path: Path) -> None:
    draw_panel({"道": preview_of(1)}, ["道路"] * len(CLASSES), tmp_path / "panel.png")

    assert (tmp_path / "panel.png").stat().st_size > 1000


def test_colours_of_classes_differ_and_do_not_change_with_their_number() -> None:
    colors = class_colors(20)

    assert len(np.unique(colors[:20], axis=0)) == 20
    assert (colors[20:] == 255).all()
    np.testing.assert_array_equal(class_colors(5)[:5], colors[:5])


@pytest.mark.parametrize("reader", READERS)
def test_fourteen_colours_and_white_are_apart_for_every_reader(reader: str) -> None:
    colors = np.concatenate([class_colors(14)[:14], [[255, 255, 255]]]) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(READERS[reader]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)

    lab = rgb2lab(seen)

    pairs = ~np.eye(15, dtype=bool)
    assert deltaE_cie76(lab[:, None], lab[None])[pairs].min() > 17
    assert deltaE_ciede2000(lab[:, None], lab[None])[pairs].min() > 11


def test_pca_colours_are_those_of_the_joint_principal_components() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([5.0, 3, 2, 0.1, 0.1])[:, None, None]
    maps = [rng.normal(size=(5, 4, 6)) * scale, rng.normal(size=(5, 3, 2)) * scale]

    colored = pca_colors(maps)

    assert [picture.shape for picture in colored] == [(4, 6, 3), (3, 2, 3)]
    tokens = np.concatenate([values.reshape(5, -1).T for values in maps])
    expected = PCA(3).fit_transform(tokens)
    got = np.concatenate([picture.reshape(-1, 3) for picture in colored]).astype(float)
    for component in range(3):
        inside = (got[:, component] > 0) & (got[:, component] < 255)
        correlation = np.corrcoef(got[inside, component], expected[inside, component])[0, 1]
        assert abs(correlation) > 0.999


def test_features_are_drawn_beside_their_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    maps = {name: np.random.default_rng(1).normal(size=(5, 3, 4)) for name in ("teacher", "SPAR")}

    with house_style():
        figure = pca_figure(image, maps)

    assert [axes.get_title() for axes in figure.axes] == ["image", "teacher", "SPAR"]
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_array_equal(shown[2], pca_colors(list(maps.values()))[1])


def test_the_same_feature_has_the_same_colour_in_every_map() -> None:
    values = np.random.default_rng(1).normal(size=(8, 4, 6))

    whole, part = pca_colors([values, values[:, 1:, ::2]])

    np.testing.assert_array_equal(whole[1:, ::2], part)


@pytest.mark.parametrize("channels", [1, 2])
def test_features_of_few_channels_or_all_alike_can_be_drawn(channels: int) -> None:
    (picture,) = pca_colors([np.ones((channels, 3, 4))])

    assert picture.shape == (3, 4, 3)


def test_features_of_different_channels_are_refused(tmp_path: Path) -> None:
    maps = {"a": np.ones((4, 2, 3)), "b": np.ones((5, 2, 3))}

    with pytest.raises(ValueError, match="equally many channels"):
        draw_pca(np.zeros((20, 30, 3), np.uint8), maps, tmp_path / "pca.png")


def test_colours_fitted_to_one_map_are_its_principal_components_in_every_map() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([5.0, 3, 2, 0.1, 0.1])[:, None, None]
    teacher, other = rng.normal(size=(5, 4, 6)) * scale, rng.normal(size=(5, 3, 2)) * scale[::-1]

    colored = pca_colors([other, teacher], [teacher])

    fitted = PCA(3).fit(teacher.reshape(5, -1).T)
    signs = np.sign([part[np.abs(part).argmax()] for part in fitted.components_])
    for values, picture in zip((other, teacher), colored, strict=True):
        expected = fitted.transform(values.reshape(5, -1).T) * signs
        got = picture.reshape(-1, 3).astype(float)
        for component in range(3):
            inside = (got[:, component] > 0) & (got[:, component] < 255)
            slope = np.polyfit(expected[inside, component], got[inside, component], 1)
            drawn = np.clip(np.polyval(slope, expected[:, component]), 0, 255)
            np.testing.assert_allclose(got[:, component], drawn, atol=1.5)
    np.testing.assert_array_equal(colored[1], pca_colors([teacher])[0])


def test_a_report_shows_features_in_the_colours_of_the_teachers() -> None:
    results = results_of([baseline(38), teacher(16, 44), teacher(12, 46), *students("all", 42)])
    evaluations = evaluations_of(results)
    plans = plan_figures(results, read_aggregates(results), evaluations)
    plan = next(plan for plan in plans if plan.name == "pca")

    with house_style():
        figure = plan.draw()

    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["image", "single pass", "teacher s = 12", "SPAR all"]
    keys = ("pretrained", "teacher12", "student_all_0")
    maps = [evaluations.all_features[key] for key in keys]
    expected = pca_colors(maps, [maps[1]])
    for axes, picture in zip(figure.axes[1:], expected, strict=True):
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), picture)


def test_features_of_another_backbone_are_in_no_ones_colours() -> None:
    results = results_of([baseline(38, backbone="other"), teacher(12, 46), *students("all", 42)])
    plans = plan_figures(results, read_aggregates(results), evaluations_of(results))

    with house_style():
        figure = next(plan for plan in plans if plan.name == "pca").draw()

    assert [axes.get_title() for axes in figure.axes] == ["image", "teacher s = 12", "SPAR all"]


def test_without_the_teachers_features_the_colours_are_those_of_all_others() -> None:
    results = results_of([baseline(38), teacher(12, 46), *students("all", 42)])
    evaluations = evaluations_of(results)
    maps = {key: evaluations.all_features[key] for key in ("pretrained", "student_all_0")}
    plans = plan_figures(results, read_aggregates(results), replace(evaluations, all_features=maps))
    plan = next(plan for plan in plans if plan.name == "pca")

    with house_style():
        figure = plan.draw()

    assert [axes.get_title() for axes in figure.axes] == ["image", "single pass", "SPAR all"]
    expected = pca_colors(list(maps.values()))[1]
    np.testing.assert_array_equal(figure.axes[2].get_images()[0].get_array(), expected)
    assert "components of all of them" in plan.caption
