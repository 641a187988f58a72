"""Say what `apply` would do and what it would need, before anything is spent.

Shows which stages run, which are reused and why; what the data look like to the model; and memory, time, energy and
money of every rung of the ladder. Exits with 3 when the plan does not fit.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.base.files import write_atomic
from genwright.cli import draw
from genwright.cli.rooms import call, override_options, project
from genwright.cli.terminal import Terminal


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--explain", metavar="KEY", help="say what a key of genwright.toml does and where its value is from"
    )
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the plan. Returns 3 when it does not fit."""
    spec, base = project(arguments)
    if arguments.explain:
        words = call("genwright.project.explain:explain", arguments.explain, spec)
        terminal.answer({"key": arguments.explain, "text": words}, lambda console: console.print(words))
        return 0
    facts = call("genwright.outlook:plan_project", spec, base)
    if facts.get("look"):
        _keep(facts, base)
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 0 if facts.get("fits", True) else 3


def _keep(facts: dict[str, Any], base: Any) -> None:
    """Leave the plan for the report, which shows the same look at the data. A plan must not fail over that."""
    try:
        write_atomic(base / ".genwright" / "plan.json", json.dumps(facts, ensure_ascii=False, default=str))
    except (OSError, GenwrightError):
        return


def _draw(console: Any, facts: dict[str, Any]) -> None:
    draw.stages(console, facts.get("stages", []))
    if facts.get("look"):
        draw.look(console, facts["look"])
    for rung in facts.get("rungs", []):
        draw.planned(console, f"{rung['name']} on {facts.get('device', 'this machine')}", rung.get("planned"))
    for note in facts.get("notes", []):
        console.print(f"note: {note}")
    if facts.get("rungs"):
        draw.fits(console, facts.get("fits", True), facts.get("memory_bytes"))
