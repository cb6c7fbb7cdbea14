"""Names in any script: drawn in a font that has their letters, else reported in one line."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from spar_bench.report import fonts, write
from spar_bench.report.style import house_style, new_figure
from tests.report.synthetic import CLASSES, baseline, evaluations_of, results_of


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Install a font that has one letter, 猫, and return its name."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 900))
    pen.lineTo((900, 0))
    pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord("猫"): "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "One Cat", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    font.setupPost()
    font.save(tmp_path / "cat.ttf")
    listed = list(font_manager.fontManager.ttflist)
    ours = [font for font in listed if "DejaVu" in font.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", ours)
    font_manager.fontManager.addfont(tmp_path / "cat.ttf")
    fonts._lacking.cache_clear()
    yield "One Cat"
    fonts._lacking.cache_clear()


def test_letters_that_another_font_has_are_drawn_with_it(installed: str) -> None:
    assert fonts.families(["cat"]) == [fonts.FONT]
    assert fonts.families(["cat", "猫"]) == [fonts.FONT, installed]

    with house_style(["猫"]):
        warnings.simplefilter("error")
        figure = new_figure(1, 1)
        figure.text(0, 0, "cat 猫")
        figure.draw_without_rendering()


def test_names_that_no_font_has_the_letters_of_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "_others", list)  # whatever is installed here
    classes = ["猫", "\U0001f436 dog", *CLASSES[2:]]
    rows = [baseline(38, dataset="größe")]

    usual = results_of(rows)
    results = replace(usual, classes=dict.fromkeys(usual.classes, classes))
    write(results, evaluations_of(results), tmp_path / "odd")
    write(usual, evaluations_of(results), tmp_path / "usual")

    [told] = [record.message for record in caplog.records]
    assert told.startswith("stride: names in figures must be in letters of an installed font")
    assert "instead: 猫, \U0001f436 dog; install" in told


def test_many_names_are_cut_short() -> None:
    assert "have boxes instead: 0, 1, 2, 3, 4, 5 and 4 more; install" in fonts.warning(
        [str(number) for number in range(10)]
    )
