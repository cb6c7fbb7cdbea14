"""Find the known name nearest to a misspelt one."""

from collections.abc import Collection
from difflib import get_close_matches


def nearest(name: str, known: Collection[str]) -> str:
    """Return the end of a mistake's line: `did you mean 'x'?`, or else the known names."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"use one of {', '.join(sorted(known))}" if known else "there are none"
