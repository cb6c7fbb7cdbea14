"""Write the spec's JSON Schema, with which editors complete keys and underline mistakes.

`python -m spar_bench.spec` rewrites it beside this file after a change of the models.
"""

import json
import re
from pathlib import Path
from typing import Any

from spar_bench import registry
from spar_bench.spec.keys import FIELDS, PARTS, PLUGINS
from spar_bench.spec.schema import Spec

_NAMES = [
    ("BackboneSpec", "name", "backbones"),
    ("BackboneSpec", "read_out", "read_outs"),
    ("DatasetSpec", "name", "datasets"),
    ("SourceSpec", "name", "datasets"),
    ("StudentSpec", "loss", "losses"),
    ("EvaluateSpec", "refiner", "refiners"),
]
"""Keys that name plug-ins: editors list those that are registered, but accept others."""
FILE = Path(__file__).with_name("spec.schema.json")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec file."""
    schema = Spec.model_json_schema(mode="validation")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    settings = {"pattern": f"^({'|'.join(map(re.escape, PLUGINS))})\\.[A-Za-z_][A-Za-z0-9_]*$"}
    swept = {"anyOf": [{"enum": sorted(FIELDS)}, settings]}
    block = schema["$defs"]["BlockSpec"]["properties"]
    for part in ("grid", "zip", "set"):
        block[part]["propertyNames"] = swept
    for part in ("cases", "exclude"):
        block[part]["items"]["propertyNames"] = swept
    search = schema["$defs"]["SearchSpec"]["properties"]
    drawn = {"anyOf": [{"enum": sorted(set(FIELDS) - set(PARTS))}, settings]}
    search["space"]["propertyNames"] = drawn
    search["enqueue"]["items"]["propertyNames"] = drawn
    for definition, key, family in _NAMES:
        schema["$defs"][definition]["properties"][key]["examples"] = registry.names(family)
    return schema


def text() -> str:
    """Return the text of the schema's file."""
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"
