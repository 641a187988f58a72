"""Do what the plan says, with progress. Safe to interrupt, safe to repeat: what is done is kept and reused.

Ends with the plan beside what was measured, the scores before and after, and what to do next. Exits with 3 when the
target was not met, 130 when it was interrupted.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright import __version__
from genwright.base.events import Events
from genwright.base.registry import resolve
from genwright.base.units import Bytes
from genwright.cli import doctor, draw
from genwright.cli.progress import progress
from genwright.cli.rooms import call, override_options, project
from genwright.cli.terminal import Terminal, heading


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage")
    parser.add_argument("--force", metavar="STAGE", action="append", default=[], help="run a stage again; repeatable")
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Apply the project, then tell what came of it. Returns the outcome's exit code."""
    spec, base = project(arguments)
    with progress(sys.stderr if terminal.wants_json else sys.stdout) as listener:
        events = Events(base / ".genwright" / "events.jsonl", (listener,))
        events.write("environment", **environment())
        outcome = call(
            "genwright.project.apply:apply", spec, events=events, until=arguments.until, force=tuple(arguments.force)
        )
    results = resolve("genwright.web.summaries:read_results")(base)
    terminal.answer(facts(outcome, results), lambda console: _draw(console, results, base))
    return int(outcome.exit_code)


def environment() -> dict[str, str]:
    """What the run is made with, for the report: a number without its machine and versions means little."""
    machine = doctor.examine_machine()
    memory = "" if machine["memory_bytes"] is None else f", {Bytes(machine['memory_bytes'])}"
    told = {"genwright": __version__, "python": machine["python"], "system": machine["platform"]}
    told["machine"] = f"{machine['cores']} cores{memory}; {', '.join(machine['cpu_features'])}"
    return told | {name: doctor.installed(name) or "missing" for name in ("torch", "transformers", "peft")}


def facts(outcome: Any, results: Any) -> dict[str, Any]:
    """The outcome for programs."""
    decisions = [{"stage": one.stage, "action": one.action, "why": one.why} for one in outcome.decisions]
    return {
        "exit_code": outcome.exit_code,
        "stages": decisions,
        "artifacts": {stage: str(folder) for stage, folder in results.folders.items()},
        "summaries": results.stages,
    }


def _draw(console: Any, results: Any, base: Path) -> None:
    told(console, results)
    for line in next_steps(results, base):
        console.print(line)


def told(console: Any, results: Any) -> None:
    """Planned beside measured, scores, comparisons and the verdict."""
    for rung in results.rungs():
        draw.compared(console, rung)
    evaluate, adapt = results.stages.get("evaluate", {}), results.stages.get("adapt", {})
    draw.scores(console, evaluate.get("metric", ""), evaluate.get("scores", {}), adapt.get("chosen"))
    for pair in evaluate.get("paired", []):
        console.print(draw.pair_words(pair))
    if adapt.get("why"):
        console.print(f"\n{adapt['why']}")


def next_steps(results: Any, base: Path) -> list[Any]:
    """What a person may want to do now."""
    where = "" if base == Path() else f" --project {base}"
    met = results.stages.get("evaluate", {}).get("met")
    lines: list[Any] = [heading("Next")]
    if met is False:
        lines.append("The target was not met (exit code 3). Higher rungs, more rows or a larger model may reach it.")
    lines.append(f"genwright report{where}    one page with plots")
    if "integrate" in results.stages:
        lines.append(f'genwright chat{where} --ask "..."    ask the result something')
    return lines
