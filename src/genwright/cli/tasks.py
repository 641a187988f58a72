"""The kinds of work that a project can be for: which models fit, what the rows look like, what is measured."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from genwright.cli.rooms import call
from genwright.cli.sheet import sheet
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="everything about one task")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """List the tasks, or show one."""
    if arguments.name:
        one = asdict(call("genwright.catalogue.tasks:task", arguments.name))
        terminal.answer(one, lambda console: sheet(console, one))
        return 0
    every = list(call("genwright.catalogue.tasks:tasks").values())
    terminal.answer([asdict(task) for task in every], lambda console: _draw(console, every))
    return 0


def _draw(console: Any, every: list[Any]) -> None:
    rows = [(task.name, task.title, ", ".join(task.families), task.format, task.metric, task.profile) for task in every]
    console.print(table(("task", "what", "models", "rows", "metric", "profile"), rows))
