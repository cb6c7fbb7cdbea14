"""The contract of a kind of stage: what decides it, what it is made from, what it will take.

A kind is a module of this folder, or of an entry point in `spar_bench.stages`, with a class
`Stage`. It is named by its file or its entry point, as its `kind` repeats, and states a `VERSION`,
increased when its numbers or files change. The fingerprint of a kind of another package contains
the SHA-256 of its modules, too.

A kind that a spec may ask for, a probe (`evaluate.probes`), has a further class method

    def probing(cls, evaluation: evaluate.Stage, *, epochs: int = 5) -> "Stage"

which returns what is made beside an evaluation: it may take settings, places and inputs from it, or
have it as an input. Its keyword-only parameters are the settings that a spec may give. The numbers
of its summary are those of the evaluation's row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, JsonValue

from spar_bench import registry
from spar_bench.errors import FilesChanged, SparBenchError
from spar_bench.modules import digests
from spar_bench.stage import digest
from spar_bench.validation import Part
from spar_bench.values import Precision

if TYPE_CHECKING:
    from spar_bench.resolve import Resolver

MOST_PARTS = 64
"""Parts into which the images of a stage that has a helper are divided."""

Identity = dict[str, JsonValue]
"""What stands for files or plug-ins in a fingerprint: their checksums and versions, as JSON."""


class Settings(Part):
    """What decides a stage, closed under JSON: its canonical JSON is hashed."""


class Places(Part):
    """Where a stage's maker finds files, and what an estimate needs: carried, but not hashed."""


class Summary(Part):
    """A stage's summary of its result, kept in its manifest."""


@dataclass(frozen=True)
class Estimate:
    """Work and size of a stage; `n_windows` is per image, 1 without a sliding window.

    `seconds` is how long it takes on any device, 0 if its arithmetic decides that.
    """

    gflops: float
    n_bytes: int
    n_windows: int = 1
    seconds: float = 0.0


class Stage(Part):
    """A piece of work, decided entirely by its kind, version, settings and inputs.

    `inputs` maps a role to the fingerprint of the stage that fills it. `maker` is the dotted name
    of a function `(stages, context) -> list[Summary | Exception]`, one for each stage; `helper`,
    if there is one, of a function `(stages, context) -> None` that does parts of what another
    process makes. `alone` says that nothing else may run on the machine meanwhile, `joint` that
    several processes may make it together (`run/distributed.py`).
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    maker: ClassVar[str]
    helper: ClassVar[str] = ""
    alone: ClassVar[bool] = False
    joint: ClassVar[bool] = False

    settings: Settings
    inputs: dict[str, str] = Field({})
    places: Places = Places()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the stage, as 64 hex digits."""
        settings = self.settings.model_dump(mode="json")
        sources = _sources(type(self).__module__, self.maker.partition(":")[0])
        outside = [sources] if sources else []
        return digest([self.kind, self.version, settings, self.inputs, *outside])

    @cached_property
    def batch_key(self) -> str:
        """A key that stages share if they are made together; by default each is made alone."""
        return self.fingerprint

    @property
    def precision(self) -> Precision:
        """The precision of most of its arithmetic."""
        return "float32"

    @property
    def divisible(self) -> bool:
        """Whether a batch may be divided among devices: by default not, since it shares work."""
        return False

    @property
    def title(self) -> str:
        """What the stage is, in a few words for a reader."""
        return self.kind

    def estimate(self, stages: Mapping[str, "Stage"]) -> Estimate:
        """Return the work and size from closed forms; `stages` are those of the plan."""
        raise NotImplementedError

    def bytes_read(self, stages: Mapping[str, "Stage"]) -> int:
        """Return the bytes of other stages that it reads; `stages` are those of the plan."""
        read = [stages[key] for key in self.inputs.values() if key in stages]
        return sum(one.estimate(stages).n_bytes for one in read)

    def gflops_of_batch(self, batch: Sequence["Stage"], stages: Mapping[str, "Stage"]) -> float:
        """Return the work of stages of one `batch_key`, in 1e9 FLOPs, if they are made together."""
        return sum(stage.estimate(stages).gflops for stage in batch)

    def identities(self, resolver: "Resolver") -> Mapping[str, Any]:
        """Return the settings that stand for files, as `resolver` finds them now."""
        return {}

    def require_unchanged(self, resolver: "Resolver") -> None:
        """Look again at the weights and images that the fingerprint stands for.

        Raises:
            FilesChanged: they have changed since the plan was made.
            SparBenchError: they cannot be read.
        """
        for name, identity in self.identities(resolver).items():
            if identity != getattr(self.settings, name):
                raise FilesChanged(
                    f"{name}: its files must not change while a sweep runs, but have changed "
                    f"since the {self.kind} was planned; run the same command again"
                )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the stage as JSON, for another process to make it."""
        stated = {"kind": self.kind, "version": self.version, "fingerprint": self.fingerprint}
        return {**stated, **self.model_dump(mode="json")}


def kind_of(name: str) -> type[Stage]:
    """Return the class of a kind of stage.

    Raises:
        UnknownName: there is no kind of that name.
    """
    kind: type[Stage] = registry.load("stages", name)
    return kind


def stage_from_json(value: Mapping[str, Any]) -> Stage:
    """Read back what `Stage.to_json` gave.

    Raises:
        SparBenchError: another version of spar-bench wrote it, or another code of its kind.
    """
    kind = kind_of(value["kind"])
    if value["version"] != kind.version:
        raise SparBenchError(
            f"plan: a {kind.kind} must be of version {kind.version}, but is of {value['version']}; "
            "plan and work with one version of spar-bench"
        )
    stated = ("kind", "version", "fingerprint")
    stage = kind.model_validate({k: v for k, v in value.items() if k not in stated})
    if stage.fingerprint != value["fingerprint"]:
        raise SparBenchError(
            f"plan: a {kind.kind} must be made by the code that planned it, but the code has "
            "changed since; run the sweep again"
        )
    return stage


@cache
def _sources(*names: str) -> dict[str, str]:
    """Return the SHA-256 of modules outside this package, and of those of theirs they import.

    A process looks once, since it goes on with the code that it has imported.
    """
    found = dict[str, str]()
    for name in names:
        if not name.startswith("spar_bench."):
            found |= digests(name)
    return found
