"""What a spec's refiner stands for: its card, weights and identity; without torch.

A refiner has weights if its data file says where they come from (`hub`, `source`, `folder`). They
are found as a backbone's are, or where its own setting `path` says.
"""

from spar_bench import registry
from spar_bench.components.backbone import read_data
from spar_bench.components.identity import ComponentIdentity, identify
from spar_bench.components.weights import Card, Wanted, Weights, checksums, find, readable
from spar_bench.spec.plugins import PluginSpec

_PATH = "evaluate.refiner.path"


def refiner_card(name: str) -> Card:
    """Return where a refiner's weights come from, from its data file; empty where it has none.

    Raises:
        UnknownName: no refiner of that name.
        DataFileError: its data file is invalid.
    """
    return read_data("refiners", name, Card)


def refiner_weights(spec: PluginSpec) -> Weights | None:
    """Return where a refiner's weights lie, or None if it has none.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are not found.
    """
    card, stated = refiner_card(spec.name), spec.settings.get("path")
    path = str(stated) if stated else None
    if path is None and not (card.hub or card.source or card.folder):
        return None
    data_file = registry.data_file("refiners", spec.name)
    wanted = Wanted(f"refiner {spec.name}", _PATH, spec.name, path, card, data_file)
    with readable(wanted.what):
        return find(wanted)


def refiner_identity(spec: PluginSpec) -> ComponentIdentity:
    """Return what decides a refiner's numbers: plug-in, settings, weights by content.

    Raises:
        UnknownName: no refiner of that name.
        NotReady: its weights are missing or incomplete.
    """
    weights = refiner_weights(spec)
    with readable(f"refiner {spec.name}"):
        files = {} if weights is None else checksums(weights, key=_PATH)
        return identify("refiners", spec.name, settings=spec.settings, files=files)
