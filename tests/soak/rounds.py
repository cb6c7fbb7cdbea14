"""One round: a plan in a new store, made by several processes that are disturbed until it ends."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from spar_bench.opening import open_store
from tests.backends.nodes import HEAD, HOST, PORT, Nodes
from tests.small import lasting
from tests.soak.faults import CLOCK, FAULTS, WEIGHTS, Ground, Undo, listed
from tests.soak.ground import Service

SPEC = """\
question: Does it end as if nothing had happened?
backbone: patchwork
images: {source: patchwork, count: 96, short_side_px: [96, 128], crop: 0.5, flip: 0.5}
teacher: {window_px: 64, stride_px: 12}
student: {epochs: 2, trainable: last_1_blocks, learning_rate: 1.0e-3}
evaluate:
  datasets: [{name: patchwork, count: 48}]
  short_side_px: [160]
  templates: ["a photo of a {}."]
measure: {seconds: 0.05}
sweep:
  - grid: {teacher.stride_px: [20, 12]}
    set: {evaluate.methods: [teacher]}
  - grid: {student.learning_rate: [1.0e-3, 2.0e-3]}
    set: {evaluate.methods: [pretrained, student]}
  - grid: {student.checkpoint: [patchwork-spar]}
    set: {evaluate.methods: [student]}
  - grid: {evaluate.classifier: [{name: linear, count: 12, batch: 4, learning_rate: 0.02}]}
    set: {evaluate.methods: [pretrained]}
"""
"""Every kind of stage, some of which take long enough to be shared."""
SWEEP = [sys.executable, "-m", "spar_bench", "sweep", "soak.yaml", "--threads", "1"]
ANY = [sys.executable, "-m", "spar_bench", "work", "--any", "soak.yaml", "--threads", "1"]
WAYS = [
    [[*SWEEP, "--jobs", "2"], ANY],
    [[*SWEEP, "--on", "ray", "--jobs", "2"]],
    [SWEEP, SWEEP],
]
"""The processes of a round; each is started again until it ends well. Two more rounds follow: on
two nodes, and on two machines that share a bucket."""
RAY = "ray start --num-cpus 1 --object-store-memory 100000000"
FIRST = f'{RAY} --head --node-ip-address {HOST} --port {PORT} >&2 && exec "$@"'
SECOND = f"while true; do {RAY} --address {HEAD} --block >&2; sleep 1; done"
"""What two nodes do: one starts Ray and then sweeps; the other joins it, again and again."""
LEFTOVER_BYTES = 1 << 20
FAULT, ENDED = "FAULT", "ENDED"
"""What a line begins with that tells of a fault, or of a process that ended by itself."""
SHIFTED = (
    "import time as _t; _n, _s = _t.time_ns, _t.time\n"
    "_t.time_ns = lambda: _n() + 7_200_000_000_000\n_t.time = lambda: _s() + 7200.0\n"
)


def undisturbed(folder: Path) -> dict[str, Any]:
    """Make the plan once in peace; return what its stages hold."""
    here = folder / "undisturbed"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    (here / "soak.yaml").write_text(SPEC)
    subprocess.run([*SWEEP, "--store", "store"], cwd=here, check=True, capture_output=True)
    return contents(str(here / "store"))


def contents(place: str) -> dict[str, Any]:
    """Return all that the stages of a store hold but times: files by content, and summaries."""
    found = dict[str, Any]()
    for stage in open_store(place, make=False).finished():
        if stage.kind == "latency":
            found[stage.fingerprint] = sorted(stage.manifest["settings"]["timed"])
            continue
        stage.check(hashed=True)
        found[stage.fingerprint] = [stage.kind, *lasting(stage)]
    return found


def made_too_often(said: list[str]) -> list[str]:
    """Return what is wrong with the lines of all processes of a round, each line after its process.

    A stage is finished at most once. It is begun once, and once more at most for each fault and for
    each process that ended by itself since; from the last one before on, since that may have lasted
    or its line been read first.
    """
    begun, finished, faults_before = Counter[str](), Counter[str](), dict[str, int]()
    wrong, n_faults = list[str](), 0
    for line in said:
        who, event, *rest = [*line.split(), ""]
        stage = " ".join(rest[:2])
        if who in (FAULT, ENDED):
            n_faults += 1
        elif event == "made":
            finished[stage] += 1
        elif event == "started":
            begun[stage] += 1
            n_since = n_faults - faults_before.setdefault(stage, max(0, n_faults - 1))
            if begun[stage] > 1 + n_since:
                wrong.append(f"{stage} was begun {begun[stage]} times within {n_since} faults")
    return wrong + [f"{stage} was finished {n} times" for stage, n in finished.items() if n > 1]


class Round:
    """A store in which a plan is made; `broken` has the promises that were not kept."""

    def __init__(
        self, number: int, folder: Path, ground: Ground, nodes: Nodes, bucket: Service
    ) -> None:
        self.number, self.faults, self.broken = number, list[str](), list[str]()
        self._ground, self._folder = ground, folder / f"round-{number}"
        self._here = ground.disk.folder / f"store-{number}"
        self._store, self._beside = str(self._here), list[list[str]]()
        way = number % (len(WAYS) + 2)
        if way < len(WAYS):
            commands = WAYS[way]
            self._way = " and ".join(" ".join(one[3:5]) for one in commands)
        elif way == len(WAYS):
            ground.nodes = nodes
            commands = [nodes.command(nodes.first, "sh", "-c", FIRST, "sh", *SWEEP, "--on", HEAD)]
            self._beside = [nodes.command(nodes.second, "sh", "-c", SECOND)]
            self._way = "sweep on two nodes"
        else:
            ground.bucket, self._store = bucket, f"s3://bucket/{number}"
            caches = [f"XDG_CACHE_HOME={self._here / name}" for name in ("one", "two")]
            commands = [["env", cache, *SWEEP] for cache in caches]
            self._way = "sweep on two machines with a bucket"
        self._commands = [[*one, "--store", self._store] for one in commands]
        self._said = list[str]()
        self._undo = list[tuple[float, Undo]]()
        self._seconds = 0.0

    def run(self, expected: dict[str, Any], *, until: float) -> None:
        """Start all processes, disturb them, and look at what is left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "soak.yaml").write_text(SPEC)
        begun = time.monotonic()
        left = [self._start(command) for command in self._commands]
        beside = [self._start(command) for command in self._beside]
        next_fault = begun + self._ground.drawn.uniform(4, 10)
        while any(process is not None for process, _ in left):
            now = time.monotonic()
            self._undo_due(now)
            if now > next_fault and now < until:
                self._disturb(now)
                next_fault = now + self._ground.drawn.uniform(1.5, 7)
            left = [self._again(process, command) for process, command in left]
            beside = [self._again(process, command) for process, command in beside]
            time.sleep(0.2)
            if now - begun > 1200:
                self.broken.append("it did not end within 20 minutes")
                break
        self._undo_due(float("inf"))
        for process, _ in beside:
            assert process is not None, "it goes on until it is ended"
            process.kill()
        self._seconds = time.monotonic() - begun
        self._look(expected)
        shutil.rmtree(self._here, ignore_errors=True)

    def line(self) -> str:
        """Return what happened, in one line."""
        broken = "; ".join(self.broken) or "as undisturbed"
        took = f"{len(self.faults)} faults, {self._seconds:.0f} s"
        return f"round {self.number}: {took}, {self._way}: {broken}"

    def _start(self, command: list[str]) -> tuple[subprocess.Popen[str] | None, list[str]]:
        environment = os.environ | {"MLFLOW_TRACKING_URI": self._ground.database.uri}
        if "--any" in command:
            if CLOCK not in self.faults:
                self.faults.append(CLOCK)
            site = self._folder / "site"
            site.mkdir(exist_ok=True)
            (site / "sitecustomize.py").write_text(SHIFTED)
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(site), os.environ.get("PYTHONPATH", "")])
            )
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._ground.started.append(process)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process, command

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._said.append(f"{process.pid} {line.rstrip()}")

    def _again(
        self, process: subprocess.Popen[str] | None, command: list[str]
    ) -> tuple[subprocess.Popen[str] | None, list[str]]:
        if process is None or process.poll() is None:
            return process, command
        if process.returncode == 0:
            return None, command
        if process.returncode > 0:  # not by a signal, which is a fault already
            self._said.append(f"{ENDED} with code {process.returncode}")
        return self._start(command)

    def _disturb(self, now: float) -> None:
        [name] = self._ground.drawn.choices(list(FAULTS), WEIGHTS)
        if self._undo and name not in ("kill -9 of a worker", "kill -9 of a sweep"):
            return  # one lasting fault at a time
        made = FAULTS[name](self._ground)
        if made is not None:
            self.faults.append(name)
            self._said.append(f"{FAULT} {name}")
            undo, after_s = made
            if after_s:
                self._undo.append((now + after_s, undo))

    def _undo_due(self, now: float) -> None:
        for at, undo in list(self._undo):
            if now >= at:
                undo()
                self._undo.remove((at, undo))

    def _look(self, expected: dict[str, Any]) -> None:
        """Note each promise that was not kept."""
        found = contents(self._store)
        if found != expected:
            differing = {key for key in found | expected if found.get(key) != expected.get(key)}
            kinds = sorted(str((found.get(key) or expected[key])[0])[:12] for key in differing)
            self.broken.append(f"differs from undisturbed: {kinds}")
        self.broken += made_too_often(self._said)
        time.sleep(3)
        left = [text for pid, text in listed() if self._store in text and " ps " not in text]
        if left:
            self.broken.append(f"processes are left: {left}")
        finished = {"stages", "pictures", "results", "matplotlib"}
        n_bytes = sum(
            path.stat().st_size
            for path in self._here.rglob("*")
            if path.is_file() and not finished & set(path.relative_to(self._here).parts)
        )
        if n_bytes > LEFTOVER_BYTES:
            self.broken.append(f"{n_bytes} bytes are left besides finished work")
        (self._folder / "said.log").write_text("\n".join(self._said))
