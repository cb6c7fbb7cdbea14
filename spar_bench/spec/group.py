"""Name a point of a sweep: readable, unique in its experiment, and safe as a file name."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spar_bench import stage
from spar_bench.registry import display_name
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import Settings

MAX_LENGTH = 120


def digest(model: BaseModel) -> str:
    """Return the SHA-256 of a model's content, in hexadecimal."""
    return stage.digest(model.model_dump(mode="json"))


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Map each key to its last part if that is unique, and `backbone.name` to `backbone`."""
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    shared = Counter(short.values())
    return {key: name if shared[name] == 1 else key for key, name in short.items()}


def name(values: dict[str, object], short: dict[str, str]) -> tuple[str, bool]:
    """Return `stride_px=28,loss=mse`, and whether it is complete: long values are shortened."""
    if not values:
        return "base", True
    written = {key: _write(key, value) for key, value in values.items()}
    text = ",".join(f"{short[key]}={value}" for key, (value, _) in written.items())
    is_exact = all(exact for _, exact in written.values()) and len(text) <= MAX_LENGTH
    return text[:MAX_LENGTH], is_exact


def unique(names: Sequence[str], settings: Sequence[Settings]) -> list[str]:
    """Distinguish equal names by four or more digits of the settings' hash."""
    counts = Counter(names)
    digests = [
        digest(point) if counts[name] > 1 else ""
        for name, point in zip(names, settings, strict=True)
    ]
    for n_digits in (4, 8, 64):
        distinct = [
            f"{name}~{key[:n_digits]}" if key else name
            for name, key in zip(names, digests, strict=True)
        ]
        if len(set(distinct)) == len(distinct):
            break
    return distinct


def _write(key: str, value: Any) -> tuple[str, bool]:
    """Return a value as a part of a file name, and whether it is complete."""
    if isinstance(value, float):
        text = f"{value:.4g}"
        return text, float(text) == value
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value], True
    if isinstance(value, list | tuple):
        parts = [_write(key, item) for item in value]
        return "-".join(text for text, _ in parts), all(exact for _, exact in parts)
    if isinstance(value, PluginSpec):
        return _safe(display_name(value.name)), not value.settings
    if isinstance(value, BaseModel):
        named = [getattr(value, field, None) for field in ("label", "path", "name")]
        return _safe(Path(display_name(next(filter(None, named), ""))).name), False
    text = Path(value).name if key.endswith(".path") else display_name(str(value))
    return _safe(text), _safe(text) == str(value)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)
