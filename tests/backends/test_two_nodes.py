"""Two nodes in network namespaces, joined as `docs/clusters/ray.sbatch` does, on one store."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from spar_bench.session.sweep import Options, sweep
from spar_bench.store import Store
from tests.backends.nodes import HEAD, Nodes, are_possible
from tests.session.test_sweep import told
from tests.small import TIMED, UNTIMED, write_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not are_possible(), reason="it needs root, for network namespaces"),
]


@pytest.fixture
def nodes(here: Path) -> Iterator[Nodes]:
    """Two nodes whose home is the test's folder."""
    with Nodes(here) as made:
        yield made


@contextmanager
def sweeping(nodes: Nodes, spec: str) -> Iterator[None]:
    """Sweep a spec on both nodes, into the store `both`; at the end nothing of them is left."""
    command = (
        f"{sys.executable} -m spar_bench sweep {spec} --on {HEAD} --threads 1 "
        "--store both 2> said; echo $? > exit"
    )
    ray = [
        *("env", "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300"),
        *("ray", "symmetric-run", "--address", HEAD, "--min-nodes", "2"),
        *("--num-cpus", "1", "--object-store-memory", "100000000", "--", "bash", "-c", command),
    ]
    processes = list[subprocess.Popen[bytes]]()
    try:
        for name in (nodes.first, nodes.second):
            with Path(f"{name}.log").open("wb") as log:
                own = nodes.command(name, "sh", "-c", 'hostname "$0" && exec "$@"', name, *ray)
                processes.append(subprocess.Popen(own, stdout=log, stderr=log))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait(60)


def read(name: str) -> str:
    """Return what a file holds by now, nothing if there is none."""
    with suppress(OSError):
        return Path(name).read_text()
    return ""


def is_soon(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until something is so; return whether it is within that time."""
    ends_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends_at:
        time.sleep(0.2)
    return bool(condition())


def workers(node: str) -> list[int]:
    """Return our worker processes on a node."""
    command = ["ip", "netns", "pids", node]
    pids = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    lines = {int(pid): read(f"/proc/{pid}/cmdline") for pid in pids}
    return [pid for pid, line in lines.items() if "\0spar_bench\0work\0" in line]


def require_rows_of_one_process(spec: str, log: Path) -> None:
    """Check that the sweep has ended well, each stage made once, with the rows of another."""
    assert read("exit") == "0\n", log.read_text(errors="replace")[-4000:]
    made = [line.split()[2] for line in read("said").splitlines() if line.startswith("made ")]
    stages = [stage.fingerprint[:12] for stage in Store(Path("both"), make=False).finished()]
    assert sorted(made) == sorted(stages)
    alone = sweep(spec, Options(store="alone", threads=1))
    both = sweep(spec, Options(store="both", threads=1))
    assert told(both.rows) == told(alone.rows)


def test_two_nodes_make_one_sweep_with_the_rows_of_one_process(nodes: Nodes) -> None:
    spec = write_spec(TIMED)

    with sweeping(nodes, spec):
        assert is_soon(lambda: read("exit"), 300)

    require_rows_of_one_process(spec, Path(f"{nodes.first}.log"))


CUT = (
    UNTIMED.replace("count: 2, short_side_px: [64, 72]", "count: 64, short_side_px: [96, 128]")
    .replace("epochs: 2", "epochs: 20")
    .replace("crop: 0", "crop: 0.5")
    + """\
sweep:
  - grid: {student.learning_rate: [1.0e-3, 2.0e-3]}
    set: {evaluate.methods: [student]}
"""
)
"""Two students, one for each node, that take half a minute each."""


@pytest.mark.parametrize(("cut_s", "is_lost"), [(3.0, False), (25.0, True)])
def test_sweep_goes_on_while_its_nodes_cannot_reach_each_other(
    nodes: Nodes, cut_s: float, is_lost: bool
) -> None:
    spec, first, second = write_spec(CUT), nodes.first, nodes.second

    with sweeping(nodes, spec):
        assert is_soon(lambda: read("said").count("started student") == 2, 300)
        before = workers(second)
        nodes.cut()
        time.sleep(cut_s)
        nodes.mend()
        has_ended = is_soon(lambda: not workers(second), 30 if is_lost else 0)
        assert is_soon(lambda: read("exit"), 300)

    assert len(before) == 1
    assert has_ended == is_lost
    students = [one for one in Store(Path("both")).finished() if one.kind == "student"]
    hosts = sorted(one.manifest["made"]["host"] for one in students)
    assert hosts == ([first, first] if is_lost else [first, second])
    require_rows_of_one_process(spec, Path(f"{first}.log"))
