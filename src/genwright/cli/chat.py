"""Talk to the result of a project, or to one of its rungs; or let it answer a file of questions.

Without --ask and --file it goes on until the end of the input (Ctrl-D) or /quit; /new forgets what was said.
A file holds one question a line: plain text, or JSON with `prompt` or `messages`.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, DataError
from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.progress import progress
from genwright.cli.rooms import call, override_options, project
from genwright.cli.terminal import Terminal

Message = dict[str, str]


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--ask", metavar="TEXT", help="one question, one answer")
    parser.add_argument("--file", metavar="FILE", help="many questions, one a line")
    parser.add_argument(
        "--out", metavar="FILE", help="where the answers to --file go, as JSON lines (default: printed)"
    )
    parser.add_argument(
        "--at", metavar="RUNG", help='a rung of the ladder instead of the chosen one, or a checkpoint: "step 200"'
    )
    parser.add_argument("--system", metavar="TEXT", help="a system message before everything")
    parser.add_argument(
        "--temperature",
        metavar="T",
        type=numbers.amount_or_none,
        default=0.0,
        help="0 (default): always the same answer",
    )
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """One answer, many, or a conversation."""
    refuse_contradictions(arguments)
    spec, base = project(arguments)
    questions = read_questions(Path(arguments.file)) if arguments.file else []
    session = call("genwright.talk:chat_session", spec, base, at=arguments.at)
    start: list[Message] = [{"role": "system", "content": arguments.system}] if arguments.system else []
    if arguments.file:
        return answer_many(session, [[*start, *asked] for asked in questions], arguments, terminal)
    if arguments.ask is None:
        return converse(session, start, arguments.temperature)
    answer = session.reply([*start, user(arguments.ask)], temperature=arguments.temperature)
    terminal.answer({"question": arguments.ask, "answer": answer}, lambda console: console.print(answer))
    return 0


def refuse_contradictions(arguments: Namespace) -> None:
    """Errors: BadRequest for options that mean nothing together."""
    if arguments.ask is not None and arguments.file:
        raise BadRequest("--ask and --file are two ways to ask.", do="give one of them")
    if arguments.out and not arguments.file:
        raise BadRequest("--out is for the answers to --file.", do="add --file, or leave it out")
    if arguments.json and arguments.ask is None and not arguments.file:
        raise BadRequest("A conversation has no JSON.", do='add --ask "..." for one answer')


def user(text: str) -> Message:
    """What a person says."""
    return {"role": "user", "content": text}


def converse(session: Any, start: list[Message], temperature: float) -> int:
    """Read a line, print the answer, until the input ends."""
    history = list(start)
    if sys.stdin.isatty():
        print("Ask something. /new starts again, /quit or Ctrl-D leaves.", file=sys.stderr)
    while (line := _read()) not in (None, "/quit"):
        if line == "/new":
            history = list(start)
        elif line:
            history.append(user(line))
            answer = session.reply(list(history), temperature=temperature)
            history.append({"role": "assistant", "content": answer})
            print(answer, flush=True)
    return 0


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def read_questions(path: Path) -> list[list[Message]]:
    """The conversations of a file. Errors: DataError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also cut at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text.", found=str(error)) from None
    found = [_question(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{path} has no questions.", wanted="one a line: text, or JSON with prompt or messages")
    return found


def _question(line: str, place: str) -> list[Message]:
    if not line.lstrip().startswith("{"):
        return [user(line.strip())]
    try:
        asked = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: this is not JSON.", found=str(error)) from None
    if isinstance(asked.get("messages"), list):
        return list(asked["messages"])
    if isinstance(asked.get("prompt"), str):
        return [user(asked["prompt"])]
    raise DataError(f"{place}: there is no question.", wanted="prompt or messages", found=", ".join(asked) or "{}")


def answer_many(session: Any, asked: list[list[Message]], arguments: Namespace, terminal: Terminal) -> int:
    """Answer a file's questions, with progress; the answers stand in the order of the questions."""
    with progress(sys.stderr) as listener:
        tell = lambda done, total: listener(
            {"kind": "progress", "stage": "chat", "what": "answers", "done": done, "total": total, "unit": "questions"}
        )
        answers = session.replies(asked, temperature=arguments.temperature, progress=tell)
    told = [{"prompt": one[-1]["content"], "prediction": answer} for one, answer in zip(asked, answers)]
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told)
    if not arguments.out:
        terminal.answer(told, lambda console: console.print(lines, end=""))
        return 0
    write_atomic(Path(arguments.out), lines)
    facts = {"out": arguments.out, "answers": len(told)}
    terminal.answer(facts, lambda console: console.print(f"Wrote {len(told)} answers to {arguments.out}."))
    return 0
