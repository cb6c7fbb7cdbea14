"""Commands about backbones and their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import swept_trials
from spar_bench.cli.options import HomePath, store_option, table
from spar_bench.errors import NotReady, SparBenchError

if TYPE_CHECKING:
    from spar_bench.backbones.base import Library

_TYPED = {
    "backbone.path": "--path",
    "backbone.read_out": "--read-out",
    "student.checkpoint": "CHECKPOINT",
}
"""The options of `import` that stand for keys of a spec."""


@click.command()
def backbones_command() -> None:
    """List backbones: sizes, licence, whether weights are found, and where to get them."""
    from spar_bench import registry
    from spar_bench.backbones._weights import weights_folder

    click.echo(backbones_table())
    missing = [name for name in registry.names("backbones") if _found(name) == "missing"]
    if not missing:
        return
    click.echo(
        f"\nMissing weights are looked for in {weights_folder() / 'NAME'} and in the Hugging Face "
        "cache,\nand can be named as backbone.path:"
    )
    for name in missing:
        click.echo(_origin(name))


@click.command("import")
@click.argument("checkpoint", type=HomePath())
@click.option("--backbone", required=True, metavar="NAME", help="What it was trained from.")
@click.option("--path", metavar="PATH", help="The backbone's weights, as backbone.path in a spec.")
@click.option("--preprocessing", type=click.Choice(["model", "legacy"]), default="model",
              show_default=True, help="As backbone.preprocessing in a spec.")  # fmt: skip
@click.option("--read-out", metavar="NAME", help="As backbone.read_out in a spec.")
@store_option
def import_(checkpoint: Path, backbone: str, store: Path, **settings: str | None) -> None:
    """Take CHECKPOINT in as a student: a Lightning .ckpt, a .pth or .pt, or safetensors.

    The paper's released files are of this kind. Nothing in the file is run.
    """
    _require_file(checkpoint)  # before torch is imported
    from spar_bench.session.exchange import import_student
    from spar_bench.spec.schema import BackboneSpec

    spec = BackboneSpec.model_validate({"name": backbone, **settings})
    with _as_typed():
        student = import_student(checkpoint, spec, store=store)
    said = student.summary
    click.echo(
        f"{checkpoint}: {said['trained_tensors']} of {said['all_tensors']} tensors "
        f"({said['trained_params']:,} weights) differ from those of {backbone}\n"
        f"imported as {student.folder}\n"
        f"evaluate it by `student: {{checkpoint: {checkpoint}}}` in a spec with that backbone"
    )


def _require_file(checkpoint: Path) -> None:
    if not checkpoint.is_file():
        found = "is a folder; name a file" if checkpoint.is_dir() else "is not there; correct it"
        raise NotReady(f"{checkpoint}: must be a file of weights, but {found}")


@contextmanager
def _as_typed() -> Iterator[None]:
    """Replace the spec's keys in a message by the options that were typed for them."""
    try:
        yield
    except SparBenchError as error:
        said = str(error)
        for key, typed in _TYPED.items():
            said = said.replace(key, typed)
        raise SparBenchError(said) from error


@click.command()
@click.argument("student", type=HomePath(path_type=str), shell_complete=swept_trials)
@click.option(
    "--format",
    "library",
    required=True,
    type=click.Choice(["open_clip", "timm"]),
    help="Which library reads it; open_clip's has the text tower too.",
)
@click.option("--to", "folder", required=True, type=HomePath(), help="A new folder.")
@store_option
def export(student: str, library: "Library", folder: Path, store: Path) -> None:
    """Write STUDENT, a trial or a student's folder, for use without spar-bench."""
    from spar_bench.session.exchange import export_student

    difference = export_student(student, library, folder, store=store)
    by = {
        "open_clip": f'open_clip.create_model_from_pretrained("local-dir:{folder}")',
        "timm": f'timm.create_model("local-dir:{folder}", pretrained=True)',
    }
    click.echo(
        f"wrote {folder}; {library} alone reads it to within {difference:.1g} of our own:\n"
        f"  {by[library]}"
    )


def backbones_table() -> str:
    """Return the backbones as a table, one per line."""
    from spar_bench import registry

    header = ["backbone", "patch px", "image px", "weights", "licence"]
    return table(header, [_row(name) for name in registry.names("backbones")], right="lrrll")


def _row(name: str) -> list[str]:
    """Return the row of a backbone, or what is wrong with it if it cannot be used."""
    from spar_bench import backbones, registry
    from spar_bench.spec.schema import BackboneSpec

    try:
        registry.version("backbones", registry.plugin("backbones", name))
        sizes, license_ = backbones.sizes(BackboneSpec(name=name)), backbones.card(name).license
    except SparBenchError as error:
        return [name, "", "", "", str(error)]
    if sizes is None:
        return [name, "", "", "by path", registry.purpose("backbones", name)]
    return [name, str(sizes.patch_px), str(sizes.image_px), _found(name), license_]


def _found(name: str) -> str:
    """Tell whether a backbone's weights and tokenizer are found; empty where it needs a path."""
    from spar_bench import backbones
    from spar_bench.spec.schema import BackboneSpec

    spec = BackboneSpec(name=name)
    try:
        if backbones.sizes(spec) is None:
            return ""
        backbones.weights_of(spec)
    except SparBenchError:
        return "missing"
    try:
        backbones.require_tokenizer(spec)
    except NotReady:
        return "no tokenizer"
    return "found"


def _origin(name: str) -> str:
    """Return where to get a backbone's weights, and what their licence asks for."""
    from spar_bench import backbones

    card = backbones.card(name)
    said = [text for text in (card.terms, card.source) if text]
    return "\n".join([f"  {name} ({card.license})", *map(_wrapped, said)])


def _wrapped(text: str) -> str:
    """Wrap a text at spaces only, so that file names and addresses stay whole."""
    indent = " " * 4
    return fill(
        text,
        80,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
