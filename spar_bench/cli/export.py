"""`export`: write a student for use without spar-bench."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import swept_trials
from spar_bench.cli.options import HomePath, store_option

if TYPE_CHECKING:
    from spar_bench.backbones.base import Library


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
