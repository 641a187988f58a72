"""List what the project as it stands does not need: artifacts of other settings, work that was given up, damaged files.

Nothing is removed without --yes. What the current genwright.toml needs is never in the list.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from genwright.base.units import Bytes
from genwright.cli.rooms import call, project
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--yes", action="store_true", help="remove what is listed")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """List, and with --yes remove."""
    spec, base = project(arguments)
    things = call("genwright.project.apply:clean", spec, remove=arguments.yes)
    facts = {
        "removed": arguments.yes,
        "bytes": sum(thing.bytes for thing in things),
        "things": [{"path": str(thing.path), "bytes": thing.bytes, "why": thing.why} for thing in things],
    }
    terminal.answer(facts, lambda console: _draw(console, facts, base))
    return 0


def _draw(console: Any, facts: dict[str, Any], base: Any) -> None:
    if not facts["things"]:
        console.print("There is nothing to remove.")
        return
    rows = [
        (thing["path"].removeprefix(f"{base}/"), str(Bytes(thing["bytes"])), thing["why"]) for thing in facts["things"]
    ]
    console.print(table(("path", "size", "why"), rows, right=(1,)))
    total = Bytes(facts["bytes"])
    console.print(f"\nRemoved {total}." if facts["removed"] else f"\n{total} can go. Nothing was removed: add --yes.")
