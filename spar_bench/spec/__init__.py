"""Read experiments: YAML in, frozen models out, or every mistake with its position."""

from spar_bench.spec.read import LoadedSpec, Point, read_spec, resolve_point

__all__ = ["LoadedSpec", "Point", "read_spec", "resolve_point"]
