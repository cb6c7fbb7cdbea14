"""Commands about backbones and their weights."""

import click

from spar_bench.cli.options import table
from spar_bench.errors import SparBenchError


@click.command()
def backbones() -> None:
    """List backbones: sizes, licence, whether weights are found, and where to get them."""
    from spar_bench import registry
    from spar_bench.backbones.weights import weights_folder

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


def backbones_table() -> str:
    """Return the backbones as a table, one a line."""
    from spar_bench import registry

    header = ["backbone", "patch px", "image px", "weights", "licence"]
    return table(header, [_row(name) for name in registry.names("backbones")], right="lrrll")


def _row(name: str) -> list[str]:
    """Return the row of a backbone; of one that cannot be used, what is wrong with it."""
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
    """Tell whether a backbone's weights are there; one that only a path makes is neither."""
    from spar_bench import backbones
    from spar_bench.spec.schema import BackboneSpec

    spec = BackboneSpec(name=name)
    try:
        if backbones.sizes(spec) is None:
            return ""
        backbones.weights_of(spec)
    except SparBenchError:
        return "missing"
    return "found"


def _origin(name: str) -> str:
    """Return where to get a backbone's weights, and what their licence asks for."""
    from spar_bench import backbones

    card = backbones.card(name)
    terms = f"\n    {card.terms}" if card.terms else ""
    return f"  {name} ({card.license}){terms}\n    {card.source}"
