"""Commands about data sets: list them, show their data files, check that files are complete."""

from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import dataset_names
from spar_bench.cli.printing import counted, indented, table
from spar_bench.errors import DataError, DataFileError, SparBenchError

if TYPE_CHECKING:
    from spar_bench.datasets.base import Split
    from spar_bench.spec.schema import DatasetSpec

SHOWN_PROBLEMS = 20

name_argument = click.argument("name", shell_complete=dataset_names)


@click.group(invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List data sets: classes, licence, where they are, or where to get them."""
    from spar_bench import registry

    if context.invoked_subcommand is not None:
        return
    rows, remarks = list[list[str]](), list[str]()
    for name in registry.names("datasets"):
        try:
            row, remark = _row(name)
            rows.append(row)
            remarks.append(indented(f"{name}: {remark}"))
        except SparBenchError as error:
            remarks.append(f"  {name} cannot be used: {error}")
    click.echo(table(["data set", "classes", "found", "licence"], rows, "lrll"))
    click.echo("\nWhere they are, or where to get them:\n" + "\n".join(remarks))


def found() -> list[str]:
    """Return the data sets whose files are found, or that need none."""
    from spar_bench import registry

    return [name for name in registry.names("datasets") if name == "patchwork" or _place(name)]


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
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataFileError(
                f"{path}: must be UTF-8 to be shown, but is not; save it as UTF-8"
            ) from error
        click.echo(text, nl=False)


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
    kind = "labelled image" if found.has_masks else "image"
    where = f" in {found.root}" if found.root else ""
    seen = f"{name} {found.split}: {counted(found.n_images, kind)}{where}, {found.n_opened} opened"
    if found.problems:
        raise DataError(f"{seen}, {counted(len(found.problems), 'problem')}")
    click.echo(f"{seen}, nothing wrong")


def _row(name: str) -> tuple[list[str], str]:
    """Return the row of a data set, and where it is or where to get it.

    Raises:
        SparBenchError: it cannot be used.
    """
    from spar_bench import datasets as family
    from spar_bench import registry

    registry.version("datasets", name)
    facts = family.facts(_spec(name))
    if registry.plugin("datasets", name) != "tree":
        return [name, "", "see below", ""], registry.purpose("datasets", name)
    place = _place(name)
    classes = str(len(facts.classes)) if facts.classes else ""
    row = [name, classes, "yes" if place else "no", facts.license or ""]
    return row, place or facts.source or "its data file states no source"


def _place(name: str) -> str:
    """Return the folder of a data set's tree, or "" if it is not found."""
    from spar_bench import datasets as family
    from spar_bench import registry
    from spar_bench.datasets import tree
    from spar_bench.datasets._checking import usual_split

    spec = _spec(name)
    try:
        if registry.plugin("datasets", name) != "tree":
            return ""
        return str(tree.place(usual_split(spec), family.settings(spec)))
    except SparBenchError:
        return ""


def _spec(name: str, path: str | None = None) -> "DatasetSpec":
    """Return a data set as a spec would name it; the plug-in complains if it needs a path."""
    from spar_bench.spec.schema import DatasetSpec

    return DatasetSpec.model_construct(name=name, path=path)


def _commented(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
