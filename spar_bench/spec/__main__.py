"""Write the spec's JSON Schema anew: `python -m spar_bench.spec`."""

import os

from spar_bench.spec.json_schema import FILE, text


def main() -> None:
    """Replace the schema's file."""
    temporary = FILE.with_suffix(".tmp")
    temporary.write_text(text(), encoding="utf-8")
    os.replace(temporary, FILE)


if __name__ == "__main__":
    main()
