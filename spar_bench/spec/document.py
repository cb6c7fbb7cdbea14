"""Read a YAML file as plain values, and remember the line and column of every key and value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from spar_bench.errors import SpecError

Steps = tuple[str | int, ...]
"""The path to a value in a file: the keys and indices that lead to it."""

MAX_BYTES = 1 << 18
MAX_NODES = 50_000  # nested aliases can make a small file huge
_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\})?")
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_DATE = "tag:yaml.org,2002:timestamp"  # YAML reads 2024-01-01 as a date; here it stays text


class Place(NamedTuple):
    """A position in a file, both counted from 1."""

    line: int
    column: int


START = Place(1, 1)


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, the dotted key it is about (or none), and what is wrong."""

    place: Place
    key: str
    text: str

    def line(self, path: Path) -> str:
        """Return `file:line:column: key: text`."""
        key = f"{self.key}: " if self.key else ""
        return f"{path}:{self.place.line}:{self.place.column}: {key}{self.text}"


def refuse(path: Path, problems: list[Problem]) -> None:
    """Raise SpecError with one line per distinct mistake, in file order, if there are any."""
    if problems:
        raise SpecError(*(problem.line(path) for problem in sorted(set(problems), key=_order)))


def _order(problem: Problem) -> tuple[Place, str, str]:
    return problem.place, problem.key, problem.text


@dataclass(frozen=True)
class Document:
    """A file's values, the position of each key and value, and what could not be read."""

    path: Path
    text: str
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[Steps, Place] = field(default_factory=dict)
    values: dict[Steps, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place_of_value(self, steps: Steps) -> Place:
        """Return a value's position; if it is not in the file, that of the nearest part that is."""
        while steps not in self.values and steps:
            steps = steps[:-1]
        return self.values.get(steps, START)

    def place_of_key(self, steps: Steps) -> Place:
        """Return a key's position; for an item of a list, its value's."""
        return self.keys.get(steps) or self.place_of_value(steps)


def dotted(steps: Steps) -> str:
    """Write steps as in `evaluate.datasets[0].name`, in one line for any keys."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." * bool(text) + (step if step.isprintable() else repr(step))
    return text


def read_document(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a YAML file whose top level is a mapping, and fill in `${NAME}` and `${NAME:-default}`.

    Raises:
        SpecError: the file cannot be read, or is not UTF-8, YAML or a mapping; other mistakes are
            among the document's problems.
    """
    text = _read_text(path)
    root = _compose(path, text)
    if not isinstance(root, MappingNode):
        kinds = {SequenceNode: "a list", ScalarNode: "a single value", NoneType: "nothing"}
        found = kinds[type(root)]
        text = f"must be a mapping of keys to values, but got {found}; `spar-bench init` writes one"
        raise SpecError(Problem(START, "", text).line(path))
    document = Document(path, text)
    try:
        document.data.update(_Reader(document, environ).value(root, ()))
    except _Endless:
        text = "must be a page of text, but its aliases make it endless; write the values out"
        raise SpecError(Problem(START, "", text).line(path)) from None
    return document


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        text = "must be a YAML file, but got a directory; name a file in it"
    except FileNotFoundError:
        text = "must be a YAML file, but got no such file; check the path"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"must be readable, but got {reason!r}; check the path and its permissions"
    else:
        if len(raw) <= MAX_BYTES:
            return _decode(path, raw)
        text = "must be at most 256 KiB, but got more; a spec is a page of text"
    raise SpecError(f"{path}: {text}")


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_at(raw[: error.start].decode("utf-8-sig"), error.start)
        text = f"must be UTF-8 text, but got byte 0x{raw[error.start]:02x}; save the file as UTF-8"
        raise SpecError(Problem(place, "", text).line(path)) from None


def _place_at(text: str, offset: int) -> Place:
    before = text[:offset]
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _compose(path: Path, text: str) -> Node | None:
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
        return node
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if isinstance(mark, StringMark) else START
        found = " ".join(str(error.problem or error.context).split()).removeprefix("but ")
        is_variable = "${" in "".join(text.splitlines()[place.line - 1 : place.line])
        way_out = 'write "${NAME}" in quotes' if is_variable else "check the colons and quotes here"
        text = f"must be YAML, but {found}; {way_out}"
        problem = Problem(place, "", text)
    except ReaderError as error:
        found = f"must be YAML, but got the control character {chr(error.character)!r}; delete it"
        problem = Problem(_place_at(text, error.position), "", found)
    except RecursionError:
        problem = Problem(START, "", "must be YAML with few levels, but got too many; flatten it")
    raise SpecError(problem.line(path))


class _Endless(Exception):
    """Aliases repeat themselves endlessly, or nearly so."""


class _Reader:
    """Turns nodes into plain values; records mistakes in the document."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._n_nodes = 0

    def value(self, node: Node, steps: Steps) -> Any:
        """Return the plain value of a node, and record its position."""
        place = _place(node)
        if isinstance(node, MappingNode) or node.value == "":
            # Use the key's position: the node's own may be on a later line.
            place = self.document.keys.get(steps, place)
        self.document.values[steps] = place
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES or len(steps) > 50:
            raise _Endless
        if isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, steps)
        if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*steps, i)) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _SCALARS | {_DATE}:
            return self._scalar(node, place, steps)
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        text = f"must be a plain value, but got the tag {tag}; remove the tag"
        self.document.problems.append(Problem(place, dotted(steps), text))
        return None

    def _mapping(self, node: MappingNode, steps: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = _place(key_node)
            if not isinstance(key_node, ScalarNode):
                text = "must have text as keys, but got a list or mapping; quote it"
                self.document.problems.append(Problem(place, dotted(steps), text))
                continue
            key = str(key_node.value)
            inner = (*steps, key)
            if key in found:
                first = self.document.keys[inner].line
                text = f"must be given once, but got it again (first on line {first}); keep one"
                self.document.problems.append(Problem(place, dotted(inner), text))
                continue
            self.document.keys[inner] = place
            found[key] = self.value(value_node, inner)
        return found

    def _scalar(self, node: ScalarNode, place: Place, steps: Steps) -> Any:
        if node.tag not in ("tag:yaml.org,2002:str", _DATE):
            return self._constructor.construct_object(node)

        def fill(match: re.Match[str]) -> str:
            name, has_default, default = match.groups()
            if name is None:
                text = (f"must be ${{NAME}} or ${{NAME:-default}}, but got {node.value!r}; "
                        "close the brace")  # fmt: skip
            elif has_default:
                return self.environ.get(name) or default or ""
            elif name in self.environ:
                return self.environ[name]
            else:
                text = (f"must name a set environment variable, but got ${{{name}}}; "
                        f"set {name}, or write ${{{name}:-default}}")  # fmt: skip
            self.document.problems.append(Problem(place, dotted(steps), text))
            return ""

        return _VARIABLE.sub(fill, str(node.value))


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
