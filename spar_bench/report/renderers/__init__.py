"""Renderers of a page, one module each: found by their files, or as entry points.

A renderer is a module with a function `render`, which returns the text of each file that it writes,
and `FILES`, those that the page links: what each is, by name. One in another package is an entry
point of the group `spar_bench.renderers`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol, cast

from spar_bench.report.page import Page


class Renderer(Protocol):
    """Turns a page into the text of files."""

    FILES: Mapping[str, str]

    def render(self, page: Page) -> Mapping[str, str]:
        """Return text by file name."""
        ...


def renderers() -> list[Renderer]:
    """Return all renderers, those of this package first."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    names += sorted(entry.module for entry in entry_points(group="spar_bench.renderers"))
    return [cast(Renderer, importlib.import_module(name)) for name in names]
