"""The libraries that results rest on, and which versions of them are installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("torch", "open_clip_torch", "timm", "numpy", "spar-bench")
"""Those that a manifest names: their code may move a number."""
INSTALLED_WITH_US = (
    *("torch", "torchvision", "open_clip_torch", "timm", "mlflow", "optuna", "pandas"),
    *("seaborn", "numpy", "safetensors", "pydantic"),
)
"""Those that `spar-bench doctor` lists."""


@cache
def installed_version(name: str) -> str | None:
    """Return the version of a distribution, or None where it is not installed.

    We are not ourselves where the package runs from a checkout.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None
