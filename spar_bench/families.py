"""The families of plug-ins that `registry.py` finds."""

from typing import NamedTuple


class Family(NamedTuple):
    """What a module of a family defines, and what a plug-in of it is called.

    The settings of a plug-in are the parameters of `method`, if it is a class; without a method,
    the family has no settings.
    """

    attribute: str
    noun: str
    method: str | None = None


FAMILIES = {
    "backbones": Family("Backbone", "backbone"),
    "datasets": Family("Dataset", "data set"),
    "losses": Family("loss", "loss", "__init__"),
    "read_outs": Family("ReadOut", "read-out"),
    "refiners": Family("Refiner", "refiner", "__init__"),
    "stages": Family("Stage", "kind of stage", "probing"),
    "backends": Family("Backend", "backend"),
}
