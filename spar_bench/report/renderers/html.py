"""The page as one HTML file to explore, which asks the network for nothing.

Styles, scripts, drawings and data are in the file, and its Content-Security-Policy forbids all
else. All text is escaped; without scripts it is a plain page of tables and figures.
"""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined

from spar_bench.report import text
from spar_bench.report.page import Block, Chart, Figure, File, Heading, Page, Source, Table, Text

PAGE = "index.html"
FILES = {PAGE: "this page to explore: tables to sort and filter, and where each number comes from"}

_SCRIPTS = ("page.js", "tables.js", "chart.js", "origin.js")
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_WIDE_PT = 300
"""Width of a drawing from which it takes both columns of a paper."""


@dataclass
class Section:
    """What stands under a title: its id, and groups of blocks that are laid out alike."""

    id: str
    title: str = ""
    level: int = 2
    groups: list[tuple[str, list[Block]]] = field(default_factory=list)


def render(page: Page) -> dict[str, str]:
    """Return the page."""
    script = "\n".join(_read(name) for name in _SCRIPTS)
    template = _environment().get_template("page.html.jinja")
    sections = list(_sections(page.blocks))
    written = template.render(
        page=page,
        sections=sections,
        filtered=_filtered(sections),
        style=_read("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_json({"charts": list(map(_chart, _charts(page))), "origins": page.origins}),
    )
    return {PAGE: written}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spar_bench.report", "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.one_line(value) if type(value) is str else value,
    )
    environment.filters |= {
        "columns": _columns, "source": _source, "drawing": _drawing, "link": quote,
    }  # fmt: skip
    return environment


def _read(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None, "it was made with one"
    return environment.loader.get_source(environment, name)[0]


def _sections(blocks: Iterable[Block]) -> Iterator[Section]:
    """Split blocks where a title starts; what precedes the second one has the page's own."""
    section = Section("top", level=1)
    for kind, group in itertools.groupby(blocks, _kind):
        for found in [list(group)] if kind in ("remarks", "files") else [[each] for each in group]:
            block = found[0]
            if isinstance(block, Heading) and block.level == 1:
                section.title = block.text
            elif isinstance(block, Heading):
                yield section
                section = Section(_next_id(section), block.text, block.level)
            elif isinstance(block, Chart):
                yield section
                section = Section(_next_id(section), block.title, groups=[(kind, found)])
            else:
                section.groups.append((kind, found))
    yield section


def _filtered(sections: list[Section]) -> Section | Table | None:
    """Return what the filter stands before: a table, or the first of several sections of them."""
    found = [
        (section, block)
        for section in sections
        for _, blocks in section.groups
        for block in blocks
        if isinstance(block, Table) and "Method" in block.headers
    ]
    if not found:
        return None
    section, table = found[0]
    return section if any(other is not section for other, _ in found) else table


def _next_id(section: Section) -> str:
    number = 0 if section.id == "top" else int(section.id.removeprefix("section-"))
    return f"section-{number + 1}"


def _kind(block: Block) -> str:
    match block:
        case Text(role="remark"):
            return "remarks"
        case File():
            return "files"
        case Text():
            return block.role
    return type(block).__name__.lower()


def _charts(page: Page) -> list[Chart]:
    return [block for block in page.blocks if isinstance(block, Chart)]


def _chart(chart: Chart) -> dict[str, Any]:
    points = [asdict(point) | {"source": point.source._asdict()} for point in chart.points]
    return {"axes": [axis._asdict() for axis in chart.axes], "points": points}


def _columns(table: Table) -> list[tuple[str, str]]:
    """Return the header of each column, and the group it is in."""
    groups = [name for name, width in table.groups for _ in range(width)]
    return list(zip(table.headers, groups, strict=True))


def _source(source: Source) -> str:
    return f"{source.column}:{' '.join(map(str, source.rows))}"


def _json(value: Any) -> str:
    """Return JSON that ends no element, whatever text is in it."""
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    codes = {letter: f"\\u{ord(letter):04x}" for letter in "<>&"}
    return "".join(codes.get(letter, letter) for letter in written)


def _drawing(figure: Figure) -> str:
    """Return a figure's SVG as an element whose ids and styles are its own."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    prefix = ":".join(map(text.file_name, figure.name.split("/")))
    root = ElementTree.fromstring(figure.svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
        for name, value in parent.attrib.items():
            parent.set(name, _with_prefix(name, value, prefix))
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("class", "wide" if width > _WIDE_PT else "narrow")
    root.set("role", "img")
    root.set("aria-label", figure.name.replace("_", " "))  # the caption follows
    return ElementTree.tostring(root, encoding="unicode")


def _with_prefix(name: str, value: str, prefix: str) -> str:
    """Return an attribute in which ids, and references to them, start with `prefix`."""
    if name == "id":
        return f"{prefix}-{value}"
    if name in ("href", f"{{{_LINK}}}href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return re.sub(r"url\(#", f"url(#{prefix}-", value)
