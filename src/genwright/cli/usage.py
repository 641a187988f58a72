"""What was served: requests, tokens, joules and dollars, per key, expert, profile or day."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.cli import numbers
from genwright.cli.rooms import call, project_folder
from genwright.cli.terminal import Terminal

COLUMNS = (
    ("requests", "requests", "{:.0f}"), ("prompt_tokens", "prompt", "{:.0f}"), ("cached_tokens", "cached", "{:.0f}"),
    ("generated_tokens", "generated", "{:.0f}"), ("ttft_seconds", "TTFT s", "{:.3f}"), ("tpot_seconds", "TPOT s", "{:.4f}"),
    ("joules", "joules", "{:.1f}"), ("usd", "dollars", "{:.6f}"),
)  # fmt: skip


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--by", default="key", help="key, expert, profile, day, engine, outcome or model (default: key)"
    )
    parser.add_argument(
        "--days", type=numbers.amount, default=30.0, metavar="N", help="of the last N days (default: 30)"
    )
    parser.add_argument("--parquet", metavar="FILE", help="write every record to a Parquet file instead")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """A table, JSON or Parquet."""
    folder = project_folder(arguments) / ".genwright" / "serve"
    if arguments.parquet:
        count = call("genwright.serve.meter:write_parquet", folder, Path(arguments.parquet))
        facts = {"out": arguments.parquet, "records": count}
        terminal.answer(facts, lambda console: console.print(f"Wrote {count} records to {arguments.parquet}."))
        return 0
    since = time.time() - arguments.days * 86_400
    rows = call("genwright.serve.meter:read_usage", folder, arguments.by, since)
    energy = call("genwright.serve.meter:read_energy", folder)
    terminal.answer(
        {"by": arguments.by, "usage": rows, "energy": energy},
        lambda console: _draw(console, arguments.by, rows, energy),
    )
    return 0


def _draw(console: Any, by: str, rows: list[dict[str, Any]], energy: dict[str, float]) -> None:
    from rich.table import Table

    table = Table(by, *(title for _, title, _ in COLUMNS), box=None)
    for row in rows:
        cells = ["-" if row[name] is None else form.format(row[name]) for name, _, form in COLUMNS]
        table.add_row(row["name"] or ("base" if by == "expert" else "-"), *cells)
    console.print(table)
    if energy["seconds"]:
        console.print(f"power meter: {energy['joules']:.1f} J, of which {energy['idle']:.1f} J idle")
