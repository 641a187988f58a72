"""Look at data before learning from it: the format that was recognised, one row as the model reads it, lengths, losses.

Without FILE it looks at the training rows of the project.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.cli import draw
from genwright.cli.rooms import call, project
from genwright.cli.terminal import Terminal

EMBEDDED = "smollm2-135m-instruct"
"""Whose tokens are counted where nothing names a model: the one that needs no account and no hub."""

MAX_TOKENS = 2048


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("action", choices=("show",), help="the one thing to do with data so far")
    parser.add_argument("file", metavar="FILE", nargs="?", help="JSONL, JSON, CSV, Parquet or a data set folder")
    parser.add_argument("--format", help="the row format, where it cannot be recognised")
    parser.add_argument(
        "--column", metavar="FIELD=COLUMN", action="append", default=[], help="the file's name for a field; repeatable"
    )
    parser.add_argument("--model", help=f"whose tokens are counted (default: the project's, or {EMBEDDED})")
    parser.add_argument("--max-tokens", type=int, metavar="N", help=f"longest row (default: {MAX_TOKENS})")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the look."""
    wanted = of_a_file(arguments) if arguments.file else of_the_project(arguments)
    seen = call("genwright.outlook:look_at_data", wanted.pop("path"), **wanted)
    terminal.answer(seen, lambda console: draw.look(console, seen))
    return 0


def of_a_file(arguments: Namespace) -> dict[str, Any]:
    """What to look at when a file is named."""
    return {
        "path": Path(arguments.file),
        "base": Path(arguments.project),
        "model": arguments.model or EMBEDDED,
        "format": arguments.format or "auto",
        "columns": columns(arguments.column),
        "max_tokens": arguments.max_tokens or MAX_TOKENS,
    }


def of_the_project(arguments: Namespace) -> dict[str, Any]:
    """What to look at when no file is named: the project's rows, by the project's settings."""
    spec, base = project(arguments)
    return {
        "path": base / spec.data.train,
        "base": base,
        "model": arguments.model or next(iter(spec.select.models), EMBEDDED),
        "format": arguments.format or spec.data.format,
        "columns": {**spec.data.columns, **columns(arguments.column)},
        "max_tokens": arguments.max_tokens or spec.adapt.max_tokens or MAX_TOKENS,
    }


def columns(pairs: list[str]) -> dict[str, str]:
    """FIELD=COLUMN pairs as a mapping. Errors: BadRequest for a pair that lacks one of the two."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise BadRequest(
                "A column is not said right.", wanted="FIELD=COLUMN, such as prompt=question", found=repr(pair)
            )
    return {field: column for field, _, column in (pair.partition("=") for pair in pairs)}
