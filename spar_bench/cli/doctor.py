"""`doctor`: show what this machine has, and what its specs lack."""

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

import click
from rich.filesize import decimal

from spar_bench.cli import backbones, datasets
from spar_bench.cli.completion import specs_here
from spar_bench.cli.options import store_option, tracking_option
from spar_bench.cli.printing import counted
from spar_bench.errors import SparBenchError
from spar_bench.libraries import INSTALLED_WITH_US, installed_version


@click.command()
@store_option
@tracking_option
def doctor(store: Path, tracking_uri: str | None) -> None:
    """Show what this machine has: versions, device, space, tracking, weights, data; what to do."""
    lines = {"python": f"{platform.python_version()} ({sys.executable})"}
    for name in INSTALLED_WITH_US:
        lines[name] = installed_version(name) or "missing: reinstall spar-bench"
    lines |= {
        "device": _device(),
        "store": _store(store),
        "tracking": _tracking(tracking_uri),
        "weights": f"{_listed(backbones.found())}; spar-bench backbones lists the others",
        "data sets": f"{_listed(datasets.found())}; spar-bench datasets lists the others",
    }
    for name, value in lines.items():
        click.echo(f"{name:<15} {value}")
    click.echo("\n" + _specs())


def _listed(names: list[str]) -> str:
    return f"found: {', '.join(names)}" if names else "none found"


def _store(root: Path) -> str:
    """Tell whether the store exists and can be used, and how much space is free."""
    from spar_bench.opening import open_store

    free = decimal(shutil.disk_usage(_existing(root)).free)
    if not root.exists():
        return f"{root.absolute()} (will be created, {free} free)"
    try:
        n_stages = len(list(open_store(root, make=False).finished()))
    except SparBenchError as error:
        return str(error)
    closed = "" if os.access(root, os.W_OK) else ", not writable"
    return f"{root.absolute()} ({counted(n_stages, 'stage')}, {free} free{closed})"


def _tracking(option: str | None) -> str:
    """Tell whether the tracking store answers; nothing is created."""
    from spar_bench import track

    try:
        uri = track.tracking_uri(option)
        return f"{track.masked(uri)} ({'answers' if track.answers(uri) else 'will be created'})"
    except SparBenchError as error:
        return f"cannot be used: {error}"


def _specs() -> str:
    """Tell for each spec of this folder whether it can be swept, or what is missing."""
    from spar_bench.conflicts import read_spec
    from spar_bench.resolve import Resolver
    from spar_bench.session.readiness import missing

    lines = []
    for path in specs_here():
        try:
            gaps = missing(read_spec(path), Resolver())
        except SparBenchError:
            named = shlex.quote(str(path))
            lines.append(f"{path}: has mistakes; spar-bench check {named} lists them")
            continue
        lines.append(f"{path}: " + ("ready" if not gaps else f"{len(gaps)} missing"))
        lines += [f"  {line}" for line in gaps]
    return "\n".join(lines) or "no specs in experiments/; spar-bench init creates one"


def _device() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # this command exists to find broken installations
        return f"torch cannot be loaded: {error}; reinstall spar-bench"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name}, {decimal(free)} of {decimal(total)} free, CUDA {torch.version.cuda}"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"cpu, {threads}; no CUDA device found"


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
