"""Reward functions: found, tried, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwright.base.errors import RecipeError
from genwright.engine.rewards import load_reward, try_reward


def write(folder: Path, code: str) -> Path:
    (folder / "rewards.py").write_text(code)
    return folder


def test_a_function_is_loaded_asked_and_known_by_its_file(tmp_path: Path) -> None:
    reward = load_reward(
        "rewards.py:score",
        write(
            tmp_path, "def score(prompt, answer, reference):\n    return len(prompt + answer) - (answer == reference)\n"
        ),
    )
    assert reward("ab", "cd", "cd") == 3.0 and reward("ab", "cd", "x") == 4.0
    try_reward(reward, "ab", "cd")
    other = load_reward("rewards.py:score", write(tmp_path, "def score(prompt, answer, reference):\n    return 1\n"))
    assert other("ab", "cd", "") == 1.0 and other.identity != reward.identity


def test_a_file_may_have_dataclasses(tmp_path: Path) -> None:
    """They look their module up in sys.modules."""
    code = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Weight:\n    one: float = 2.0\ndef score(p, a, r):\n    return Weight().one\n"
    assert load_reward("rewards.py:score", write(tmp_path, code))("", "", "") == 2.0


@pytest.mark.parametrize("name", ["", "rewards.py", "rewards:score", "other.py:score", "rewards.py:"])
def test_a_name_that_names_nothing_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"adapt\.reward names no function"):
        load_reward(name, write(tmp_path, "def score(p, a, r):\n    return 1\n"))


def test_a_missing_function_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rewards\.py has no function 'scores'"):
        load_reward("rewards.py:scores", write(tmp_path, "score = 1\n"))
    with pytest.raises(RecipeError, match="has no function 'score'"):
        load_reward("rewards.py:score", tmp_path)
    for code in ("def score(:\n", "import no_such_module_anywhere\n", "1 / 0\n"):
        with pytest.raises(RecipeError, match=r"rewards\.py cannot be loaded"):
            load_reward("rewards.py:score", write(tmp_path, code))


@pytest.mark.parametrize(
    "body, told",
    [
        ("raise ValueError('no such answer')", "ValueError: no such answer"),
        ("return None", "TypeError"),
        ("return 'good'", "ValueError"),
    ],
)
def test_one_that_raises_or_gives_no_number_is_named(body: str, told: str, tmp_path: Path) -> None:
    reward = load_reward("rewards.py:score", write(tmp_path, f"def score(p, a, r):\n    {body}\n"))
    with pytest.raises(RecipeError, match=r"reward function rewards\.py:score failed") as refused:
        try_reward(reward, "p", "r")
    assert told in str(refused.value)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_finite_number_of_a_rows_own_answer_is_refused(number: str, tmp_path: Path) -> None:
    reward = load_reward("rewards.py:score", write(tmp_path, f"def score(p, a, r):\n    return float('{number}')\n"))
    with pytest.raises(RecipeError, match=rf"rewards\.py:score says {number}"):
        try_reward(reward, "p", "r")
