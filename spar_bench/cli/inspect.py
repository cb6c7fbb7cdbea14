"""Commands that only look: specs, standings, provenance, this machine, and what can be plugged in."""

import os
import platform
import shutil
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from spar_bench.cli.options import size, span, store_option, table, tracking_option
from spar_bench.errors import SparBenchError

if TYPE_CHECKING:
    from spar_bench.session.read import Explained

LIBRARIES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "mlflow", "optuna", "pandas"),
    *("seaborn", "numpy", "safetensors", "pydantic"),
)


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("experiments/first.yaml"))
def init(path: Path) -> None:
    """Write a commented spec to begin from to PATH (default: experiments/first.yaml)."""
    from spar_bench.spec.starter import starter
    from spar_bench.store import replace_text, writing

    if path.exists():
        raise SparBenchError(f"{path}: must be a new file, but is there already; name another")
    with writing(path.parent):
        replace_text(path, starter())
    click.echo(f"wrote {path}; next: spar-bench plan {path}, then spar-bench sweep {path}")


@click.command()
@click.argument(
    "specs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SPEC..."
)
@click.option("--ready", is_flag=True, help="Exit with 2 when weights or data are missing.")
def check(specs: tuple[Path, ...], ready: bool) -> None:
    """Read each SPEC and tell every mistake in it; list weights and data that are missing."""
    from spar_bench.errors import NotReady, SpecError
    from spar_bench.session.ready import missing
    from spar_bench.spec import read_spec

    problems: list[str] = []
    lacking: list[str] = []
    for path in specs:
        try:
            loaded = read_spec(path)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        gaps = missing(loaded)
        lacking.extend(gaps)
        n_points = f"{len(loaded.points)} points" if loaded.points else "a search"
        click.echo(f"{path}: reads well, {n_points}" + (f", {len(gaps)} missing:" if gaps else ""))
        for line in gaps:
            click.echo(f"  {line}")
    if problems:
        raise SpecError(*problems)
    if lacking and ready:
        raise NotReady(f"not ready: {len(lacking)} missing, listed above")


@click.command()
@click.argument("specs", nargs=-1, type=click.Path(path_type=Path), metavar="[SPEC]...")
@store_option
def status(specs: tuple[Path, ...], store: Path) -> None:
    """Show how far each SPEC is (default: all in experiments/), and why trials failed."""
    from spar_bench.session.read import standing

    paths = specs or tuple(sorted(Path("experiments").rglob("*.yaml")))
    rows, failures = [], []
    for path in paths:
        found = standing(path, store=store)
        counts = [found.n_trials.get(state, 0) for state in ("finished", "failed", "skipped")]
        rows.append([found.loaded.experiment, str(sum(counts)), *map(str, counts)])
        failures += [f"{found.loaded.experiment}/{n}: {why}" for n, why in found.failures.items()]
    click.echo(table(["experiment", "trials", "finished", "failed", "to do"], rows, right="lrrrr"))
    for line in failures:
        click.echo(line)


@click.command()
@click.argument("trial")
@store_option
def explain(trial: str, store: Path) -> None:
    """Say where every number of TRIAL comes from: stages, machine, versions, commit."""
    from spar_bench.session.read import explain as trace

    click.echo("\n\n".join(_explanation(one) for one in trace(trial, store=store)))


def _explanation(one: "Explained") -> str:
    row = one.row
    head = f"{row.experiment}/{row.trial}  {row.method} on {row.dataset} at {row.eval_short_side_px} px"
    numbers = {
        "miou": row.miou,
        "gflops": row.cost.gflops,
        "latency_p50_ms": row.cost.latency_p50_ms,
        "peak_mib": row.cost.peak_mib,
    }
    said = ", ".join(
        f"{k} {'not measured' if v is None else f'{v:.6g}'}" for k, v in numbers.items()
    )
    lines = [head, f"  {row.status}: {said}" + (f" ({row.reason})" if row.reason else "")]
    for fingerprint, stage in one.stages.items():
        made = stage.manifest["made"]
        at = (
            datetime.fromtimestamp(made["ended_ms"] / 1000)
            .astimezone()
            .isoformat(timespec="seconds")
        )
        lines += [
            f"  {stage.manifest['kind']} {fingerprint[:12]}  made {at} in {span(made['seconds'])}",
            f"    on {made['device']} ({made['host']}), commit {made['commit'] or 'not known'}, "
            + ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
            f"    {stage.folder}",
        ]
    return "\n".join(lines)


@click.command()
@store_option
@tracking_option
def doctor(store: Path, tracking_uri: str | None) -> None:
    """Say what this machine has: versions, device, room, weights and data, and what to do."""
    from spar_bench.track import tracking_uri as resolve

    click.echo(f"python      {platform.python_version()} ({sys.executable})")
    for name in LIBRARIES:
        click.echo(f"{name:<11} {_version(name)}")
    click.echo(f"device      {_device()}")
    free = shutil.disk_usage(_existing(store)).free
    held = "found" if store.exists() else "will be made"
    click.echo(f"store       {store.absolute()} ({held}, {size(free)} free)")
    click.echo(f"tracking    {resolve(tracking_uri)}")
    click.echo("\n" + _backbones() + "\n\n" + _datasets())


@click.command()
def backbones() -> None:
    """List backbones: sizes, licence, where weights come from, and whether they are found."""
    click.echo(_backbones())


@click.command()
def datasets() -> None:
    """List data set plug-ins and what each reads."""
    click.echo(_datasets())


@click.command()
def losses() -> None:
    """List distillation losses and what each does."""
    click.echo(_family("losses"))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL: eval "$(spar-bench completion bash)"."""
    from spar_bench.cli import main

    kind = get_completion_class(shell)
    assert kind is not None, "click completes bash, zsh and fish"
    click.echo(kind(main, {}, "spar-bench", "_SPAR_BENCH_COMPLETE").source())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing: install spar-bench again"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name}, {size(free)} of {size(total)} free, CUDA {torch.version.cuda}"
    return (
        f"cpu, {torch.get_num_threads()} threads of {os.cpu_count()} cores; no CUDA device is seen"
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _family(family: str) -> str:
    from spar_bench import registry

    return table(
        ["name", "version", "what it is"],
        [
            [name, str(registry.version(family, name)), registry.purpose(family, name)]
            for name in registry.names(family)
        ],
    )


def _backbones() -> str:
    from spar_bench import backbones, registry
    from spar_bench.spec.schema import BackboneSpec

    rows = []
    for name in registry.names("backbones"):
        sizes = backbones.sizes(BackboneSpec(name=name))
        if sizes is None:
            rows.append(
                [name, "", "", "", "", "say backbone.path: " + registry.purpose("backbones", name)]
            )
            continue
        found = "found" if sizes.folder else "give backbone.path"
        rows.append(
            [name, f"{sizes.patch_px}", f"{sizes.image_px}", sizes.license, found, sizes.source]
        )
    return table(
        ["backbone", "patch px", "image px", "licence", "weights", "source"], rows, right="lrrlll"
    )


def _datasets() -> str:
    return _family("datasets")
