"""Write what the parsers say into docs/commands.md: each verb's table of options. The words around the tables stay.

    .venv/bin/python dev/commands_page.py

A verb without a section gets one, in the order of the help.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from genwright.cli import VERBS, verb_parser

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
COMMON = {"--help", "--project", "--json", "--offline", "--debug"}


def written(action: argparse.Action) -> str:
    """An option as the help shows it."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    takes = "" if action.nargs == 0 else f" {value}"
    return f"{action.option_strings[-1]}{takes}" if action.option_strings else str(value)


def table(verb: str) -> str:
    """The verb's own options."""
    own = [action for action in verb_parser(verb)._actions if not COMMON & set(action.option_strings)]
    cell = lambda text: str(text).replace("|", "\\|")
    rows = [f"| `{cell(written(action))}` | {cell(action.help)} |" for action in own]
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) if own else ""


def section(verb: str, old: str | None) -> str:
    """Its section, the words of the old one kept."""
    head, _, tail = (old or f"{verb}\n\n`genwright {verb}`: {VERBS[verb]}.\n\n").partition("| option | meaning |")
    rest = re.sub(r"\A(\n?\|.*)*\n?", "", tail) if tail else ""
    body = head if tail or not table(verb) else head.rstrip("\n") + "\n\n"
    return f"{body}{table(verb)}\n{rest}".rstrip("\n") + "\n\n"


def main() -> None:
    """Rewrite the page."""
    intro, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    known = {part.splitlines()[0]: part for part in parts}
    verbs = [section(verb, known.get(verb)) for verb in VERBS]
    others = [part for title, part in known.items() if title not in VERBS]
    PAGE.write_text(intro + "".join(f"## {part}" for part in [*verbs, *others]), encoding="utf-8")


if __name__ == "__main__":
    main()
