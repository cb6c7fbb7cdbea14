"""The spec that `spar-bench init` writes, for users without a clone."""

from pathlib import Path

from spar_bench.spec.json_schema import FILE


def starter() -> str:
    """Return a commented spec that runs as it is; editors find the schema by its first line."""
    text = Path(__file__).with_name("starter.yaml").read_text(encoding="utf-8")
    return f"# yaml-language-server: $schema={FILE.as_uri()}\n{text}"
