"""Students to and from other software: import a checkpoint, export a folder that others read."""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from spar_bench import __version__
from spar_bench.backbones.base import Backbone, Exported, Library, require_exchangeable
from spar_bench.components.backbone import ORIGIN_FILE, card
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import SparBenchError, UnknownName
from spar_bench.files import local, replace_bytes, replace_text, writing
from spar_bench.opening import open_store
from spar_bench.resolve import Resolver
from spar_bench.run.context import Context, open_student, prepare_device
from spar_bench.run.work import Worker
from spar_bench.session.provenance import explain
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished, canonical
from spar_bench.stages import imported
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import DEFAULT_ROOT

TOLERANCE = 1e-5
"""Largest difference of another library's output for an export, relative to the largest value."""


def import_student(
    checkpoint: Path, backbone: BackboneSpec, *, store: Path = DEFAULT_ROOT
) -> Finished:
    """Take a checkpoint into the store as a student of a backbone.

    Raises:
        NotReady: checkpoint or weights are missing, or do not belong together.
    """
    opened, reasons = open_store(store), list[str]()
    resolver = Resolver()
    stage = imported.Stage.of(resolver.backbone(backbone), str(checkpoint), resolver)
    plan = WorkPlan({stage.fingerprint: stage}, Retries(retry=True))
    worker = Worker(plan, Context(opened, prepare_device("cpu", None)))
    worker.make([stage], lambda event: reasons.append(event.text))
    finished = opened.find(stage)
    if finished is None:
        raise SparBenchError(reasons[-1])
    return finished


def export_student(
    student: str, library: Library, folder: Path, *, store: Path = DEFAULT_ROOT
) -> float:
    """Write a student as a folder that another library reads by itself, and check it there.

    Args:
        student: A trial that trained one, or the folder of a finished or imported student.
        library: Decides the format; open_clip's includes the text tower.
        folder: A new folder.
        store: Where trials are looked up.

    Returns:
        The largest difference between that library's output and ours, relative to our largest
        value.

    Raises:
        UnknownName: no trial of that name trained a student, or several did.
        SparBenchError: the library has no such model, or its output differs; nothing is written
            then.
    """
    if local(folder).exists():
        raise SparBenchError(f"{folder}: must be a new folder, but already exists; name another")
    backbone, spec = open_student(_folder(student, store), prepare_device("cpu", None))
    exported = require_exchangeable(backbone, spec.name).export(library)
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
            place = Path(scratch) / "folder"
            _write(exported, place, _origin(student, spec))
            difference = _difference(backbone, exported, place)
            if not difference <= TOLERANCE:  # NaN is refused too
                raise SparBenchError(
                    f"--format {library}: its output must agree with ours to {TOLERANCE:g}, but "
                    f"differs by {difference:.2g}; try the other format"
                )
            shutil.move(place, folder)
    return difference


def _folder(student: str, store: Path) -> Path:
    """Return the folder of a finished student, by its path or its trial's name."""
    if (Path(student) / TRAINED_FILE).is_file():
        return Path(student)
    found = {
        stage.fingerprint: stage
        for explained in explain(student, store=store)
        for stage in explained.stages.values()
        if stage.kind in ("student", "imported")
    }
    if len(found) != 1:
        raise UnknownName(
            f"student {student!r}: must be a trial that trained one student, but has "
            f"{len(found)}; name a trial with its seed, as `spar-bench status` and results.csv do"
        )
    return next(iter(found.values())).path(TRAINED_FILE).parent


def _write(exported: Exported, folder: Path, origin: dict[str, object]) -> None:
    tensors = {name: value.cpu().contiguous().clone() for name, value in exported.state.items()}
    replace_bytes(folder / exported.weights_name, save(tensors, metadata={"format": "pt"}))
    replace_text(folder / exported.config_name, canonical(exported.config))
    replace_text(folder / ORIGIN_FILE, canonical(origin))
    for path in exported.further:
        replace_bytes(folder / path.name, path.read_bytes())


def _difference(backbone: Backbone, exported: Exported, folder: Path) -> float:
    """Have the other library read noise of the native size, and compare with our tower."""
    side = backbone.sizes.image_px
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = exported.check(folder, images)
    return float((theirs - ours).abs().max() / ours.abs().max())


def _origin(student: str, spec: BackboneSpec) -> dict[str, object]:
    """Return the metadata of an export: the backbone's licence applies to it too."""
    known = card(spec.name)
    return {
        "made_by": f"spar-bench {__version__}",
        "student": student,
        "backbone": spec.model_dump(mode="json"),
        "license": known.license,
        "terms": known.terms,
        "source": known.source,
    }
