"""`import`: take in a student that was trained elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from spar_bench.cli.options import HomePath, store_option
from spar_bench.errors import NotReady, SparBenchError

_TYPED = {
    "backbone.path": "--path",
    "backbone.read_out": "--read-out",
    "student.checkpoint": "CHECKPOINT",
}
"""The options of `import` that stand for keys of a spec."""


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
    from pydantic import ValidationError

    from spar_bench.session.exchange import import_student
    from spar_bench.spec.schema import BackboneSpec
    from spar_bench.validation import dotted, mistakes

    try:
        spec = BackboneSpec.model_validate({"name": backbone, **settings})
    except ValidationError as error:
        first = next(mistakes(error))
        option = dotted(first.steps).replace("_", "-")
        raise SparBenchError(f"--{option}: {first.text}") from error
    with _as_typed():
        student = import_student(checkpoint, spec, store=store)
    summary = student.summary
    click.echo(
        f"{checkpoint}: {summary['trained_tensors']} of {summary['all_tensors']} tensors "
        f"({summary['trained_params']:,} weights) differ from those of {backbone}\n"
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
        text = str(error)
        for key, typed in _TYPED.items():
            text = text.replace(key, typed)
        raise SparBenchError(text) from error
