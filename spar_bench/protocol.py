"""The evaluation protocol: what affects mIoU besides model, inference and images.

A setting is taken from the spec's data set; else from the spec's settings for all data sets; else
from the data file; else it is the default. A protocol is declared with thresholds for every
read-out, as in a data file, and resolved for one: tables name the declared protocol, so that the
rows of several backbones have one protocol, and fingerprints contain the resolved one.
"""

from functools import cached_property

from pydantic import Field

from spar_bench.datasets._facts import Facts
from spar_bench.inference import Resize
from spar_bench.spec.schema import ClassifierSpec, DatasetSpec, EvaluateSpec
from spar_bench.stage import digest
from spar_bench.validation import Part
from spar_bench.values import Precision, Templates

LOGIT_SCALE = 40.0
"""Factor on cosines if neither spec nor data file states one. Source: SPAR's configs."""
_NAME_LENGTH = 8


class Thresholds(Part):
    """The thresholds for a class to count; 0 disables one."""

    background_threshold: float
    area_threshold: float


class Protocol(Thresholds):
    """A protocol resolved for one backbone; `resize` is how images are resampled.

    `templates` is None with a linear probe, which has no prompts.
    """

    templates: Templates | None
    logit_scale: float
    resize: str
    long_side_px: int | None
    precision: Precision
    unreadable: str


class DeclaredProtocol(Protocol):
    """A protocol as spec and data file state it; `by_read_out` has the read-outs that differ.

    `classifier` is how a linear probe is trained, None with class names.
    """

    classes: list[list[str]]
    by_read_out: dict[str, Thresholds]
    classifier: ClassifierSpec | None = Field(None, exclude_if=lambda probe: probe is None)

    @cached_property
    def name(self) -> str:
        """A short name: equal names mean equal protocols."""
        return digest(self.model_dump(mode="json"))[:_NAME_LENGTH]

    def resolved(self, read_out: str, *, interpolation: str = "bilinear") -> Protocol:
        """Resolve for a backbone with one read-out, whose own preprocessing resamples so.

        Classes are left out, since an evaluation has them separately.
        """
        shared = self.model_dump(exclude={"classes", "by_read_out", "classifier"})
        if self.resize == "model":
            shared["resize"] = interpolation
        thresholds = self.by_read_out.get(read_out)
        return Protocol(**shared | (thresholds.model_dump() if thresholds else {}))


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
) -> DeclaredProtocol:
    """Return a protocol as spec and data file state it, for every read-out."""
    probe = evaluate.classifier if evaluate.classifier.is_linear else None
    usual = thresholds_of(evaluate, spec, own, "")
    by_read_out = {
        name: thresholds_of(evaluate, spec, own, name) for name in sorted(own.by_read_out)
    }
    return DeclaredProtocol(
        classes=classes,
        classifier=probe,
        templates=None if probe else spec.templates or evaluate.templates,
        logit_scale=1.0 if probe else _logit_scale(evaluate, spec, own),
        **usual.model_dump(),
        by_read_out={name: here for name, here in by_read_out.items() if here != usual},
        resize=evaluate.resize,
        long_side_px=resize.long_side_px,
        precision=evaluate.precision,
        unreadable=evaluate.unreadable,
    )


def thresholds_of(
    evaluate: EvaluateSpec, spec: DatasetSpec, own: Facts, read_out: str
) -> Thresholds:
    """Return the thresholds for a read-out: the spec's, else the data file's.

    Those of a data file make up for what class names cannot say, so a linear probe has none.
    """
    stated = {
        name: value
        for name in Thresholds.model_fields
        if (value := getattr(spec, name)) is not None
    }
    usual = dict.fromkeys(Thresholds.model_fields, 0.0)
    if not evaluate.classifier.is_linear:
        usual = own.thresholds(read_out)._asdict()
    return Thresholds(**usual | stated)


def _logit_scale(evaluate: EvaluateSpec, spec: DatasetSpec, own: Facts) -> float:
    stated = (spec.logit_scale, evaluate.logit_scale, own.logit_scale)
    return next((scale for scale in stated if scale is not None), LOGIT_SCALE)
