"""What decides what a component computes: plug-in, versions, settings, weights by content."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, JsonValue

from spar_bench import registry


class ComponentIdentity(BaseModel):
    """A component's identity: equal ones compute equal numbers; its JSON is hashed.

    Plug-in, `versions` and `sources` are as in `registry.PluginIdentity`; `files` has the SHA-256
    of each file of weights by name, or the seed of random weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plugin: str
    versions: dict[str, int]
    sources: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}
    files: dict[str, str | int] = {}


def identify(
    family: str,
    name: str,
    *,
    settings: Mapping[str, JsonValue],
    files: Mapping[str, str | int],
) -> ComponentIdentity:
    """Return the identity of the component that serves a name of a plug-in family.

    A setting `path` says where weights are, and not which: it decides nothing.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its source cannot be read.
    """
    known = registry.identity(family, name)
    decisive = {**known.settings, **settings}
    decisive.pop("path", None)
    return ComponentIdentity(
        plugin=known.name,
        versions=known.versions,
        sources=known.sources,
        settings=decisive,
        files=dict(files),
    )
