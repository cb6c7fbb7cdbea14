"""What a spec sweeps: blocks of points written out as a grid, or drawn by a search."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from spar_bench.validation import TAG, Part, Raw, mistake
from spar_bench.values import FILLED, MAX_COUNT, Number, Searched, Seed, Step, one_of


class RangeSpec(Part):
    """A number that a search draws."""

    low: Number
    high: Number
    log: bool = Field(False, description="Draw evenly in the logarithm.")
    integer: bool = Field(False, description="Draw whole numbers.")
    step: Step | None = None

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> "RangeSpec":
        if self.low > self.high:
            text = f"must not exceed high ({self.high:g}), but got {self.low:g}; swap them"
            raise mistake(text, "low")
        if self.log and self.low <= 0:
            raise mistake(f"must be above 0 where log is on, but got {self.low:g}; raise it", "low")
        if self.log and self.step is not None:
            text = f"must be left out where log is on, but got {self.step:g}; drop one"
            raise mistake(text, "step")
        if self.step is not None and (self.high - self.low) / self.step > MAX_COUNT:
            text = f"must make at most {MAX_COUNT:,} steps from low to high, but got {self.step:g}"
            raise mistake(f"{text}; raise it", "step")
        for name, value in (("low", self.low), ("high", self.high), ("step", self.step or 1)):
            if self.integer and value != int(value):
                raise mistake(f"must be a whole number where integer is on, but got {value:g}; "
                              "round it", name)  # fmt: skip
        return self


class ChoicesSpec(Part):
    """A value that a search picks."""

    choices: Annotated[list[Any], *FILLED]


def _has_choices(value: Any) -> bool:
    return isinstance(value, ChoicesSpec) or (isinstance(value, dict) and "choices" in value)


Drawn = Annotated[
    Annotated[ChoicesSpec, Tag(f"{TAG}choices")] | Annotated[RangeSpec, Tag(f"{TAG}range")],
    one_of((f"{TAG}choices", f"{TAG}range"), _has_choices),
]


class SearchSpec(Part):
    """An Optuna search instead of a grid: each trial is drawn after the earlier ones are scored."""

    space: dict[str, Drawn] = Field(
        min_length=1, description="Dotted key to what it is drawn from: choices, or low and high."
    )
    objectives: dict[
        Literal["miou", "gflops", "latency_p50_ms", "train_gflops"], Literal["maximize", "minimize"]
    ] = Field({"miou": "maximize"}, min_length=1)
    trials: Searched = Field(20, description="Total trials, including those enqueued.")
    sampler: Literal["tpe", "random"] = "tpe"
    seed: Seed = 0
    enqueue: list[Raw] = Field([], description="Points tried first, e.g. the paper's.")
    prune: bool = Field(False, description="Stop trials whose loss lags; one objective only.")

    @model_validator(mode="after")
    def _pruning_has_one_objective(self) -> "SearchSpec":
        if self.prune and len(self.objectives) > 1:
            text = f"must be off with several objectives, but is on with {len(self.objectives)}"
            raise mistake(f"{text}; keep one of them, or drop prune", "prune")
        return self


Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]


class BlockSpec(Part):
    """One block of a sweep: grid x zip x cases, each with `set`, minus `exclude`; or a search."""

    grid: Axes = Field({}, description="Dotted key to values; every combination.")
    zip: Axes = Field({}, description="Dotted key to values; combined side by side.")
    cases: list[Raw] = Field([], description="Points written out.")
    set: Raw = Field({}, description="Dotted key to its value in this block.")
    exclude: list[Raw] = Field([], description="Points left out: all keys must match.")
    search: SearchSpec | None = Field(None, description="Instead of a grid; alone in a sweep.")
