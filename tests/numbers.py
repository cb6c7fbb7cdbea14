"""Numbers of small stages, losses and refiners with the versions that stand for them.

`python -m tests.numbers` writes those of new versions into `tests/golden/numbers.json`; it refuses
numbers that moved while no version did. It then notes the present code of each plug-in in
`spar_bench/plugin_code.json` as one that gives the same numbers as its VERSION before.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from spar_bench import plugin_code, registry
from spar_bench.refiners.base import RefinesFeatures, RefinesScores
from spar_bench.run.context import build_refiner
from spar_bench.run.linear import read_weights
from spar_bench.run.text import read_queries
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import Settings
from spar_bench.stage import Finished
from spar_bench.stages import cost, evaluate, images, student, targets
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from spar_bench.testing import features, guidance_of
from tests.run.tiny import CPU, finished, plan_of, scheduler

TABLE = Path(__file__).parent / "golden" / "numbers.json"
RELATIVE, ABSOLUTE = 2e-3, 1e-4
"""Tolerances between machines; features are stored in half precision."""

SETTINGS: dict[str, Any] = {
    "backbone": "patchwork",
    "images": {"source": "patchwork", "count": 3, "short_side_px": [64, 80]},
    "teacher": {"window_px": 64, "stride_px": 12},
    "student": {"epochs": 2, "trainable": "last_1_blocks", "learning_rate": 1e-3},
    "evaluate": {
        "datasets": [{"name": "patchwork", "count": 2}],
        "short_side_px": [72],
        "templates": ["a photo of a {}."],
    },
    "measure": {"latency": False},
}
AVERAGES = ("logits", "features")
PROBE = {
    "classifier": {"name": "linear", "count": 3, "epochs": 2, "batch": 2, "learning_rate": 0.02},
    "methods": ["pretrained"],
}
"""What is evaluated by a linear probe."""
LOSSES = {"smooth_l1": {"beta": 0.5}}
"""Settings of a loss other than its defaults, whose value is kept too."""

REFINERS: dict[str, dict[str, Any]] = {
    "lposs_self": {"name": "lposs_self", "k": 8},
    "lposs_self of pixels": {
        "name": "lposs_self", "k": 8, "pixels": True, "neighbourhood_px": 3, "rescale": True,
    },
    "anyup of features": {"name": "anyup", "weights": "random", "cell_px": 2},
    "anyup of scores": {"name": "anyup", "weights": "random", "of": "scores"},
    "anyup_patchwork": {"name": "anyup_patchwork", "cell_px": 2},
    "naf": {"name": "naf", "weights": "random", "cell_px": 2},
    "lposs": {"name": "lposs", "weights": "random", "k": 6},
}  # fmt: skip
"""Refiners whose maps are kept, by what they are called here."""


class Numbers(NamedTuple):
    """What stands for a piece of work: the versions of all code that it names, and its values."""

    versions: dict[str, int]
    values: list[float]


def measure() -> dict[str, Numbers]:
    """Make each kind of stage on scenes that are not square, each loss and refiner; by name."""
    return dict(_losses()) | dict(_refiners()) | dict(_stages())


def moved(table: dict[str, Numbers], found: dict[str, Numbers]) -> list[str]:
    """Return a line for each piece of work whose numbers moved while its versions did not."""
    return [
        f"{name}: its numbers must stay while its versions do ({_shown(numbers.versions)}), but "
        f"{_difference(table[name].values, numbers.values)}; raise the version whose code moved "
        "them, then run `python -m tests.numbers`"
        for name, numbers in found.items()
        if name in table
        and table[name].versions == numbers.versions
        and numbers.values != pytest.approx(table[name].values, rel=RELATIVE, abs=ABSOLUTE)
    ]


def new(table: dict[str, Numbers], found: dict[str, Numbers]) -> list[str]:
    """Return a line for each piece of work that the table does not have in these versions."""
    return [
        f"{name}: {TABLE.name} must have {_shown(numbers.versions)}, but has "
        f"{_shown(table[name].versions) if name in table else 'none'}; "
        "run `python -m tests.numbers`"
        for name, numbers in found.items()
        if name not in table or table[name].versions != numbers.versions
    ]


def read_table(path: Path = TABLE) -> dict[str, Numbers]:
    """Return the table of numbers by name."""
    return {
        name: Numbers(**numbers)
        for name, numbers in json.loads(path.read_text(encoding="utf-8")).items()
    }


def write_table(found: dict[str, Numbers], path: Path = TABLE) -> None:
    """Write numbers of new versions, and leave those of old ones as they are."""
    old = read_table(path) if path.exists() else {}
    stay = {n: old[n] for n, one in found.items() if n in old and old[n].versions == one.versions}
    table = {name: numbers._asdict() for name, numbers in sorted((found | stay).items())}
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def unlisted(table: dict[str, list[str]]) -> list[str]:
    """Return a line for each built-in plug-in whose present code the table does not list."""
    return [
        f"{key}: plugin_code.json must list the plug-in's code, but does not; raise VERSION if its "
        "numbers have moved, then run `python -m tests.numbers`"
        for key, syntax in _codes()
        if syntax not in table.get(key, [])
    ]


def listing(table: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the table with the present code of each built-in plug-in, without old versions."""
    return {
        key: list(dict.fromkeys([*table.get(key, []), syntax])) for key, syntax in sorted(_codes())
    }


def _codes() -> Iterator[tuple[str, str]]:
    """Yield the key and code of each plug-in whose source manifests record."""
    for family, name in plugin_code.built_in():
        key = plugin_code.key_of(family, name, registry.version(family, name))
        yield key, plugin_code.syntax_sha256(family, name)


def _losses() -> Iterator[tuple[str, Numbers]]:
    for name in registry.names("losses"):
        given = [{}, LOSSES[name]] if name in LOSSES else [{}]
        values = [
            registry.configured("losses", name, settings)(features(0), features(1)).item()
            for settings in given
        ]
        yield f"loss {name}", Numbers(registry.identity("losses", name).versions, _rounded(values))


def _refiners() -> Iterator[tuple[str, Numbers]]:
    """Refine maps of 5 x 7 patches of 8 px, of 8 channels and 3 queries."""
    guidance, out_hw = guidance_of((5, 7))
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 5, 7, generator=generator)
    cosines = 2 * torch.rand(3, 5, 7, generator=generator) - 1
    for name, settings in REFINERS.items():
        refiner = build_refiner(PluginSpec.model_validate(settings), CPU)
        if isinstance(refiner, RefinesFeatures):
            refined = refiner.features(maps, guidance, out_hw)
        else:
            assert isinstance(refiner, RefinesScores), f"{name} refines nothing"
            refined = refiner.scores(cosines, maps, guidance, out_hw)
        versions = registry.identity("refiners", settings["name"]).versions
        yield f"refiner {name}", Numbers(versions, _rounded(_sample(refined.numpy())))


def _stages() -> Iterator[tuple[str, Numbers]]:
    ways = [*({"average": average} for average in AVERAGES), PROBE]
    points = [
        Settings.model_validate(SETTINGS | {"evaluate": SETTINGS["evaluate"] | way}) for way in ways
    ]
    plan = plan_of(*points)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        scheduler(plan, store)[0].make(plan.stages)
        for stage in plan.stages.values():
            values = _values(stage, finished(store, stage))
            versions = dict(_versions(stage, plan.stages))
            yield _name(stage), Numbers(versions, _rounded(values))


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _name(stage: Stage) -> str:
    """Return what a stage is, with what its title leaves out."""
    average = stage.settings.inference.average if isinstance(stage, evaluate.Stage) else None
    if isinstance(stage, cost.Stage):
        return f"{stage.title}, {stage.settings.n_queries} queries"
    return f"{stage.title}, average of {average}" if average else stage.title


def _versions(stage: Stage, stages: Mapping[str, Stage]) -> Iterator[tuple[str, int]]:
    """Yield the versions of a stage, of its plug-ins, and of what it is made from."""
    yield stage.kind, stage.version
    yield from _stated(stage.settings.model_dump(mode="json"), "")
    for fingerprint in stage.inputs.values():
        yield from _versions(stages[fingerprint], stages)


def _stated(value: Any, role: str) -> Iterator[tuple[str, int]]:
    """Yield the versions that identities in settings state, such as `loss mse`."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key == "versions":
            yield from ((f"{role} {name}", number) for name, number in inner.items())
        else:
            yield from _stated(inner, role if key == "plugin" else key)


def _values(stage: Stage, made: Finished) -> list[float]:
    told = {key: value for key, value in made.summary.items() if not key.endswith("seconds")}
    summary = [float(v) for v in told.values() if isinstance(v, int | float)]
    match stage.kind:
        case "images":
            drawn = images.read_list(made)
            return [v for one in drawn for v in (one.index, one.short_side_px, *(one.crop or ()))]
        case "targets":
            return _sample(load_file(made.path(targets.file_of(0)))["features"])
        case "text":
            return _sample(read_queries(made).numpy())
        case "linear_probe":
            return summary + _sample(read_weights(made).weight.numpy())
        case "student":
            return summary + [loss for _, loss, _ in student.read_curve(made)]
        case "evaluate":
            return summary + _sample(evaluate.read_features(made))
    return summary


def _sample(array: NDArray[Any], n: int = 13) -> list[float]:
    """Return the norms of an array's parts, which a pixel rounded otherwise hardly moves."""
    parts = np.array_split(array.astype(np.float64).ravel(), n)
    return [float(np.linalg.norm(part)) for part in parts]


def _difference(expected: list[float], values: list[float]) -> str:
    if len(expected) != len(values):
        return f"there are {len(values)} instead of {len(expected)}"
    first, second = max(zip(expected, values, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
    return f"{first:.6g} became {second:.6g}"


def _shown(versions: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))


def main() -> None:
    """Write the numbers of new versions.

    Raises:
        SystemExit: numbers moved while no version did.
    """
    found = measure()
    problems = moved(read_table(), found) if TABLE.exists() else []
    if problems:
        raise SystemExit("\n".join(problems))
    write_table(found)
    listed = listing(plugin_code.same_numbers())
    plugin_code.SAME_NUMBERS.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
