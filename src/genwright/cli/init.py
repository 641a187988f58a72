"""Ask what a project is for, or take flags, and write its genwright.toml, with a comment on every choice.

What was written is read back before this ends, so that `genwright plan` starts from a file that is right.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.rooms import FILE, call
from genwright.cli.terminal import Terminal

DATA_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
DEFAULT_TASK = "chat"
DEFAULT_LADDER = ("zero-shot", "few-shot", "lora")


HEADER = """\
# A Genwright project. `genwright plan` says what it will take, `genwright apply` does it.
# Every key left out has a default: `genwright plan --explain adapt.steps` says which, and why."""


@dataclass(frozen=True)
class Answers:
    """What a person wants. Empty means: the kit's own choice."""

    name: str
    task: str
    data: str
    metric: str
    target: float | None
    model: str
    ladder: tuple[str, ...]
    device: str


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("folder", metavar="DIR", nargs="?", help="the folder of the new project (default: --project)")
    parser.add_argument("--name", help="the project's name (default: the folder's)")
    parser.add_argument("--task", help="what kind of work: a name from `genwright tasks`")
    parser.add_argument("--data", metavar="FILE", help="the rows to learn from")
    parser.add_argument("--metric", help="what is measured (default: the task's own)")
    parser.add_argument(
        "--target", type=numbers.amount_or_none, metavar="SCORE", help="the score, from 0 to 100, that is good enough"
    )
    parser.add_argument("--model", help="a name from `genwright models` or a model source (default: ranked)")
    parser.add_argument("--ladder", metavar="RUNG,RUNG", help=f"rungs to try (default: {','.join(DEFAULT_LADDER)})")
    parser.add_argument("--device", help="a name from `genwright devices` (default: this machine)")
    parser.add_argument("--yes", action="store_true", help="ask nothing; take the default where no flag says otherwise")
    parser.add_argument("--force", action="store_true", help="replace a genwright.toml that is there")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Write the file and read it back. Errors: BadRequest when there is one already."""
    folder = Path(arguments.folder or arguments.project)
    path = folder / FILE
    if path.exists() and not arguments.force:
        raise BadRequest(f"{path} exists.", do="edit it, or replace it with --force")
    answers = given(arguments, folder) if arguments.yes else asked(given(arguments, folder), arguments)
    text = toml(answers)
    call("genwright.project.spec:spec_from_text", text, path)
    write_atomic(path, text)
    call("genwright.project.spec:read_spec", path)
    terminal.answer({"path": str(path), "name": answers.name}, lambda console: _draw(console, path, folder, answers))
    return 0


def _draw(console: Any, path: Path, folder: Path, answers: Answers) -> None:
    console.print(f"Wrote {path}.")
    if not (folder / answers.data).exists():
        console.print(f"{answers.data} is not there yet: put the rows into it.")
    console.print(f"Next: genwright plan{'' if folder == Path() else f' --project {folder}'}")


def given(arguments: Namespace, folder: Path) -> Answers:
    """What the flags say, with a defended default for the rest."""
    ladder = tuple(part.strip() for part in arguments.ladder.split(",")) if arguments.ladder else DEFAULT_LADDER
    return Answers(
        name=arguments.name or folder.resolve().name or "project",
        task=arguments.task or DEFAULT_TASK,
        data=_beside(arguments.data, folder) if arguments.data else _found_data(folder),
        metric=arguments.metric or "",
        target=arguments.target,
        model=arguments.model or "",
        ladder=ladder,
        device=arguments.device or "auto",
    )


def asked(default: Answers, arguments: Namespace) -> Answers:
    """The same, after asking for whatever no flag has said."""
    tasks = call("genwright.catalogue.tasks:tasks")
    target = default.target
    task = arguments.task or _ask(f"Kind of work ({', '.join(tasks)})", default.task)
    call("genwright.catalogue.tasks:task", task)
    if target is None:
        target = _number(_ask("Score, from 0 to 100, that is good enough (empty: the best that can be had)", ""))
    return Answers(
        name=arguments.name or _ask("Name", default.name),
        task=task,
        data=default.data if arguments.data else _ask("File with the rows to learn from", default.data),
        metric=default.metric,
        target=target,
        model=arguments.model or _ask("Model (empty: ranked from the catalogue)", ""),
        ladder=default.ladder,
        device=default.device,
    )


def _ask(question: str, default: str) -> str:
    print(f"{question}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip() or default
    except EOFError:
        raise BadRequest("The questions got no answer.", do="answer them, or use --yes with flags") from None


def _number(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise BadRequest("The target is not a number.", wanted="a score from 0 to 100", found=repr(text)) from None


def _found_data(folder: Path) -> str:
    """The one data file of the folder, if there is one; train.jsonl otherwise."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix in DATA_ENDINGS) if folder.is_dir() else []
    named = [name for name in files if name.startswith("train.")]
    return (named or (files if len(files) == 1 else []) or ["train.jsonl"])[0]


def _beside(data: str, folder: Path) -> str:
    """A path as the project file must say it: from the project's folder, not from where we stand."""
    if Path(data).is_absolute() or (folder / data).exists() or not Path(data).exists():
        return data
    return os.path.relpath(data, folder)


def toml(answers: Answers) -> str:
    """The project file. Everything not in it has a default that `genwright plan --explain KEY` tells."""
    tables = {
        "project": [
            _line(f"name = {_quote(answers.name)}"),
            _line("seed = 0", "the same seed gives the same files, byte for byte"),
        ],
        "scope": [
            _line(f"task = {_quote(answers.task)}", "one of `genwright tasks`"),
            _line(_given("metric", answers.metric, "rouge-l"), "left out: the task's own"),
            _line(
                "# target = 60" if answers.target is None else f"target = {answers.target:g}",
                "the ladder stops at the first rung that scores this, from 0 to 100",
            ),
            _line("# budget = { hours = 1 }", "a rung that cannot be afforded is skipped, and said"),
        ],
        "data": [
            _line(f"train = {_quote(answers.data)}"),
            _line('# test = "test.jsonl"', "left out: rows are set apart by their content"),
            _line('# group = "topic"', "rows of one group never stand on both sides of a split"),
        ],
        "select": [
            _line(
                f"models = [{_quote(answers.model)}]" if answers.model else "# models = []",
                "left out: ranked from the catalogue",
            )
        ],
        "adapt": [_line(f"ladder = [{', '.join(_quote(rung) for rung in answers.ladder)}]", "cheapest first")],
        "hardware": [_line(f"device = {_quote(answers.device)}", "auto: this machine")],
    }
    parts = [HEADER, *("\n".join([f"[{name}]", *lines]) for name, lines in tables.items())]
    return "\n\n".join(parts) + "\n"


def _given(key: str, value: str, example: str) -> str:
    """A setting, or an example of it that is commented out."""
    return f"{key} = {_quote(value)}" if value else f"# {key} = {_quote(example)}"


def _line(setting: str, comment: str = "") -> str:
    return f"{setting:<30}  # {comment}" if comment else setting


def _quote(text: str) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
