"""Prompts that are searched: an instruction, how many examples stand in the prompt, and on which side the nearest one stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genwright.catalogue.tasks import task

Message = dict[str, Any]

COUNTS = (0, 1, 2, 4, 8)
"""Numbers of examples that are measured."""
MOST_LABELS = 40
"""More labels than this are not listed in an instruction."""


@dataclass(frozen=True)
class Prompt:
    """What is put to the model around a question."""

    instruction: str = ""
    """Stands before the first question of the conversation."""
    examples: int = 0
    """How many of the nearest training rows are shown."""
    nearest_last: bool = True
    """Whether the nearest example stands next to the question, or first."""

    def __str__(self) -> str:
        side = "" if not self.examples else ", nearest last" if self.nearest_last else ", nearest first"
        return f"{self.examples} examples{side}" + (f", '{self.instruction}'" if self.instruction else "")


def numbers_of_examples(num_rows: int) -> list[Prompt]:
    """The few-shot rung's candidates: one to eight examples, as many as there are rows."""
    return [Prompt(examples=count) for count in COUNTS[1:] if count <= num_rows]


def prompts(task_name: str, labels: Sequence[str], num_rows: int) -> list[Prompt]:
    """The search's candidates: every instruction with none, four and eight examples; the plain one with both orders too."""
    counts = [count for count in (0, 4, 8) if count <= num_rows]
    found = [Prompt(text, count) for text in instructions(task_name, labels) for count in counts]
    return found + [Prompt("", count, nearest_last=False) for count in counts if count]


def instructions(task_name: str, labels: Sequence[str] = ()) -> list[str]:
    """The row's own prompt alone, and ways of saying what is wanted; the labels, where there are few enough to list."""
    about = task(task_name).title
    plain = [
        "",
        f"Your task: {about}. Give the result alone.",
        "Answer briefly, in the form of the examples, and add nothing.",
    ]
    if not labels or len(labels) > MOST_LABELS:
        return plain
    listed = ", ".join(labels)
    return [
        *plain, f"Answer with one of: {listed}.", f"Which of these fits best? {listed}. Answer with its name alone.",
    ]  # fmt: skip


def instructed(messages: Sequence[Message], instruction: str) -> list[Message]:
    """The conversation with the instruction before its first question; templates without a system turn take it too."""
    said = [dict(message) for message in messages]
    if instruction:
        first = next(message for message in said if message["role"] == "user")
        first["content"] = f"{instruction}\n\n{first['content']}"
    return said
