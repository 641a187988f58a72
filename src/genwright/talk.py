"""Talking to what a project made: `genwright chat` and batch prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.data.files import load_rows
from genwright.improve.solution import Answering, read_solution
from genwright.models.generate import Sampling
from genwright.project.store import Store


class Session:
    """An open solution that answers conversations."""

    def __init__(self, answering: Answering, max_new_tokens: int, seed: int) -> None:
        self.answering, self.max_new_tokens, self.seed = answering, max_new_tokens, seed

    def reply(self, messages: list[dict[str, Any]], *, temperature: float = 0.0) -> str:
        """The next turn of one conversation."""
        return self.replies([messages], temperature=temperature)[0]

    def replies(
        self, conversations: list[list[dict[str, Any]]], *, temperature: float = 0.0, progress: Any = None
    ) -> list[str]:
        """The next turn of many."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=temperature, seed=self.seed)
        shown = [self.answering.with_examples(messages) for messages in conversations]
        return self.answering.reply(shown, sampling, progress)


def chat_session(spec: Any, base: Path, at: str | None = None) -> Session:
    """Open the project's result, or `at` a rung of its ladder. Errors: BadRequest when nothing was made yet."""
    store = Store(base / ".genwright")
    adapted, selected, scoped = (store.latest(stage) for stage in ("adapt", "select", "scope"))
    if adapted is None or selected is None or scoped is None:
        raise BadRequest("This project has no result to talk to yet.", do="run `genwright apply` first")
    summary = json.loads((adapted / "adapt.json").read_text())
    climbed = [rung["name"] for rung in summary["rungs"] if not rung["skipped"]]
    rung = at or summary["chosen"]
    if rung not in climbed:
        raise BadRequest(f"'{rung}' is no rung that was climbed.", wanted=f"one of {', '.join(climbed)}")
    solution = read_solution(adapted / rung, selected / "model")
    answering = Answering(solution, load_rows(scoped / "train.jsonl"), precision=spec.adapt.precision)
    return Session(answering, spec.adapt.max_new_tokens, spec.project.seed)
