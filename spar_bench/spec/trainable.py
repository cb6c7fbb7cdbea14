"""The names of what a student trains: `all`, an embedding, or a part of the last n blocks."""

import re
from dataclasses import dataclass
from typing import Literal

PATTERN = (
    r"^(all|position_embedding|patch_embedding|((attention|mlp)_of_)?last_[1-9][0-9]*_blocks)$"
)


@dataclass(frozen=True)
class Trainable:
    """A part of the backbone; `n_blocks` is 0 if it does not count last blocks."""

    part: Literal["all", "position_embedding", "patch_embedding", "blocks", "attention", "mlp"]
    n_blocks: int = 0


def parse_trainable(name: str) -> Trainable:
    """Read a name that matches PATTERN, which the schema holds specs to.

    Raises:
        ValueError: the name does not match.
    """
    match = re.fullmatch(r"(?:(attention|mlp)_of_)?last_([1-9][0-9]*)_blocks", name)
    if match:
        part = match[1] or "blocks"
        return Trainable(part, int(match[2]))  # type: ignore[arg-type]  # the pattern's own words
    if re.fullmatch(PATTERN, name) is None:
        raise ValueError(f"student.trainable must match {PATTERN}, but got {name!r}")
    return Trainable(name)  # type: ignore[arg-type]  # the pattern's own words
