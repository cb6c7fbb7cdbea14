"""A kind of stage that makes nothing, for tests of whatever holds and moves stages."""

from typing import Any, ClassVar

from spar_bench.stages import base


class Settings(base.Settings):
    """Two values."""

    seed: int = 0
    scale: float = 0.1


class Summary(base.Summary):
    """One number."""

    n: int = 3


class Stage(base.Stage):
    """A toy."""

    kind: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    maker: ClassVar[str] = "tests.toy:make"

    settings: Settings


def toy(inputs: dict[str, str] | None = None, **settings: Any) -> Stage:
    """Return a toy with these settings."""
    return Stage(settings=Settings(**settings), inputs=inputs or {})
