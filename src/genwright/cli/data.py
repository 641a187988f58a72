"""Look at data before learning from it.

show: the format that was recognised, one row as the model reads it, lengths, losses.
check: rows that are toxic, personal, duplicated, leaked from the test rows, or of low quality; what was found is told by row
and place, never repeated. Exit 3 where a row was found, unless --write sets the good ones apart.

Without FILE they look at the training rows of the project.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.cli import draw, numbers
from genwright.cli.rooms import call, project
from genwright.cli.terminal import Terminal, heading, table

EMBEDDED = "smollm2-135m-instruct"
"""Whose tokens are counted where nothing names a model: the one that needs no account and no hub."""

MAX_TOKENS = 2048


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "action", choices=("show", "check"), help="how they look to a model, or what is wrong with them"
    )
    parser.add_argument("file", metavar="FILE", nargs="*", help="JSONL, JSON, CSV, Parquet or a data set folder")
    parser.add_argument("--format", help="the row format, where it cannot be recognised")
    parser.add_argument(
        "--column", metavar="FIELD=COLUMN", action="append", default=[], help="the file's name for a field; repeatable"
    )
    parser.add_argument("--model", help=f"whose tokens are counted (default: the project's, or {EMBEDDED})")
    parser.add_argument("--max-tokens", type=numbers.count, metavar="N", help=f"longest row (default: {MAX_TOKENS})")
    check = parser.add_argument_group("check")
    check.add_argument(
        "--checks", default="", metavar="A,B", help="which, of toxic, personal, duplicated, leaked, low-quality"
    )
    check.add_argument(
        "--test", metavar="FILE", action="append", default=[], help="test rows that must not have leaked; repeatable"
    )
    check.add_argument("--classifier", metavar="DIR", help="a classifier that tells what is toxic (default: rules)")
    check.add_argument("--language", metavar="CODE", default="", help="the language rows should be in (default: any)")
    check.add_argument("--write", metavar="FILE", help="where the rows without a finding go, as JSON lines")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print what was asked for."""
    return check(arguments, terminal) if arguments.action == "check" else show(arguments, terminal)


def show(arguments: Namespace, terminal: Terminal) -> int:
    """Print the look."""
    if len(arguments.file) > 1:
        raise BadRequest("One file is shown at a time.", found=f"{len(arguments.file)} files")
    for name in ("checks", "test", "classifier", "language", "write"):
        if getattr(arguments, name):
            raise BadRequest(f"--{name} is for `genwright data check`.", do="leave it out, or check")
    wanted = of_a_file(arguments) if arguments.file else of_the_project(arguments)
    seen = call("genwright.outlook:look_at_data", wanted.pop("path"), **wanted)
    terminal.answer(seen, lambda console: draw.look(console, seen))
    return 0


def check(arguments: Namespace, terminal: Terminal) -> int:
    """Print what is wrong with the rows; 3 where something is and the good rows were not set apart."""
    if arguments.model or arguments.max_tokens:
        raise BadRequest("--model and --max-tokens are for `genwright data show`.", do="leave them out")
    wanted: dict[str, Any] = {
        "format": arguments.format or "auto", "columns": columns(arguments.column), "language": arguments.language,
        "test": [Path(one) for one in arguments.test], "write": Path(arguments.write) if arguments.write else None,
    }  # fmt: skip
    if arguments.checks:
        wanted["checks"] = [name.strip() for name in arguments.checks.split(",") if name.strip()]
        if "leaked" in wanted["checks"] and not arguments.test and arguments.file:
            raise BadRequest("Nothing can have leaked without test rows.", do="name them: --test FILE")
    if arguments.classifier:
        folder = Path(arguments.classifier)
        scores = call("genwright.evaluate.redteam.classifier:harmful_of", folder)
        wanted |= {"scores": scores, "model": folder.name}
    paths = [Path(one) for one in arguments.file]
    found = call(
        "genwright.data.quality:check_files", **wanted | (files(arguments, wanted) if not paths else {"paths": paths})
    )
    terminal.answer(found, lambda console: draw_check(console, found))
    return 3 if found["findings"] and not found["written"] else 0


def files(arguments: Namespace, wanted: dict[str, Any]) -> dict[str, Any]:
    """The project's training rows and how they are read, against its validation and test files where it has some."""
    spec, base = project(arguments)
    test = [base / one for one in (spec.data.validation, spec.data.test) if one]
    return {
        "paths": [base / spec.data.train], "test": wanted["test"] or test, "format": arguments.format or spec.data.format,
        "columns": {**spec.data.columns, **wanted["columns"]},
    }  # fmt: skip


MOST_LINES = 40
"""Findings that a person is shown; --json has all."""


def draw_check(console: Any, found: dict[str, Any]) -> None:
    """Counts and how each was scored, then the findings."""
    console.print(heading(f"{found['rows']:,} rows, {found['good']:,} without a finding"))
    lines = [(name, f"{one['rows']:,}", one["how"]) for name, one in found["checks"].items()]
    lines += [(name, "-", "not checked") for name in found["not_checked"]]
    console.print(table(("check", "rows", "scored by"), lines, right=(1,)))
    shown = found["findings"][:MOST_LINES]
    if shown:
        console.print(heading("Findings"))
        console.print(table(("place", "check", "why"), [(one["place"], one["check"], one["why"]) for one in shown]))
    if len(found["findings"]) > len(shown):
        console.print(f"and {len(found['findings']) - len(shown):,} more: --json has all")
    if found["written"]:
        console.print(f"{found['good']:,} rows written to {found['written']}")


def of_a_file(arguments: Namespace) -> dict[str, Any]:
    """What to look at when a file is named."""
    return {
        "path": Path(arguments.file[0]),
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
