"""Processes that train together: shares, messages, and the same student as from one process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spar_bench import processes
from spar_bench.errors import SparBenchError
from spar_bench.run.context import Context
from spar_bench.run.distributed import OutOfStep, Ranks, _error, _report, own_device
from spar_bench.run.lockstep import begin, read_step
from spar_bench.run.training import Training
from spar_bench.stage import Damaged
from spar_bench.stages.base import stage_from_json
from spar_bench.stages.student import TRAINED_FILE, Stage
from spar_bench.store import Store
from tests.run.tiny import CPU, of_type, plan_of, scheduler, settings


class Apart(Ranks):
    """One of several processes, whose gradients the test averages itself."""

    def joined(self, visual: Any, trained: Any) -> Any:
        """Return what this process does alone."""
        return trained


@pytest.fixture(scope="module")
def taught(
    clip: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Stage]:
    """A store that holds images and targets, and the student that is made of them."""
    store = Store(tmp_path_factory.mktemp("taught"))
    changes: dict[str, Any] = {"images__count": 5, "student__accumulate": 3}
    plan = plan_of(settings(clip, photographs, student__trainable="all", **changes))
    [student] = of_type(plan, Stage)
    scheduler(plan, store)[0].make([student.inputs["targets"]])
    return store, student


def gradients(stage: Stage, store: Store, step: int, ranks: Ranks) -> tuple[Training, list[float]]:
    """Read one process's images of a step, and leave its gradients in its weights."""
    context = Context(store, CPU, ranks=ranks)
    group = begin([stage], context, [context.store.scratch(stage)])
    group.step = group.schedule.step = step
    group.stream = group.pictures.stream(group.schedule.upcoming(step, ranks.own))
    [part] = read_step(group)
    if part.last is not None:
        part.last.backward()  # type: ignore[no-untyped-call]
    return group.schedule, [loss.item() for loss in part.losses]


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
@pytest.mark.parametrize(("step", "n_images"), [(0, 3), (1, 2)])
def test_averaged_over_processes_gradients_are_the_mean_over_the_steps_images(
    taught: tuple[Store, Stage], n_ranks: int, step: int, n_images: int
) -> None:
    store, stage = taught
    alone, losses = gradients(stage, store, step, Ranks())

    found = [gradients(stage, store, step, Apart(rank, n_ranks)) for rank in range(n_ranks)]

    assert sorted(loss for _, told in found for loss in told) == sorted(losses)
    assert [len(told) for _, told in found] == [
        len(range(rank, n_images, n_ranks)) for rank in range(n_ranks)
    ]
    for index, parameter in enumerate(alone.parameters):
        shares = [run.parameters[index].grad for run, _ in found]
        if parameter.grad is None:
            assert shares == [None] * n_ranks
            continue
        mean = torch.stack([share for share in shares if share is not None]).sum(0) / n_ranks
        largest = float(parameter.grad.abs().max())
        assert torch.allclose(mean, parameter.grad, rtol=1e-4, atol=1e-6 * largest)


def test_student_is_told_of_as_json_and_is_the_same_stage(taught: tuple[Store, Stage]) -> None:
    _, stage = taught

    found = stage_from_json(json.loads(json.dumps(stage.to_json())))

    assert found.fingerprint == stage.fingerprint
    assert found == stage


@pytest.mark.parametrize(
    "error",
    [
        SparBenchError("x.png: must be an image, but is none; replace it"),
        Damaged(Path("a/b"), "is missing", fingerprint="ab12"),
    ],
)
def test_mistake_of_another_process_is_told_as_it_was(error: SparBenchError) -> None:
    found = _error(json.loads(json.dumps(_report(error))))

    assert str(found) == str(error)
    assert isinstance(found, Damaged) == isinstance(error, Damaged)


def test_bug_of_another_process_keeps_its_traceback() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        words = _report(error)

    assert re.search("another process.*json.loads.*JSONDecodeError", str(_error(words)), re.DOTALL)


def test_process_is_one_of_several_only_as_torchrun_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (processes.n_processes(), processes.rank()) == (1, 0)

    for name, value in (("LOCAL_RANK", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)

    assert (processes.n_processes(), processes.rank(), processes.local_rank()) == (2, 1, 1)
    assert own_device("cpu") == "cpu"
    with pytest.raises(SparBenchError, match="must be auto, cpu or cuda where 2 processes"):
        own_device("cuda:0")


def test_processes_of_a_worker_are_told_their_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (processes.is_launched(), processes.meeting()) == (False, None)
    for name, value in processes.places(3, tmp_path / "meeting")[2].items():
        monkeypatch.setenv(name, value)

    assert processes.is_launched()
    assert processes.meeting() == tmp_path / "meeting"
    assert (processes.n_processes(), processes.rank(), processes.local_rank()) == (3, 2, 2)


SPEC = """\
question: Does it run?
backbone: patchwork
images: {source: patchwork, count: 5, short_side_px: [64, 96]}
teacher: {window_px: 64, stride_px: 32}
student: {epochs: EPOCHS, learning_rate: 0.1, optimiser: sgd, accumulate: 3}
evaluate:
  datasets: [{name: patchwork, count: 1}]
  short_side_px: [64]
  templates: ["a photo of a {}."]
  methods: [student]
measure: {latency: false}
"""


def together(n: int | None, *arguments: str, device: str = "cpu") -> list[str]:
    """Return a command that torchrun starts in this many processes, or one without torchrun."""
    launch = [] if n is None else ["-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    return [sys.executable, *launch, "-m", "spar_bench", *arguments, "--device", device]


def sweep(
    folder: Path, n: int | None, *options: str, epochs: int = 4, device: str = "cpu"
) -> subprocess.CompletedProcess[str]:
    """Sweep the spec in a folder with this many processes; None: without torchrun."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(SPEC.replace("EPOCHS", str(epochs)))
    command = together(n, "sweep", "tiny.yaml", *options, device=device)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def student(folder: Path) -> tuple[Path, dict[str, torch.Tensor], list[float], dict[str, Any]]:
    """Return a folder's student: its place, weights, losses and manifest."""
    [found] = folder.glob(".spar_bench/stages/student/*")
    curve = [loss for _, loss, _ in json.loads((found / "curve.json").read_text())]
    manifest = json.loads((found / "manifest.json").read_text())
    return found, load_file(found / TRAINED_FILE), curve, manifest


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_processes_of_torchrun_train_the_student_of_one_process(tmp_path: Path, n: int) -> None:
    for name, n_launched in (("one", None), ("launched", n)):
        result = sweep(tmp_path / name, n_launched)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("1 of 1 trial finished") == 1
        assert "Warning" not in result.stderr

    one, two = student(tmp_path / "one"), student(tmp_path / "launched")

    assert one[0].name == two[0].name
    assert len(one[2]) == 8  # 5 images, 3 per step: each epoch has a short last step
    assert two[2] == pytest.approx(one[2], rel=1e-6)
    for name, weight in one[1].items():
        assert torch.allclose(
            two[1][name], weight, rtol=1e-6, atol=1e-6 * float(weight.abs().max())
        )
    assert two[3]["summary"]["train_gflops"] == one[3]["summary"]["train_gflops"]
    # What frozen blocks give is kept by each process; an image may go to another in the next epoch.
    least, most = one[3]["made"]["gflops"], one[3]["summary"]["train_gflops"]
    assert least <= two[3]["made"]["gflops"] <= most
    assert (one[3]["made"]["processes"], two[3]["made"]["processes"]) == (1, n)


@pytest.mark.slow
def test_processes_stop_together_and_go_on_together(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC.replace("EPOCHS", "400"))
    command = together(2, "sweep", "tiny.yaml")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while not list(tmp_path.glob(".spar_bench/stages/targets/*")):
            assert running.poll() is None
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGINT)
        asked_at = time.monotonic()
        said = running.stderr.read()
        running.wait()
    assert time.monotonic() - asked_at < 25
    assert "Stopped. Finished work is kept" in said
    [resume] = tmp_path.glob(".spar_bench/scratch/*/*/resume.safetensors")
    assert load_file(resume)

    result = sweep(tmp_path, 2, epochs=400)

    assert result.returncode == 0, result.stderr
    assert sweep(tmp_path / "alone", None, epochs=400).returncode == 0
    assert student(tmp_path)[2] == pytest.approx(student(tmp_path / "alone")[2], rel=1e-5)


@pytest.mark.slow
def test_mistake_ends_all_processes_and_is_told_once(tmp_path: Path) -> None:
    result = sweep(tmp_path, 2, "--only", "nothing")

    assert result.returncode != 0
    assert result.stderr.count("must be a known name, but got 'nothing'") == 1


def test_failure_in_a_step_is_its_own_alone_and_ends_all_of_several() -> None:
    alone, several = Ranks(), Ranks(rank=1, n=2)

    with pytest.raises(torch.OutOfMemoryError), alone.in_step():
        raise torch.OutOfMemoryError("full")
    failed = pytest.raises(OutOfStep, match=r"process 1 failed within one \(full\); run")
    with failed as caught, several.in_step():
        raise torch.OutOfMemoryError("full\nand more")

    assert "\n" not in str(caught.value)
    assert (alone.is_out_of_step, several.is_out_of_step) == (False, True)


FULL = """
import torch
from spar_bench.processes import rank
from spar_bench.run import lockstep

class Full:
    def backward(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

update = lockstep._update

def failing(run, part, group):
    if group.step == 1:
        part.last = Full()
    update(run, part, group)

if rank() == 0:
    lockstep._update = failing

from spar_bench.cli import main

main(prog_name="spar-bench")
"""


@pytest.mark.slow
def test_sweep_whose_first_process_fails_in_a_step_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC.replace("EPOCHS", "4"))
    (tmp_path / "full.py").write_text(FULL)
    launch = together(2)[1:5]
    command = [sys.executable, *launch, "full.py", "sweep", "tiny.yaml", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )

    told = "processes: must keep in step, but process 0 failed within one (CUDA out of memory); run"
    assert result.returncode != 0
    assert [line for line in result.stderr.splitlines() if line.startswith(told)]
    assert "trial finished" not in result.stdout  # it did not continue without its student
