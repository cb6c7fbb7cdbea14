"""A small open_clip model with random weights, photographs, and plans made of them."""

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spar_bench.backends import in_process
from spar_bench.backends.base import Setup
from spar_bench.engine.events import Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import Interrupted
from spar_bench.plan.making import make_plan
from spar_bench.plan.trials import Plan
from spar_bench.protocol import Protocol
from spar_bench.run.context import Context
from spar_bench.run.work import Worker
from spar_bench.spec import Point
from spar_bench.spec.schema import Settings
from spar_bench.stage import Finished
from spar_bench.stages.base import Stage
from spar_bench.stages.latency import Machine
from spar_bench.store import Store

CPU = torch.device("cpu")
CLASSES = ["sky", "road", "tree"]
MODEL: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 3, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
MACHINE = Machine(host="here", device="cpu", threads=1, torch="2")


def write_clip(folder: Path, *, seed: int = 0, **vision: Any) -> Path:
    """Write an open_clip folder: patch 8, image 32, three blocks of width 16.

    Weights are drawn by name, so that they do not depend on how open_clip initialises its own.
    """
    config = {**MODEL, "vision_cfg": {**MODEL["vision_cfg"], **vision}}
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    generator = np.random.default_rng(seed)
    state = {}
    for name, value in sorted(model.state_dict().items()):
        drawn = 0.2 * generator.standard_normal(tuple(value.shape))
        drawn += 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        state[name] = torch.as_tensor(drawn).float()
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def write_photographs(folder: Path, *, seed: int = 0, n_val: int = 3) -> Path:
    """Write a `folder` data set of noise: non-square images, masks with ignored pixels."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", 3), ("val", n_val)):
        (folder / f"{split}_images").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = generator.integers(0, 256, (40 + 6 * index, 70, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{split}_images" / f"{index}.png")
    (folder / "val_masks").mkdir(exist_ok=True)
    for index in range(n_val):
        mask = generator.integers(0, len(CLASSES), (40 + 6 * index, 70), dtype=np.uint8)
        mask[:4] = 255
        Image.fromarray(mask).save(folder / "val_masks" / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


def settings(clip: Path, photographs: Path, **changes: Any) -> Settings:
    """Return settings small enough for a test; `changes` has dotted keys, `.` written `__`."""
    spec: dict[str, Any] = {
        "backbone": {"name": "openclip", "path": str(clip)},
        "images": {
            "source": {"name": "folder", "path": str(photographs)},
            "count": 3,
            "short_side_px": [32, 48],
        },
        "teacher": {"window_px": 32, "stride_px": 12},
        "student": {"epochs": 2, "learning_rate": 1e-3},
        "evaluate": {
            "datasets": [{"name": "folder", "path": str(photographs), "templates": ["a {}."]}],
            "short_side_px": [40],
        },
        "measure": {"latency": False},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        part = spec
        for name in path:
            part = part[name]
        part[last] = value
    return Settings.model_validate(spec)


def plan_of(*points: Settings, seeds: tuple[int, ...] = (0,), machine: Machine = MACHINE) -> Plan:
    """Return the plan of groups g0, g1, ..."""
    listed = [Point(group=f"g{i}", settings=one, swept={}) for i, one in enumerate(points)]
    return make_plan(listed, list(seeds), machine)


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    """Return the stages of a kind."""
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def protocol(**changes: Any) -> Protocol:
    """Return a protocol without thresholds."""
    stated: dict[str, Any] = {
        "templates": ["a {}."], "logit_scale": 40.0, "background_threshold": 0.0,
        "area_threshold": 0.0, "resize": "bilinear", "long_side_px": None,
        "precision": "float32", "unreadable": "error",
    }  # fmt: skip
    return Protocol(**stated | changes)


S = TypeVar("S", bound=Stage)


def of_type(plan: Plan, kind: type[S]) -> list[S]:
    """Return the stages of a kind, typed."""
    return [stage for stage in plan.stages.values() if isinstance(stage, kind)]


def finished(store: Store, stage: Stage) -> Finished:
    """Return what a store holds of a stage that was made."""
    found = store.find(stage)
    assert found is not None
    return found


def losses(folder: Path) -> list[tuple[int, float]]:
    """Return step and loss of a student's curve."""
    return [(step, loss) for step, loss, _ in json.loads((folder / "curve.json").read_text())]


class Notes:
    """Records the events of a scheduler, and the shares that it reports apart from them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.all: list[tuple[str, str, str]] = []
        self.shares: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            self.shares.append(event.share)
        else:
            kind = self.plan.stages[event.fingerprint].kind
            self.all.append((event.kind, kind, event.text))

    def kinds(self, note: str) -> list[str]:
        """Return the kinds of the stages of which a note was given."""
        return [kind for one, kind, _ in self.all if one == note]


def scheduler(plan: Plan, store: Store, **options: Any) -> tuple[Scheduler, Notes]:
    """Return a scheduler of a whole plan in this process on the CPU, and its recorded events."""
    notes = Notes(plan)
    context: Context = options.pop("context", None) or Context(store, CPU)
    retries = Retries(retry=options.pop("retry", False), keep_pruned=plan.keep_pruned)
    backend = in_process.Backend(
        Setup(
            store=store,
            devices=["cpu"],
            threads=None,
            workers=None,
            make=lambda work, batch, emit: Worker(work, context).make(batch, emit),
            help=lambda work, batch, emit: Worker(work, context).help(batch, emit),
            check=context.check,
            prune=lambda epoch, loss: "",
        )
    )
    backend.use(WorkPlan(plan.stages, retries))
    made = Scheduler(
        plan,
        store,
        backend,
        set(plan.stages),
        notify=notes,
        retries=retries,
        check=context.check,
        **options,
    )
    return made, notes


def make_stage(plan: Plan, store: Store, stage: Stage) -> Finished:
    """Make a stage with what it needs, and return it finished."""
    making, notes = scheduler(plan, store)
    making.make([stage.fingerprint])
    found = store.find(stage)
    assert found is not None, notes.all
    return found


def interrupt_after(monkeypatch: pytest.MonkeyPatch, n_checks: int) -> None:
    """Have the user ask to stop at the n-th look."""
    looks = iter(range(n_checks))

    def check(self: Context) -> None:
        if next(looks, None) is None:
            raise Interrupted

    monkeypatch.setattr(Context, "check", check)
