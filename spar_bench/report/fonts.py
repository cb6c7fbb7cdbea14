"""Find installed fonts for letters that the font of figures lacks, such as Chinese ones."""

from collections.abc import Iterable
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from spar_bench.report import text

FONT = "DejaVu Sans"
_PLACEHOLDERS = "Last Resort"  # it comes with matplotlib and has a box for every letter
_NORMAL = (400, "normal", "regular", "book")
_MOST_NAMES = 6


def families(names: Iterable[str]) -> list[str]:
    """Return the fonts that `names` are drawn with: ours, then as few others as have the rest."""
    lacking = _lacking(_letters(names), FONT)
    found = [FONT]
    while lacking:
        left = {family: _lacking(lacking, family) for family in _others()}
        best = min(left, key=lambda family: len(left[family]), default=FONT)
        if best == FONT or left[best] == lacking:
            break
        found.append(best)
        lacking = left[best]
    return found


def without_letters(names: Iterable[str]) -> list[str]:
    """Return the names with a letter that no installed font has, so that a box stands for it."""
    known = list(dict.fromkeys(map(text.one_line, names)))
    lacking = _letters(known)
    for family in families(known):
        lacking = _lacking(lacking, family)
    return [name for name in known if lacking & set(name)]


def warning(names: list[str]) -> str:
    """Return the line about names whose letters no installed font has."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        "names in figures must be in letters of an installed font, but these are not, and have "
        f"boxes instead: {', '.join(names[:_MOST_NAMES])}{more}; install a font that has them, "
        "such as Noto Sans CJK"
    )


def _letters(names: Iterable[str]) -> frozenset[str]:
    return frozenset("".join(map(text.one_line, names)))


def _others() -> list[str]:
    """Return the other families with an upright font of normal weight, sorted."""
    fonts = font_manager.fontManager.ttflist
    upright = {font.name for font in fonts if font.style == "normal" and font.weight in _NORMAL}
    return sorted(name for name in upright - {FONT} if not name.startswith(_PLACEHOLDERS))


@lru_cache(maxsize=4096)
def _lacking(letters: frozenset[str], family: str) -> frozenset[str]:
    font = _font(family)
    if font is None:
        return letters
    return frozenset(letter for letter in letters if not font.get_char_index(ord(letter)))


def _font(family: str) -> FT2Font | None:
    """Open the font that matplotlib draws a family with, None if it cannot draw it."""
    try:
        font = FT2Font(font_manager.findfont(family, fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # emoji may be pictures, which have no outline
        return None
    return font if font.scalable else None
