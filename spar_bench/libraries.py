"""The libraries that results depend on, and their installed versions."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("torch", "open_clip_torch", "timm", "numpy", "spar-bench")
"""Libraries in manifests: their code may affect numbers."""
INSTALLED_WITH_US = (
    *("torch", "torchvision", "open_clip_torch", "timm", "mlflow", "optuna", "pandas"),
    *("seaborn", "numpy", "safetensors", "pydantic"),
)
"""Libraries that `spar-bench doctor` lists."""


@cache
def installed_version(name: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed.

    We are not ourselves where the package runs from a checkout.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None
