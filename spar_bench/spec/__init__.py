"""Read experiments: YAML in, frozen models out, or every mistake with its position."""

from spar_bench.spec.json_schema import json_schema
from spar_bench.spec.read import LoadedSpec, Point, read_spec, resolve_point
from spar_bench.spec.starter import starter

__all__ = ["LoadedSpec", "Point", "json_schema", "read_spec", "resolve_point", "starter"]
