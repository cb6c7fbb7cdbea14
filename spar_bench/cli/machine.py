"""Commands about this machine: versions, device, free space, plug-ins, shell completion."""

import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from spar_bench.cli.backbones import backbones_table
from spar_bench.cli.completion import specs_here
from spar_bench.cli.data import listed_datasets
from spar_bench.cli.options import counted, size, store_option, table, tracking_option
from spar_bench.errors import SparBenchError
from spar_bench.libraries import INSTALLED_WITH_US, installed_version


@click.command()
@store_option
@tracking_option
def doctor(store: Path, tracking_uri: str | None) -> None:
    """Show what this machine has: versions, device, space, tracking, weights, data; what to do."""
    click.echo(f"python          {platform.python_version()} ({sys.executable})")
    for name in INSTALLED_WITH_US:
        stated = installed_version(name) or "missing: reinstall spar-bench"
        click.echo(f"{name:<15} {stated}")
    click.echo(f"device          {_device()}")
    click.echo(f"store           {_store(store)}")
    click.echo(f"tracking        {_tracking(tracking_uri)}")
    click.echo("\n" + backbones_table() + "\n\n" + listed_datasets() + "\n\n" + _specs())


def _store(root: Path) -> str:
    """Tell whether the store exists and can be used, and how much space is free."""
    from spar_bench.store import Store

    free = size(shutil.disk_usage(_existing(root)).free)
    if not root.exists():
        return f"{root.absolute()} (will be created, {free} free)"
    try:
        n_stages = len(list(Store(root, make=False).finished()))
    except SparBenchError as error:
        return str(error)
    closed = "" if os.access(root, os.W_OK) else ", not writable"
    return f"{root.absolute()} ({counted(n_stages, 'stage')}, {free} free{closed})"


def _tracking(option: str | None) -> str:
    """Tell whether the tracking store answers; nothing is created."""
    from spar_bench import track

    try:
        uri = track.tracking_uri(option)
        return f"{uri} ({'answers' if track.answers(uri) else 'will be created'})"
    except SparBenchError as error:
        return f"cannot be used: {error}"


def _specs() -> str:
    """Tell for each spec of this folder whether it can be swept, or what is missing."""
    from spar_bench.resolve import Resolver
    from spar_bench.session.ready import missing
    from spar_bench.spec import read_spec

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


@click.command()
def losses() -> None:
    """List distillation losses and what each does."""
    click.echo(_family("losses"))


@click.command()
def refiners() -> None:
    """List refiners of class scores and what each does."""
    click.echo(_family("refiners"))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script for SHELL: eval "$(spar-bench completion bash)"."""
    from spar_bench.cli import main

    kind = get_completion_class(shell)
    assert kind is not None, "click completes bash, zsh and fish"
    click.echo(kind(main, {}, "spar-bench", "_SPAR_BENCH_COMPLETE").source())


def _device() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # this command exists to find broken installations
        return f"torch cannot be loaded: {error}; reinstall spar-bench"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name}, {size(free)} of {size(total)} free, CUDA {torch.version.cuda}"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"cpu, {threads}; no CUDA device found"


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _family(family: str) -> str:
    from spar_bench import registry

    rows = [_plug_in(family, name) for name in registry.names(family)]
    return table(["name", "version", "what it is"], rows)


def _plug_in(family: str, name: str) -> list[str]:
    """Return the row of a plug-in, or what is wrong with it if it cannot be used."""
    from spar_bench import registry

    try:
        return [name, str(registry.version(family, name)), registry.purpose(family, name)]
    except SparBenchError as error:
        return [name, "", str(error)]
