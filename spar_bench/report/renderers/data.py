"""The data of a page: tables in CSV, documents in JSON."""

import csv
import io
import json

from spar_bench.report.page import Data, Document, Page

FILES: dict[str, str] = {}
"""The page links data by its own blocks."""


def render(page: Page) -> dict[str, str]:
    """Return each table and document under its own name."""
    tables = {block.name: _csv(block) for block in page.blocks if isinstance(block, Data)}
    documents = {
        block.name: json.dumps(block.value, indent=2, sort_keys=True) + "\n"
        for block in page.blocks
        if isinstance(block, Document)
    }
    return tables | documents


def _csv(table: Data) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, table.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return written.getvalue()
