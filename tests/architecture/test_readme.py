"""The README's tree is the folder, the commands it names exist, and what it promises is kept."""

from __future__ import annotations

import re
from pathlib import Path

from genwright.cli import VERBS


def rooms_in(text: str) -> set[str]:
    """Names that stand two spaces in, under src/genwright/, in the first code block that draws it."""
    block = re.search(r"^src/genwright/\n((?:  .*\n)+)", text, re.MULTILINE)
    return set(re.findall(r"^  (\w+(?:/|\.py)) ", block[1], re.MULTILINE)) if block else set()


def rooms_of(package: Path) -> set[str]:
    folders = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    return folders | {path.name for path in package.glob("*.py") if not path.name.startswith("__")}


def test_the_tree_is_the_folder(root: Path, package: Path) -> None:
    assert rooms_in((root / "README.md").read_text(encoding="utf-8")) == rooms_of(package)


def test_commands_in_the_readme_exist(root: Path) -> None:
    named = set(
        re.findall(r"\bgenwright ([a-z]+)\b", "\n".join(code_in((root / "README.md").read_text(encoding="utf-8"))))
    )
    assert named and named <= set(VERBS)


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    \S.*$", text, re.MULTILINE)


def test_make_targets_in_the_readme_exist(root: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(code_in((root / "README.md").read_text(encoding="utf-8")))))
    made = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= made


def test_the_check_sees_a_missing_room() -> None:
    text = "```\nsrc/genwright/\n  base/   what every room uses\n  stages.py   five functions\n```\n"
    assert rooms_in(text) == {"base/", "stages.py"}
