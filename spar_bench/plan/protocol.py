"""The evaluation protocol: what affects mIoU besides model, inference and images.

A setting is taken from the spec's data set; else from the spec's settings for all data sets; else
from the data file; else it is the default. A protocol is declared with thresholds for every
read-out, as in a data file, and resolved for one: tables name the declared protocol, so that the
rows of several backbones have one protocol, and fingerprints contain the resolved one.
"""

from typing import Any, NamedTuple

from spar_bench.datasets._facts import Facts
from spar_bench.plan.stages import resized_hw
from spar_bench.spec.schema import DatasetSpec, EvaluateSpec
from spar_bench.stage import Stage, digest

LOGIT_SCALE = 40.0
"""Factor on cosines if neither spec nor data file states one. Source: SPAR's configs."""
_THRESHOLDS = ("background_threshold", "area_threshold")
_NAME_LENGTH = 8


class Resize(NamedTuple):
    """The size at which images are read: their short side, and the limit of the long side."""

    short_side_px: int
    long_side_px: int | None = None

    @classmethod
    def of_stage(cls, evaluate: Stage) -> "Resize":
        """Return how an `evaluate` stage reads its images."""
        settings = evaluate.settings
        return cls(settings["short_side_px"], settings["protocol"]["long_side_px"])

    def of(self, image_hw: tuple[int, ...]) -> tuple[int, int]:
        """Return the size that an image of this shape is resized to."""
        return resized_hw((image_hw[0], image_hw[1]), *self, half_up=True)


def resizes(evaluate: EvaluateSpec, own: Facts) -> list[Resize]:
    """Return the resolutions that a data set is evaluated at: each number, and its own rule.

    A number equal to the data set's own rule counts once; `check` refuses those that differ from it
    only in the cap.
    """
    rule = Resize(own.short_side_px, own.long_side_px)
    found = [rule if one == "own" else Resize(one) for one in evaluate.short_side_px]
    return list(dict.fromkeys(found))


def declare(
    evaluate: EvaluateSpec,
    spec: DatasetSpec,
    own: Facts,
    *,
    classes: list[list[str]],
    resize: Resize,
) -> dict[str, Any]:
    """Return a protocol as spec and data file state it, for every read-out, as JSON."""
    stated = {name: getattr(spec, name) for name in _THRESHOLDS if getattr(spec, name) is not None}
    usual = {name: getattr(own, name) for name in _THRESHOLDS} | stated
    by_read_out = {}
    for read_out in sorted(own.by_read_out):
        here = own.thresholds(read_out)._asdict() | stated
        if here != usual:
            by_read_out[read_out] = here
    return {
        "classes": classes,
        "templates": spec.templates or evaluate.templates,
        "logit_scale": _logit_scale(evaluate, spec, own),
        **usual,
        "by_read_out": by_read_out,
        "resize": evaluate.resize,
        "long_side_px": resize.long_side_px,
        "precision": evaluate.precision,
        "unreadable": evaluate.unreadable,
    }


def resolve(
    declared: dict[str, Any], read_out: str, *, interpolation: str = "bilinear"
) -> dict[str, Any]:
    """Resolve a declared protocol for a backbone with one read-out.

    `interpolation` is that of the backbone's own preprocessing. Classes are left out, since an
    evaluation has them separately.
    """
    shared = {key: v for key, v in declared.items() if key not in ("by_read_out", "classes")}
    here: dict[str, float] = declared["by_read_out"].get(read_out, {})
    resize = interpolation if declared["resize"] == "model" else declared["resize"]
    return shared | here | {"resize": resize}


def protocol_name(declared: dict[str, Any]) -> str:
    """Return a short name of a declared protocol: equal names mean equal protocols."""
    return digest(declared)[:_NAME_LENGTH]


def _logit_scale(evaluate: EvaluateSpec, spec: DatasetSpec, own: Facts) -> float:
    stated = (spec.logit_scale, evaluate.logit_scale, own.logit_scale)
    return next((scale for scale in stated if scale is not None), LOGIT_SCALE)
