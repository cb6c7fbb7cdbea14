"""Two nodes in network namespaces, joined as `docs/clusters/ray.sbatch` does, on one store."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spar_bench.session.sweep import Options, sweep
from tests.session.test_sweep import told
from tests.small import TIMED, write_spec

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
    # Its own process numbers, since Ray looks for others by them.
    own = ["ip", "netns", "exec", name, "unshare", "-p", "-f", "--mount-proc", *ray]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(own, cwd=folder, env=environment, stdout=log, stderr=log)


def test_two_nodes_make_one_sweep_with_the_rows_of_one_process(
    here: Path, nodes: list[str]
) -> None:
    spec = write_spec(TIMED)
    (here / ".ray").mkdir()
    (here / ".ray" / "auth_token").write_text("a" * 64)
    (here / ".ray" / "auth_token").chmod(0o600)
    command = (
        f"{sys.executable} -m spar_bench sweep {spec} --on {HEAD}:{PORT} --threads 1 "
        "--store both 2> said; echo $? > exit"
    )
    processes = [joined(name, here, command) for name in nodes]
    try:
        processes[0].wait(300)
    finally:
        for process, name in zip(processes, nodes, strict=True):
            process.terminate()
            process.wait(60)
            shutil.rmtree(f"/tmp/{name}", ignore_errors=True)

    log = (here / f"{nodes[0]}.log").read_text(errors="replace")
    assert (here / "exit").read_text() == "0\n", log[-4000:]
    said = (here / "said").read_text()
    assert said.count("\nmade ") == len(list((here / "both/stages").glob("*/*")))
    alone = sweep(spec, Options(store="alone", threads=1))
    both = sweep(spec, Options(store="both", threads=1))
    assert told(both.rows) == told(alone.rows)
