"""Ask a running apply to save and stop, and wait until it has. `genwright apply` goes on from there.

The run itself ends with exit code 130, as after Ctrl-C. What it had done is kept, to the last whole step.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from genwright.base.events import read_events
from genwright.cli import numbers
from genwright.cli.rooms import call, project_folder
from genwright.cli.terminal import Terminal


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=numbers.amount_or_none,
        default=600.0,
        help="how long to wait until it has stopped (default: 600)",
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Pause the project's run, and say where it stands."""
    base = project_folder(arguments)
    process = call("genwright.project.pause:pause", base, wait_seconds=arguments.wait)
    found = {"process": process, **where_it_stopped(read_events(base / ".genwright" / "events.jsonl"))}
    terminal.answer(found, lambda console: console.print(words(found, arguments.project)))
    return 0


def where_it_stopped(events: Any) -> dict[str, Any]:
    """The stage, rung and step at which the last run was stopped, as far as there are such."""
    found: dict[str, Any] = {"stage": None, "rung": None, "step": None, "total": None}
    for event in events:
        if event["kind"] == "run_started":
            found = dict.fromkeys(found)
        elif event["kind"] == "step":
            found |= {name: event[name] for name in ("rung", "step", "total")}
        elif event["kind"] == "stage_stopped":
            found["stage"] = event["stage"]
    return found


def words(found: dict[str, Any], where: str) -> str:
    """For a person."""
    command = "genwright apply" if where == "." else f"genwright apply --project {where}"
    if found["stage"] is None:
        return f"Process {found['process']} has ended; nothing was left to stop."
    at = f" after step {found['step']} of {found['total']} of {found['rung']}" if found["step"] else ""
    return f"Paused in {found['stage']}{at}. `{command}` goes on from there."
