"""What an answer is worth: a Python function of the project's own.

    # rewards.py
    def score(prompt: str, answer: str, reference: str) -> float:
        return float(reference in answer)

`adapt.reward = "rewards.py:score"` names it, relative to the project file. It is loaded and tried on one row when the
project is planned, so a function that raises or returns no number is known before anything is spent.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import RecipeError
from genwright.base.files import sha256_of_file

Score = Callable[[str, str, str], float]


@dataclass(frozen=True)
class Reward:
    """A loaded function. `identity` is its name and its file's hash: another function is another recipe."""

    score: Score
    identity: str

    def __call__(self, prompt: str, answer: str, reference: str) -> float:
        """The answer's worth. Errors: RecipeError, naming the row, where the function raises or returns no number."""
        try:
            worth = float(self.score(prompt, answer, reference))
        except Exception as error:  # it is the user's code: it may raise anything
            raise RecipeError(
                f"The reward function {self.identity.split('@')[0]} failed.", found=f"{type(error).__name__}: {error}",
                wanted="a number for every answer", do=f"correct it; it was given prompt={prompt[-80:]!r}, answer={answer[:80]!r}",
            ) from error  # fmt: skip
        if math.isinf(worth):
            raise RecipeError(
                f"The reward function {self.identity.split('@')[0]} says {worth} of an answer.",
                wanted="a finite number, or NaN for no verdict",
                found=f"answer={answer[:80]!r}",
                do="bound the reward: it is compared with those of other answers",
            )
        return worth


def load_reward(name: str, base: Path) -> Reward:
    """The function that "FILE.py:FUNCTION" names. Errors: RecipeError."""
    path, _, function = name.partition(":")
    file = base / path
    if not function or file.suffix != ".py" or not file.is_file():
        raise RecipeError(
            "adapt.reward names no function.", wanted='"FILE.py:FUNCTION", the file relative to the project file', found=name or "nothing",
            do="write a function score(prompt, answer, reference) that returns a number",
        )  # fmt: skip
    score = getattr(_module(file), function, None)
    if not callable(score):
        raise RecipeError(f"{file.name} has no function '{function}'.", do="correct adapt.reward")
    return Reward(score, f"{name}@{sha256_of_file(file)}")


def try_reward(reward: Reward, prompt: str, reference: str) -> None:
    """Ask it once, of a row's own answer. Errors: RecipeError where it raises or says NaN."""
    worth = reward(prompt, reference, reference)
    if not math.isfinite(worth):
        raise RecipeError(
            f"The reward function {reward.identity.split('@')[0]} says {worth} of a training row's own answer.",
            wanted="a finite number", do="correct it",
        )  # fmt: skip


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"genwright_reward_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code again
        raise RecipeError(
            f"{file.name} cannot be loaded.", found=f"{type(error).__name__}: {error}", do="correct it"
        ) from error
    return module
