"""Two nodes in network namespaces, joined as `docs/clusters/ray.sbatch` does, on one store."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from spar_bench.session.sweep import Options, sweep
from spar_bench.store import Store
from tests.session.test_sweep import told
from tests.small import TIMED, UNTIMED, write_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"),
        reason="it needs root, for network namespaces",
    ),
]
HEAD = "10.77.0.1"
PORT = 6399


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """The namespaces of two nodes that reach each other, and nothing else."""
    names = [f"spar-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        first, second = names
        ip(
            "link",
            "add",
            "v1",
            "netns",
            first,
            "type",
            "veth",
            "peer",
            "name",
            "v1",
            "netns",
            second,
        )
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "v1")
            ip("-n", name, "link", "set", "v1", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def joined(name: str, folder: Path, command: str) -> subprocess.Popen[bytes]:
    """Start Ray on a node, as the script does; the command runs on the first."""
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "300",
        "RAY_TMPDIR": f"/tmp/{name}",  # a socket's path is short
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    Path(environment["RAY_TMPDIR"]).mkdir()
    ray = [
        *("ray", "symmetric-run", "--address", f"{HEAD}:{PORT}", "--min-nodes", "2"),
        *("--num-cpus", "1", "--object-store-memory", "100000000", "--", "bash", "-c", command),
    ]
    # Its own process numbers, since Ray looks for others by them, and its own name.
    own = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    named = ["sh", "-c", 'hostname "$0" && exec "$@"', name]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *own, *named, *ray],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


@contextmanager
def sweeping(here: Path, nodes: list[str], spec: str) -> Iterator[None]:
    """Sweep a spec on both nodes, into the store `both`; at the end nothing of them is left."""
    (here / ".ray").mkdir()
    (here / ".ray" / "auth_token").write_text("a" * 64)
    (here / ".ray" / "auth_token").chmod(0o600)
    command = (
        f"{sys.executable} -m spar_bench sweep {spec} --on {HEAD}:{PORT} --threads 1 "
        "--store both 2> said; echo $? > exit"
    )
    processes = [joined(name, here, command) for name in nodes]
    try:
        yield
    finally:
        for process, name in zip(processes, nodes, strict=True):
            process.kill()
            process.wait(60)
            shutil.rmtree(f"/tmp/{name}", ignore_errors=True)


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


def test_two_nodes_make_one_sweep_with_the_rows_of_one_process(
    here: Path, nodes: list[str]
) -> None:
    spec = write_spec(TIMED)

    with sweeping(here, nodes, spec):
        assert is_soon(lambda: read("exit"), 300)

    require_rows_of_one_process(spec, here / f"{nodes[0]}.log")


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
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "8",
}
"""Ray declares a node dead that does not answer 8 times, after 8 to 16 seconds."""


@pytest.mark.parametrize(("cut_s", "is_lost"), [(3.0, False), (25.0, True)])
def test_sweep_goes_on_while_its_nodes_cannot_reach_each_other(
    here: Path, nodes: list[str], monkeypatch: pytest.MonkeyPatch, cut_s: float, is_lost: bool
) -> None:
    for name, value in HEALTH.items():
        monkeypatch.setenv(name, value)
    spec, (first, second) = write_spec(CUT), nodes

    with sweeping(here, nodes, spec):
        assert is_soon(lambda: read("said").count("started student") == 2, 300)
        before = workers(second)
        ip("-n", second, "link", "set", "v1", "down")
        time.sleep(cut_s)
        ip("-n", second, "link", "set", "v1", "up")
        has_ended = is_soon(lambda: not workers(second), 30 if is_lost else 0)
        assert is_soon(lambda: read("exit"), 300)

    assert len(before) == 1
    assert has_ended == is_lost
    students = [one for one in Store(Path("both")).finished() if one.kind == "student"]
    hosts = sorted(one.manifest["made"]["host"] for one in students)
    assert hosts == ([first, first] if is_lost else [first, second])
    require_rows_of_one_process(spec, here / f"{first}.log")
