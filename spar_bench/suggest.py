"""Suggest the known name that a misspelt one may stand for."""

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN_NAMES = 12
"""How many known names are listed if none is near: a sweep may have thousands of trials."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like a misspelt one, or None if none is like it."""
    return next(iter(get_close_matches(name, list(known), n=1)), None)


def did_you_mean(*names: str) -> str:
    """Ask whether one of some names was meant: `did you mean 'a' or 'b'?`."""
    return f"did you mean {' or '.join(map(repr, names))}?"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error's line: the name that may have been meant, else the known ones."""
    names = sorted(known)
    closest = nearest(name, names)
    if closest is not None:
        return did_you_mean(closest)
    more = f" or {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"use one of {', '.join(names[:SHOWN_NAMES])}{more}" if names else "there are none"
