"""The spec that `spar-bench init` writes, for users without a clone."""

from pathlib import Path

from spar_bench.files import replace_text
from spar_bench.spec.json_schema import FILE
from spar_bench.spec.json_schema import text as schema


def write_starter(path: Path) -> None:
    """Write a commented spec that runs as it is, and beside it the schema that editors look for.

    The schema lists the plug-ins that are installed here.
    """
    text = Path(__file__).with_name("starter.yaml").read_text(encoding="utf-8")
    replace_text(path.with_name(FILE.name), schema())
    replace_text(path, f"# yaml-language-server: $schema={FILE.name}\n{text}")
