"""docs/commands.md says what the parsers say: an option that is not in the page is a red test, so is one too many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genwright.cli import EXIT_CODES, VERBS, verb_parser

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
COMMON = {"--project", "--json", "--offline", "--debug"}


def section(title: str) -> str:
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [part for part in parts if part.splitlines()[0] == title]
    assert len(found) == 1, f"docs/commands.md needs one section '## {title}'"
    return found[0]


def rows(text: str) -> dict[str, str]:
    """Option -> meaning of a section's table."""
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, flags=re.MULTILINE))


def options(verb: str) -> dict[str, str]:
    """Option as written -> help of a verb's own options."""
    found = {}
    for action in verb_parser(verb)._actions:
        if not {"--help", *COMMON} & set(action.option_strings):
            value = action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper())
            takes = "" if action.nargs == 0 else f" {value}"
            written = f"{action.option_strings[-1]}{takes}" if action.option_strings else str(value)
            found[written] = str(action.help)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_in_the_page_with_its_meaning(verb: str) -> None:
    written = {name.replace("\\|", "|"): meaning.replace("\\|", "|") for name, meaning in rows(section(verb)).items()}
    assert written == options(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_introduced_as_in_the_help(verb: str) -> None:
    assert VERBS[verb] in section(verb)


def test_the_common_options_are_in_the_page() -> None:
    assert {name.split()[0] for name in rows(section("Common options"))} == COMMON


def test_the_exit_codes_are_in_the_page() -> None:
    codes = dict(re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, flags=re.MULTILINE))
    assert rows(section("Exit codes")) == codes
