"""Rewrite the spec's JSON Schema: `python -m spar_bench.spec`."""

from spar_bench.files import replace_text
from spar_bench.spec.json_schema import FILE, text


def main() -> None:
    """Replace the schema's file."""
    replace_text(FILE, text())


if __name__ == "__main__":
    main()
