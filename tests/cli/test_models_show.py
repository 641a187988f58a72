"""`models show` of what has a README: the publisher's words stand in the card's five sections."""

from __future__ import annotations

from pathlib import Path

import pytest

README = """---
license: mit
---
# Little model
Reads clouds.
## Intended uses
Sorting clouds.
## Bias and limitations
It has never seen rain.
## Training data
A thousand skies.
## Evaluation
Nine of ten.
"""

TOLD = {
    "Details": "Reads clouds.", "Uses": "Sorting clouds.", "Bias, risks and limitations": "It has never seen rain.",
    "Training details": "A thousand skies.", "Evaluation": "Nine of ten.",
}  # fmt: skip


def test_a_folders_readme_is_sorted_into_sections(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "little").mkdir()
    (tmp_path / "little" / "README.md").write_text(README)
    sections = genwright("--project", str(tmp_path), "models", "show", "folder:little", "--json").json()["sections"]
    assert {title: words in sections[title] for title, words in TOLD.items()} == dict.fromkeys(TOLD, True)
    shown = genwright("--project", str(tmp_path), "models", "show", "little").out
    assert [shown.index(words) for words in TOLD.values()] == sorted(shown.index(words) for words in TOLD.values())


def test_a_model_of_the_cache_has_its_publishers_words(
    genwright,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setattr("genwright.models.sources.cached", lambda source, cache: tmp_path)
    card = genwright("models", "show", "smollm2-135m-instruct", "--json").json()
    assert (
        card["sections"]["Training details"] == TOLD["Training details"]
        or TOLD["Training details"] in card["sections"]["Training details"]
    )
    assert card["licence"] == "Apache-2.0"


def test_a_folder_without_a_card_says_what_writes_one(genwright, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bare").mkdir()
    ran = genwright("--project", str(tmp_path), "models", "show", "bare")
    assert ran.code == 2 and "has no card" in ran.err and "`genwright report` and integrate write one" in ran.err
