"""`backbones`: list backbones, and where to get weights that are missing."""

import click

from spar_bench.cli.printing import indented, table
from spar_bench.errors import NotReady, SparBenchError

FOUND, MISSING, BY_PATH = "found", "missing", "by path"


@click.command()
def backbones() -> None:
    """List backbones: sizes, licence, whether weights are found, and where to get them."""
    from spar_bench import registry
    from spar_bench.components.weights import weights_folder

    rows, remarks, missing = list[list[str]](), list[str](), list[str]()
    for name in registry.names("backbones"):
        try:
            row = _row(name)
        except SparBenchError as error:
            remarks.append(f"  {name} cannot be used: {error}")
            continue
        rows.append(row)
        if row[3] == BY_PATH:
            remarks.append(indented(f"{name}: {registry.purpose('backbones', name)}"))
        elif row[3] == MISSING:
            missing.append(_origin(name))
    click.echo(table(["backbone", "patch px", "image px", "weights", "licence"], rows, "lrrll"))
    if remarks:
        click.echo("\n" + "\n".join(remarks))
    if missing:
        click.echo(
            f"\nMissing weights are looked for in {weights_folder() / 'NAME'} and in the Hugging "
            "Face cache,\nand can be named as backbone.path:"
        )
        click.echo("\n".join(missing))


def found() -> list[str]:
    """Return the backbones whose weights are found."""
    from spar_bench import registry

    return [name for name in registry.names("backbones") if _found(name) == FOUND]


def _row(name: str) -> list[str]:
    """Return the row of a backbone.

    Raises:
        SparBenchError: it cannot be used.
    """
    from spar_bench import registry
    from spar_bench.components import backbone
    from spar_bench.spec.schema import BackboneSpec

    registry.version("backbones", registry.plugin("backbones", name))
    sizes = backbone.sizes(BackboneSpec(name=name))
    if sizes is None:
        return [name, "", "", BY_PATH, ""]
    patch_px, image_px = str(sizes.patch_px), str(sizes.image_px)
    return [name, patch_px, image_px, _found(name), backbone.card(name).license]


def _found(name: str) -> str:
    """Return whether a backbone's weights and tokenizer are found, or that it needs a path."""
    from spar_bench.components import backbone
    from spar_bench.spec.schema import BackboneSpec

    spec = BackboneSpec(name=name)
    try:
        if backbone.sizes(spec) is None:
            return BY_PATH
        backbone.weights_of(spec)
    except SparBenchError:
        return MISSING
    try:
        backbone.require_backbone_tokenizer(spec)
    except NotReady:
        return "no tokenizer"
    return FOUND


def _origin(name: str) -> str:
    """Return where to get a backbone's weights, and what their licence asks for."""
    from spar_bench.components import backbone

    card = backbone.card(name)
    texts = [text for text in (card.terms, card.source) if text]
    return "\n".join([f"  {name} ({card.license})", *map(indented, texts)])
