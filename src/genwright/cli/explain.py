"""Why the model said that: one answer, taken apart.

Which input tokens mattered (integrated gradients and ablation, each with its faithfulness beside it), how sure the model was of each
token, what each layer would have said, and which training rows stand nearest. Of the project's result, or --model.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.rooms import call, project
from genwright.cli.terminal import Terminal, heading, table

ROOM = "genwright.improve.explaining"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("question", metavar="QUESTION", help="what is asked, or the text that is sorted")
    parser.add_argument(
        "--answer", metavar="TEXT", default="", help="explain this answer or class (default: the model's own)"
    )
    parser.add_argument("--model", metavar="NAME", help="a model or classifier (default: the project's result)")
    parser.add_argument("--adapter", metavar="DIR", default="", help="a peft adapter over --model")
    parser.add_argument(
        "--train",
        metavar="FILE",
        default="",
        help="training rows to compare with (default: the project's, for its result)",
    )
    parser.add_argument(
        "--train-rows",
        type=numbers.count_or_none,
        default=64,
        metavar="N",
        help="of them, drawn by chance; 0 compares none (default: 64)",
    )
    parser.add_argument("--max-tokens", type=numbers.count, default=32, metavar="N", help="of the answer (default: 32)")
    parser.add_argument(
        "--steps", type=numbers.count, default=32, metavar="N", help="points of the integral (default: 32)"
    )
    parser.add_argument(
        "--seed", type=numbers.count_or_none, default=0, metavar="N", help="of what is drawn by chance (default: 0)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="",
        help="where explain.json and explain.html go (default: the project's folder)",
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Explain, print, write the page."""
    base = Path(arguments.project)
    found = call(
        f"{ROOM}:explain_answer", opened(arguments, base), arguments.question, answer=arguments.answer,
        train=compared(arguments, base), train_rows=arguments.train_rows or 1, max_tokens=arguments.max_tokens,
        steps=arguments.steps, seed=arguments.seed, say=terminal.say,
    )  # fmt: skip
    out = base / arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "explain.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_atomic(out / "explain.html", call("genwright.web.explain:render", found))
    told = found | {"page": str(out / "explain.html")}
    terminal.answer(told, lambda console: draw(console, told))
    return 0


def opened(arguments: Namespace, base: Path) -> Any:
    """What is explained."""
    if arguments.model:
        return call(f"{ROOM}:open_for_explaining", arguments.model, base=base, adapter=arguments.adapter)
    spec, folder = project(arguments)
    return call("genwright.talk:chat_session", spec, folder).answering


def compared(arguments: Namespace, base: Path) -> Any:
    """The training rows that the answer is compared with: --train, or what the project learned from; of --model alone none."""
    if not arguments.train_rows or (arguments.model and not arguments.train):
        return ()
    return call(f"{ROOM}:training_rows", base, arguments.train)


MOST_LINES = 8


def draw(console: Any, found: dict[str, Any]) -> None:
    """The answer, the tokens that mattered most by each method, how far to trust it, the nearest rows."""
    console.print(heading("Answer"))
    console.print(found["answer"])
    for name, one in found["attributions"].items():
        gain = one["faithfulness"]["gain"]
        console.print(
            heading(f"{name}: deletion {gain['deletion']:+.2f}, insertion {gain['insertion']:+.2f} against chance")
        )
        parts = sorted(zip(found["prompt"], one["parts"]), key=lambda pair: -abs(pair[1]))[:MOST_LINES]
        console.print(table(("token", "part"), [(repr(token), f"{value:+.3f}") for token, value in parts], right=(1,)))
    rows = [
        (one["place"], f"{one['gradient_cosine']:.3f}", f"{one['embedding_cosine']:.3f}")
        for one in found.get("rows", [])
    ]
    if rows:
        console.print(heading(f"Nearest of {found['rows_compared']} training rows"))
        console.print(table(("row", "gradient", "embedding"), rows[:MOST_LINES], right=(1, 2)))
    console.print(f"page: {found['page']}")
