"""Make one small plan again and again while everything that can fail does; then count.

    python -m tests.soak --minutes 30 --folder FOLDER

Needs root, for a small disk of its own that it fills and locks and for two nodes in namespaces,
PostgreSQL's programs, which hold MLflow's runs and are ended at random, and moto, for a bucket.
Prints a table of faults, and ends with 1 if a promise of `docs/clusters.md` was broken.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

from tests.backends.nodes import Nodes
from tests.soak.faults import FAULTS_COUNTED, Ground
from tests.soak.ground import Database, Disk, Service
from tests.soak.rounds import Round, undisturbed


def main() -> int:
    """Run rounds until the time is over; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + 60 * options.minutes
    drawn, rounds = random.Random(options.seed), list[Round]()
    home, cache = folder / "home", folder / "cache"
    for left in (home, cache):
        shutil.rmtree(left, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)  # where copies of a bucket's stages are
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    with (
        Disk(folder / "disk") as disk,
        Database(folder / "postgres") as database,
        Nodes(home) as nodes,
        Service() as bucket,
    ):
        expected = undisturbed(folder)
        while time.monotonic() < ends_at:
            ground = Ground(disk, database, drawn)
            rounds.append(Round(len(rounds), folder, ground, nodes, bucket))
            rounds[-1].run(expected, until=ends_at)
            print(rounds[-1].line(), flush=True)
    report(rounds, folder / "soak.json")
    return int(any(one.broken for one in rounds))


def report(rounds: list[Round], path: Path) -> None:
    """Print how often each fault was made, and what was broken."""
    counts = {name: sum(one.faults.count(name) for one in rounds) for name in FAULTS_COUNTED}
    broken = [f"round {one.number}: {line}" for one in rounds for line in one.broken]
    path.write_text(json.dumps({"faults": counts, "rounds": len(rounds), "broken": broken}))
    print("| fault | times |\n| --- | --: |")
    for name, count in counts.items():
        print(f"| {name} | {count} |")
    print(f"| **all** | **{sum(counts.values())}** in {len(rounds)} rounds |")
    print("\n".join(broken) or "nothing was broken")


if __name__ == "__main__":
    sys.exit(main())
