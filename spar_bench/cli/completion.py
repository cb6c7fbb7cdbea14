"""`completion`, and what the shell completes: specs, trials and experiments."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from spar_bench.errors import SparBenchError
from spar_bench.files import YAML_ENDINGS


def specs(incomplete: str) -> list[CompletionItem]:
    """Complete the names of experiments, folders and YAML files."""
    names = _among(experiments_here(), incomplete) if incomplete else []
    return names + files(incomplete)


def files(incomplete: str) -> list[CompletionItem]:
    """Complete folders and YAML files."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") or not incomplete else typed.parent
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # there is nothing to complete
        return []
    offered = [
        f"{path}/" if path.is_dir() else str(path)
        for path in entries
        if path.is_dir() or path.suffix in YAML_ENDINGS
    ]
    return _among(offered, incomplete)


def dataset_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete data sets, and YAML files once a path is begun."""
    from spar_bench.registry import names

    return _among(names("datasets"), incomplete) or files(incomplete)


def trials_to_come(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the trials and groups of the spec named on the command line."""
    from spar_bench.conflicts import read_spec
    from spar_bench.plan.making import make_plan

    # Click has not assigned arguments yet if the option before the cursor lacks its value.
    known = experiments_here()
    named = [str(name) for name in (context.params.get("spec"), *context.args) if name]
    specs = [known.get(n, Path(n)) for n in named if n in known or n.endswith(YAML_ENDINGS)]
    if not specs:
        return []
    try:
        loaded = read_spec(specs[0])
        trials = make_plan(loaded.points, loaded.spec.seeds, None).trials
    except SparBenchError:  # reported when the command is run
        return []
    return _among({name for t in trials for name in (t.name, t.group)}, incomplete)


def swept_trials(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the trials of finished sweeps, prefixed by experiment once a slash is typed."""
    from spar_bench.results import Results

    rows = []
    for folder in _results(context):
        with suppress(SparBenchError):  # reported when the command is run
            rows += Results.load(folder).rows
    names = {row.trial for row in rows} | {f"{row.experiment}/{row.trial}" for row in rows}
    return _among(names, incomplete)


def swept_experiments(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the experiments that have results in the store."""
    root = _root(context)
    return _among((f.relative_to(root).as_posix() for f in _results(context)), incomplete)


def _root(context: click.Context) -> Path:
    return Path(context.params.get("store") or ".spar_bench") / "results"


def _results(context: click.Context) -> list[Path]:
    from spar_bench.results import RESULTS_FILE

    return sorted(path.parent for path in _root(context).rglob(RESULTS_FILE))


def _among(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def specs_here() -> list[Path]:
    """Return the specs of the working directory."""
    return sorted(path for path in Path("experiments").rglob("*") if path.suffix in YAML_ENDINGS)


def experiments_here() -> dict[str, Path]:
    """Map the experiments of the working directory, by name, to their specs."""
    from spar_bench.spec.read import experiment_name

    return {experiment_name(path): path for path in specs_here()}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: eval "$(spar-bench completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None, "click completes bash, zsh and fish"
    main = context.find_root().command
    click.echo(kind(main, {}, "spar-bench", "_SPAR_BENCH_COMPLETE").source())
