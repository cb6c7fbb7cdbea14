"""Read experiments: YAML in, frozen models out, or every mistake with its position."""

from spar_bench.spec.read import LoadedSpec, Point, load_spec, resolve_point
from spar_bench.spec.validate import Conflict

__all__ = ["Conflict", "LoadedSpec", "Point", "load_spec", "resolve_point"]
