"""Commands that only look: specs, standings, provenance, this machine, plug-ins."""

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

from spar_bench.cli.completion import ENDINGS, spec_files, swept_trials
from spar_bench.cli.options import size, span, store_option, table, tracking_option
from spar_bench.errors import SparBenchError

if TYPE_CHECKING:
    from spar_bench.session.read import Explained
    from spar_bench.store import Finished

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
    "specs",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="SPEC...",
    shell_complete=spec_files,
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
@click.argument(
    "specs",
    nargs=-1,
    type=click.Path(path_type=Path),
    metavar="[SPEC]...",
    shell_complete=spec_files,
)
@store_option
def status(specs: tuple[Path, ...], store: Path) -> None:
    """Show how far each SPEC is (default: all in experiments/), and why trials failed."""
    from spar_bench.session.read import standing

    rows, failures, problems = [], [], []
    for path in specs or _own_specs():
        try:
            found = standing(path, store=store)
        except SparBenchError as error:
            problems.append(str(error))
            continue
        counts = [found.n_trials.get(state, 0) for state in ("finished", "failed", "skipped")]
        rows.append([found.loaded.experiment, str(sum(counts)), *map(str, counts)])
        failures += [f"{found.loaded.experiment}/{n}: {why}" for n, why in found.failures.items()]
    if rows:
        header = ["experiment", "trials", "finished", "failed", "to do"]
        click.echo(table(header, rows, right="lrrrr"))
    for line in failures:
        click.echo(line)
    if problems:
        raise SparBenchError("\n".join(problems))


def _own_specs() -> list[Path]:
    found = _specs_here()
    if not found:
        raise SparBenchError(
            "experiments/: must hold specs, but has no YAML file; name one, or write one by "
            "`spar-bench init`"
        )
    return found


@click.command()
@click.argument("trial", shell_complete=swept_trials)
@store_option
def explain(trial: str, store: Path) -> None:
    """Say where every number of TRIAL comes from: stages, machine, versions, commit."""
    from spar_bench.session.read import explain as trace

    click.echo("\n\n".join(_explanation(one) for one in trace(trial, store=store)))


NUMBERS = {
    "miou": "evaluate",
    "gflops": "cost",
    "params_m": "cost",
    "latency_p50_ms": "latency",
    "encoder_p50_ms": "latency",
    "peak_mib": "latency",
}
"""The numbers of a row, to the stage that each is of."""


def _explanation(one: "Explained") -> str:
    row = one.row
    place = f"{row.method} on {row.dataset} at {row.eval_short_side_px} px"
    lines = [f"{row.experiment}/{row.trial}  {place}  {row.status}"]
    if row.reason:
        lines.append(f"  {row.reason}")
    cells = []
    for name, kind in NUMBERS.items():
        value = row.miou if name == "miou" else getattr(row.cost, name)
        source = f"{kind} {row.stages.get(kind, '')[:12]}"
        known = [f"{value:.6g}", source] if value is not None else ["not measured", ""]
        cells.append([f"  {name}", *known])
    lines.append(table(["  number", "value", "stage"], cells))
    for stage in one.stages.values():
        lines += _made(stage)
    gone = [
        key for key in row.stages.values() if key not in one.stages and row.status == "finished"
    ]
    lines += [f"  {key[:12]}  is not in the store any more" for key in gone]
    return "\n".join(lines)


def _made(stage: "Finished") -> list[str]:
    """Tell how a stage was made, and from what."""
    made, inputs = stage.manifest["made"], stage.manifest["inputs"]
    ended = datetime.fromtimestamp(made["ended_ms"] / 1000).astimezone()
    sources = ", ".join(f"{role} {key[:12]}" for role, key in inputs.items())
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return [
        f"  {stage.manifest['kind']} {stage.fingerprint[:12]}"
        + (f" from {sources}" if sources else ""),
        f"    made {ended.isoformat(timespec='seconds')} in {span(made['seconds'])} on "
        f"{made['device']} ({made['host']})",
        f"    commit {made['commit'] or 'not known'}; {versions}",
        f"    {stage.folder}",
    ]


@click.command()
@store_option
@tracking_option
def doctor(store: Path, tracking_uri: str | None) -> None:
    """Say what this machine has: versions, device, room, weights and data, and what to do."""
    from spar_bench.track import tracking_uri as resolve

    click.echo(f"python          {platform.python_version()} ({sys.executable})")
    for name in LIBRARIES:
        click.echo(f"{name:<15} {_version(name)}")
    click.echo(f"device          {_device()}")
    click.echo(f"store           {_store(store)}")
    click.echo(f"tracking        {resolve(tracking_uri)}")
    click.echo("\n" + _backbones() + "\n\n" + _datasets() + "\n\n" + _specs())


def _store(root: Path) -> str:
    """Tell whether the store is there and can be used, and how much room it has."""
    from spar_bench.store import Store

    free = size(shutil.disk_usage(_existing(root)).free)
    if not root.exists():
        return f"{root.absolute()} (will be made, {free} free)"
    try:
        n_stages = len(list(Store(root).finished()))
    except SparBenchError as error:
        return str(error)
    return f"{root.absolute()} ({n_stages} stages, {free} free)"


def _specs() -> str:
    """Tell of each spec of this folder whether it can be swept, or what it lacks."""
    from spar_bench.session.ready import missing
    from spar_bench.spec import read_spec

    lines = []
    for path in _specs_here():
        try:
            gaps = missing(read_spec(path))
        except SparBenchError:
            lines.append(f"{path}: has mistakes; spar-bench check {path} tells them")
            continue
        lines.append(f"{path}: " + ("ready" if not gaps else f"{len(gaps)} missing"))
        lines += [f"  {line}" for line in gaps]
    return "\n".join(lines) or "no specs in experiments/; spar-bench init writes one"


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


def _specs_here() -> list[Path]:
    return sorted(path for path in Path("experiments").rglob("*") if path.suffix in ENDINGS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing: install spar-bench again"


def _device() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken installation is what one looks for here
        return f"torch cannot be loaded: {error}; install spar-bench again"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name}, {size(free)} of {size(total)} free, CUDA {torch.version.cuda}"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"cpu, {threads}; no CUDA device is seen"


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
