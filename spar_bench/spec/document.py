"""Read a YAML file as plain values, and remember the line and column of every key and value."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from spar_bench.errors import SpecError
from spar_bench.validation import MAX_MISTAKES, Raw, Steps, dotted, is_text, show

MAX_BYTES = 1 << 18
MAX_NODES, MAX_LEVELS = 50_000, 50  # nested aliases can make a small file huge
MAX_CHARACTERS = 1 << 20  # as can variables
_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\})?")
_TAG = "tag:yaml.org,2002:"
_TEXTS = {_TAG + kind for kind in ("str", "timestamp", "value", "merge")}
"""Tags of what stays text: YAML reads 2024-01-01 as a date."""


class Position(NamedTuple):
    """A position in a file, both counted from 1."""

    line: int
    column: int


START = Position(1, 1)


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: where it is, the dotted key it is about (or none), and what is wrong."""

    position: Position
    key: str
    text: str

    def line(self, path: Path) -> str:
        """Return `file:line:column: key: text`."""
        key = f"{self.key}: " if self.key else ""
        return f"{path}:{self.position.line}:{self.position.column}: {key}{self.text}"


def refuse(path: Path, problems: list[Problem]) -> None:
    """Raise SpecError with one line per distinct mistake, in file order, if there are any."""
    if problems:
        shown = sorted(set(problems))[:MAX_MISTAKES]
        raise SpecError(*(problem.line(path) for problem in shown))


@dataclass(frozen=True)
class Document:
    """A file's values, the position of each key and value, and what could not be read."""

    path: Path
    text: str
    data: Raw = field(default_factory=dict)
    keys: dict[Steps, Position] = field(default_factory=dict)
    values: dict[Steps, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def position_of_value(self, steps: Steps) -> Position:
        """Return a value's position; if it is not in the file, that of the nearest part that is."""
        while steps not in self.values and steps:
            steps = steps[:-1]
        return self.values.get(steps, START)

    def position_of_key(self, steps: Steps) -> Position:
        """Return a key's position; for an item of a list, its value's."""
        return self.keys.get(steps) or self.position_of_value(steps)


def read_document(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a YAML file whose top level is a mapping, and fill in `${NAME}` and `${NAME:-default}`.

    Raises:
        SpecError: the file cannot be read, or is not UTF-8, YAML or a mapping; other mistakes are
            among the document's problems.
    """
    return parse_document(path, _read_text(path), environ)


def parse_document(path: Path, text: str, environ: Mapping[str, str]) -> Document:
    """Return the text of a YAML file as `read_document` does; `path` names it in mistakes.

    Raises:
        SpecError: the text is not YAML or not a mapping.
    """
    root = _compose(path, text)
    if not isinstance(root, MappingNode):
        kinds = {SequenceNode: "a list", ScalarNode: "a single value", NoneType: "nothing"}
        kind = kinds[type(root)]
        text = f"must be a mapping of keys to values, but got {kind}; `spar-bench init` writes one"
        raise SpecError(Problem(START, "", text).line(path))
    document = Document(path, text)
    try:
        document.data.update(_Reader(document, environ).value(root, ()) or {})
    except _TooLarge as error:
        raise SpecError(Problem(START, "", str(error)).line(path)) from None
    return document


def _read_text(path: Path) -> str:
    if not is_text(str(path)):
        raise SpecError(f"{show(str(path))}: must have a name in UTF-8, but has not; rename it")
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
        position = _position_at(raw[: error.start].decode("utf-8-sig"), error.start)
        text = f"must be UTF-8 text, but got byte 0x{raw[error.start]:02x}; save the file as UTF-8"
        raise SpecError(Problem(position, "", text).line(path)) from None


def _position_at(text: str, offset: int) -> Position:
    before = text[:offset]
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _compose(path: Path, text: str) -> Node | None:
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
        return node
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = START
        if isinstance(mark, StringMark):
            position = Position(mark.line + 1, mark.column + 1)
        reason = " ".join(str(error.problem or error.context).split()).removeprefix("but ")
        is_variable = "${" in "".join(text.splitlines()[position.line - 1 : position.line])
        change = 'write "${NAME}" in quotes' if is_variable else "check the colons and quotes here"
        problem = Problem(position, "", f"must be YAML, but {reason}; {change}")
    except ReaderError as error:
        reason = f"must be YAML, but got the control character {chr(error.character)!r}; delete it"
        problem = Problem(_position_at(text, error.position), "", reason)
    except RecursionError:
        problem = Problem(START, "", "must be YAML with few levels, but got too many; flatten it")
    except (AssertionError, ValueError, OverflowError):  # a version, or an escape like \U99999999
        text = "must be YAML 1.2, but has a directive or an escape that is not; delete it"
        problem = Problem(START, "", text)
    raise SpecError(problem.line(path))


class _TooLarge(Exception):
    """Aliases or variables make a small file a large one."""


class _Reader:
    """Turns nodes into plain values; records mistakes in the document."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._n_nodes = 0
        self._n_characters = 0

    def value(self, node: Node, steps: Steps) -> Any:
        """Return the plain value of a node, and record its position."""
        position = _position(node)
        if isinstance(node, MappingNode) or node.value == "":
            # Use the key's position: the node's own may be on a later line.
            position = self._document.keys.get(steps, position)
        self._document.values[steps] = position
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES or len(steps) > MAX_LEVELS:
            raise _TooLarge("must be a page of text, but its aliases make it endless; write the "
                            "values out")  # fmt: skip
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, steps)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item, (*steps, i)) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _TEXTS:
            return self._text(str(node.value), position, steps)
        if isinstance(node, ScalarNode) and node.tag in _SCALARS:
            parse, rule, change = _SCALARS[node.tag]
            try:
                return parse(str(node.value))
            except (ValueError, KeyError):
                return self._note(
                    position, steps, f"must be {rule}, but got {show(node.value)}; {change}"
                )
        tag = show(str(node.tag).replace(_TAG, "!!")).strip("'")
        text = f"must be a plain value, but got the tag {tag}; remove the tag"
        return self._note(position, steps, text)

    def _mapping(self, node: MappingNode, steps: Steps) -> Raw:
        values: Raw = {}
        for key_node, value_node in node.value:
            position, key = _position(key_node), str(key_node.value)
            inner = (*steps, key)
            if not isinstance(key_node, ScalarNode):
                text = "must have text as keys, but got a list or mapping; quote it"
                self._note(position, steps, text)
            elif key_node.tag == f"{_TAG}merge":
                text = "must have no merge keys, but got <<; write its keys out"
                self._note(position, steps, text)
            elif not is_text(key):
                self._note(position, inner, f"must be UTF-8 without NUL, but got {show(key)}; "
                                            "rename it")  # fmt: skip
            elif key in values:
                first = self._document.keys[inner].line
                text = f"must be given once, but got it again (first on line {first}); keep one"
                self._note(position, inner, text)
            else:
                self._document.keys[inner] = position
                values[key] = self.value(value_node, inner)
        return values

    def _text(self, text: str, position: Position, steps: Steps) -> str | None:
        """Return a text with its variables filled in."""

        def fill(match: re.Match[str]) -> str:
            name, has_default, default = match.groups()
            if name is None:
                mistake = (f"must be ${{NAME}} or ${{NAME:-default}}, but got {show(text)}; "
                           "close the brace")  # fmt: skip
            elif has_default:
                return self._counted(self._environ.get(name) or default or "")
            elif name in self._environ:
                return self._counted(self._environ[name])
            else:
                mistake = (f"must name a set environment variable, but got ${{{name}}}; set "
                           f"{name}, or write ${{{name}:-default}}")  # fmt: skip
            self._note(position, steps, mistake)
            return ""

        filled = _VARIABLE.sub(fill, self._counted(text))
        if is_text(filled):
            return filled
        text = f"must be UTF-8 without NUL, but got {show(filled)}; delete what is not"
        self._note(position, steps, text)
        return None

    def _counted(self, text: str) -> str:
        self._n_characters += len(text)
        if self._n_characters > MAX_CHARACTERS:
            raise _TooLarge(
                f"must have at most {MAX_CHARACTERS:,} characters with its variables and aliases "
                "filled in, but got more; shorten them"
            )
        return text

    def _note(self, position: Position, steps: Steps, text: str) -> None:
        self._document.problems.append(Problem(position, dotted(steps), text))


def _whole(text: str) -> int:
    return int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)


def _real(text: str) -> float:
    lower = text.lower()
    return float(lower.replace(".", "", 1) if lower.endswith((".inf", ".nan")) else lower)


_SCALARS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    f"{_TAG}int": (_whole, "a whole number", "write it as 12, or in quotes"),
    f"{_TAG}float": (_real, "a number", "write it as 1.0e-3, or in quotes"),
    f"{_TAG}bool": (
        lambda text: {"true": True, "false": False}[text.lower()],
        "true or false",
        "write one of them",
    ),
    f"{_TAG}null": (
        lambda text: {"": None, "~": None, "null": None}[text.lower()],
        "null",
        "leave it out",
    ),
}
"""How the scalars of YAML 1.2 are read: by tag, the parser, what it must be, and the way out."""


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
