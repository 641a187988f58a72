"""Where the project stands: which stages are done, which would run and why, and which can be resumed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from genwright.base.registry import resolve
from genwright.cli import draw
from genwright.cli.rooms import call, override_options, project
from genwright.cli.terminal import Terminal, heading, table, text

STATES = {"reuse": ("done", "green"), "run": ("to do", "cyan"), "blocked": ("blocked", "bold red")}
"""What a decision means for a person: action -> (word, style)."""


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print where every stage stands. Changes nothing."""
    spec, base = project(arguments)
    decisions = call("genwright.project.apply:decide_project", spec, base)
    results = resolve("genwright.web.summaries:read_results")(base)
    found = facts(spec, decisions, results)
    terminal.answer(found, lambda console: _draw(console, found, results))
    return 0


def facts(spec: Any, decisions: list[Any], results: Any) -> dict[str, Any]:
    """Where the project stands, for programs."""
    stages = [{**vars(one), "state": "to resume" if one.resumes else STATES[one.action][0]} for one in decisions]
    evaluate = results.stages.get("evaluate", {})
    return {
        "project": spec.project.name,
        "done": all(one.action == "reuse" for one in decisions),
        "stages": stages,
        "chosen": results.stages.get("adapt", {}).get("chosen"),
        "metric": evaluate.get("metric"),
        "target": evaluate.get("target"),
        "met": evaluate.get("met"),
    }


def _draw(console: Any, found: dict[str, Any], results: Any) -> None:
    shortened = resolve("genwright.web.summaries:shortened")
    rows = [(one["stage"], _state(one), shortened(one["why"])) for one in found["stages"]]
    console.print(heading(found["project"]))
    console.print(table(("stage", "state", "why"), rows))
    tried = resolve("genwright.web.choices:candidates")(results.stages.get("select", {}))
    if tried:
        console.print(heading("Models, tried untrained on validation rows; memory, time, cost and energy as planned"))
        console.print(table(resolve("genwright.web.choices:TABLE"), tried))
    scores = results.stages.get("evaluate", {}).get("scores", {})
    draw.scores(console, found["metric"] or "", scores, found["chosen"])
    if found["met"] is not None:
        console.print(
            f"\nThe target of {found['target']:g} was {'met' if found['met'] else 'not met'} by {found['chosen']}."
        )
    todo = [one for one in found["stages"] if one["action"] == "run"]
    if todo:
        console.print(f"\nNext: genwright apply ({len(todo)} of {len(found['stages'])} stages to do)")


def _state(one: dict[str, Any]) -> Any:
    return text(one["state"], STATES[one["action"]][1])
