"""Commands about data sets: list them, show their data files, check that files are complete."""

from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import dataset_names
from spar_bench.cli.options import counted, table
from spar_bench.errors import DataError, SparBenchError

if TYPE_CHECKING:
    from spar_bench.datasets.base import Split
    from spar_bench.spec.schema import DatasetSpec

SHOWN_PROBLEMS = 20

name_argument = click.argument("name", shell_complete=dataset_names)


@click.group(invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List data sets: classes, whether found and where, licence, source."""
    if context.invoked_subcommand is None:
        click.echo(listed_datasets())


@datasets.command()
@name_argument
def show(name: str) -> None:
    """Print the data file of NAME, with the files that it expects.

    `spar-bench datasets show voc21 > mine.yaml` begins one of your own; a spec names it by its
    path.
    """
    from spar_bench import registry

    registry.plugin("datasets", name)
    path = registry.data_file("datasets", name)
    if path is None:
        text = registry.docstring("datasets", name)
        click.echo(_commented(f"{name} has no data file; its plug-in says:\n\n{text}"))
    else:
        click.echo(path.read_text(encoding="utf-8"), nl=False)


@datasets.command()
@name_argument
@click.option("--path", metavar="FOLDER", help="Where it is  [default: $SPAR_BENCH_DATA, data]")
@click.option("--split", type=click.Choice(["val", "train"]), help="[default: val if it has one]")
@click.option("--all", "every", is_flag=True, help="Open every image, not just a sample.")
def check(name: str, path: str | None, split: "Split | None", every: bool) -> None:
    """Look for missing, broken and mislabelled files of NAME; exit code 2 if there are any."""
    from spar_bench.datasets._checking import check

    found = check(_spec(name, path), split, every=every)
    for line in found.problems[:SHOWN_PROBLEMS]:
        click.echo(line)
    if len(found.problems) > SHOWN_PROBLEMS:
        click.echo(f"... and {len(found.problems) - SHOWN_PROBLEMS} more")
    kind = "labelled image" if found.split == "val" else "image"
    where = f" in {found.root}" if found.root else ""
    seen = f"{name} {found.split}: {counted(found.n_images, kind)}{where}, {found.n_opened} opened"
    if found.problems:
        raise DataError(f"{seen}, {counted(len(found.problems), 'problem')}")
    click.echo(f"{seen}, nothing wrong")


def listed_datasets() -> str:
    """Return the table of data sets."""
    from spar_bench import registry

    rows = [_row(name) for name in registry.names("datasets")]
    return table(["data set", "classes", "found", "where; licence; source"], rows, right="lrll")


def _row(name: str) -> list[str]:
    """Return the row of a data set, or what is wrong with it if it cannot be used."""
    from spar_bench import datasets, registry

    try:
        registry.version("datasets", name)
        facts, purpose = datasets.facts(_spec(name)), registry.purpose("datasets", name)
    except SparBenchError as error:
        return [name, "", "", str(error)]
    if registry.plugin("datasets", name) != "tree":
        return [name, "", "", purpose]
    found, where = _found(name)
    classes = str(len(facts.classes)) if facts.classes else ""
    return [name, classes, found, "; ".join(filter(None, [where, facts.license, facts.source]))]


def _found(name: str) -> tuple[str, str]:
    """Tell whether a data set's tree is found, and where."""
    from spar_bench import datasets
    from spar_bench.datasets import tree
    from spar_bench.datasets._checking import usual_split

    spec = _spec(name)
    try:
        return "yes", str(tree.place(usual_split(spec), datasets.settings(spec)))
    except SparBenchError:
        return "no", ""


def _spec(name: str, path: str | None = None) -> "DatasetSpec":
    """Return a data set as a spec would name it; the plug-in complains if it needs a path."""
    from spar_bench.spec.schema import DatasetSpec

    return DatasetSpec.model_construct(name=name, path=path)


def _commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
