"""Rounds of rollouts: the model that is trained answers prompts, its answers are rewarded, and it learns from them.

A round serves `updates` optimiser steps. Everything in it is a function of the weights at its first step, the seed and
its number; so a run may stop and resume between rounds, and is then exactly the run that was never stopped.

Legend: P prompts, G answers of each, A = P*G answers, T tokens of the longest answer; N labels, D sequences of a microbatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genwright.base.errors import RecipeError
from genwright.data.collate import Batch, collate_items
from genwright.data.layouts import Feed
from genwright.data.order import rows_of_step
from genwright.data.templates import Encoded
from genwright.engine.build import Built
from genwright.engine.columns import evaluating, reference
from genwright.engine.recipe import Recipe
from genwright.models.generate import Sampling, generate
from genwright.objectives.language import label_log_probabilities
from genwright.objectives.policy import group_advantages, log_probabilities_and_values
from genwright.precision.policy import resolve

Worth = Callable[[int, list[int]], float]
"""(number of the prompt's row, the answer's tokens) to its reward; NaN where there is none."""


@dataclass
class Rounds:
    """Answers prompts when a round begins, and hands out its microbatches."""

    built: Built
    recipe: Recipe
    prompts: Feed
    tokenizer: Any
    worth: Worth
    frozen: Any = None
    """The reference, where it is not the built model with its adapter off."""

    def __post_init__(self) -> None:
        self.number = -1
        self.rows: tuple[int, ...] = ()
        self.encoded: list[Encoded] = []
        self.rewards = torch.zeros(0)

    def microbatches(self, step: int) -> tuple[tuple[int, ...], list[Batch]]:
        """The rows of a step's round and the step's microbatches. The first step of a round answers its prompts."""
        if step // self.recipe.rollouts.updates != self.number:
            self._begin(step // self.recipe.rollouts.updates)
        feed = replace(self.prompts, encoded=self.encoded)
        numbers = range(len(feed))
        recipe = self.recipe
        return self.rows, feed.batches(numbers, seed=recipe.seed, step=step, packing=True, capacity=recipe.pack_tokens)

    def begins(self, step: int) -> bool:
        """Whether a run may resume before step `step`."""
        return step % int(self.recipe.rollouts.updates) == 0

    def mean_reward(self) -> float:
        """Of the round's answers."""
        return float(self.rewards.nanmean())

    @torch.no_grad()
    def _begin(self, number: int) -> None:
        recipe = self.recipe
        self.number = number
        self.rows = tuple(rows_of_step(number, num_rows=len(self.prompts), rows_per_step=recipe.batch_size, seed=recipe.seed))
        asked = [self.prompts.encoded[row] for row in self.rows]
        with evaluating(self.built.model), _precision(recipe):
            answers = self._answers(asked)
            self.rewards = torch.tensor(
                [[self.worth(row, answer) for answer in group] for row, group in zip(self.rows, answers)], dtype=torch.float32
            )
            self.encoded = self._with_columns([grouped(row, group) for row, group in zip(asked, answers)])

    def _answers(self, asked: Sequence[Encoded]) -> list[list[list[int]]]:
        """G answers of each prompt, each with the token that ended it."""
        size, rollouts = self.recipe.rollouts.answers, self.recipe.rollouts
        sampling = Sampling(rollouts.max_new_tokens, rollouts.temperature, seed=self.recipe.seed * 1_000_003 + self.number)
        prompts = [row.input_ids for row in asked for _ in range(size)]
        written = generate(self.built.model, self.tokenizer, prompts, sampling, keep_end=True)
        return [written[start : start + size] for start in range(0, len(written), size)]

    def _with_columns(self, encoded: list[Encoded]) -> list[Encoded]:
        """What the objective wants to know of each answer as it was sampled."""
        told = [self._said_of(row) for row in encoded]
        objective = self.recipe.objective
        if objective.head == "value":
            columns = self._values(told)
        else:
            advantages_PG = group_advantages(self.rewards, "none" if objective.loss == "dr_grpo" else "group")
            columns = [{"advantage_D": advantage_G} for advantage_G in advantages_PG]
        return [replace(row, columns={**one, **more}) for row, one, more in zip(encoded, told, columns)]

    def _said_of(self, row: Encoded) -> dict[str, Tensor]:
        """Log-probabilities under the model that answered, as the trainer computes them, and under the reference."""
        item = self.prompts.layout.item(row, None)  # type: ignore[arg-type]
        (batch,) = collate_items([item], packing=True, capacity=1 << 60, pad_id=self.prompts.pad_id)
        if self.recipe.objective.head == "value":
            old_N, values_N = log_probabilities_and_values(self.built.model, batch)
            said = {"old_N": old_N, "old_value_N": values_N}
        else:
            said = {"old_N": label_log_probabilities(self.built.model, batch)}
        if "reference_N" in self.recipe.objective.columns:
            with nullcontext() if self.frozen is not None else reference(self.built):
                model = self.frozen if self.frozen is not None else self.built.model
                said["reference_N"] = label_log_probabilities(model, batch)
        return said

    def _values(self, told: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """PPO's advantages and returns, over all answers of the round. One answer a prompt."""
        lengths = [len(one["old_N"]) for one in told]
        padded = lambda name: torch.nn.utils.rnn.pad_sequence([one[name] for one in told], batch_first=True)
        advantages_AT, returns_AT = self.recipe.objective.targets(
            self.rewards.nan_to_num().flatten(), padded("old_N"), padded("reference_N"), padded("old_value_N"), torch.tensor(lengths)
        )
        return [
            {"advantage_N": advantages_AT[row, :length], "return_N": returns_AT[row, :length]} for row, length in enumerate(lengths)
        ]  # fmt: skip


def _precision(recipe: Recipe) -> Any:
    """Answers are sampled in the precision that the trainer computes in."""
    policy = resolve(recipe.precision)
    casts = recipe.adapter.trains_base and policy.compute != torch.float32
    return torch.autocast("cpu", dtype=policy.compute) if casts else nullcontext()


def grouped(prompt: Encoded, answers: Sequence[Sequence[int]]) -> Encoded:
    """A prompt and its answers as one branching row: the prompt stands once, every answer's token is learned."""
    tokens = [token for answer in answers for token in answer]
    return replace(
        prompt, input_ids=prompt.input_ids + tokens, learned=[False] * len(prompt.input_ids) + [True] * len(tokens),
        branches=(len(prompt.input_ids), *map(len, answers)),
    )  # fmt: skip


def refuse_ungrouped(recipe: Recipe) -> None:
    """Errors: RecipeError for a number of answers that the objective cannot use."""
    size, value = recipe.rollouts.answers, recipe.objective.head == "value"
    if value and size != 1:
        raise RecipeError("PPO learns from one answer a prompt.", wanted="adapt.answers = 1", found=str(size), do="set it")
    if not value and size < 2:
        raise RecipeError("GRPO compares a prompt's answers with each other.", wanted="adapt.answers of at least 2", found=str(size))


def blank_round(recipe: Recipe, feed: Feed) -> Feed:
    """A round as long as it can be, saying nothing: what the planner lays out."""
    rows = []
    for row in feed.encoded:
        answered = grouped(row, [[1] * recipe.rollouts.max_new_tokens] * recipe.rollouts.answers)
        labels, sequences = recipe.rollouts.max_new_tokens * recipe.rollouts.answers, recipe.rollouts.answers
        per_label = ("old_N", "reference_N", "old_value_N", "advantage_N", "return_N")
        columns = {name: torch.zeros(labels) for name in per_label} | {"advantage_D": torch.zeros(sequences)}
        rows.append(replace(answered, columns=columns))
    return replace(feed, encoded=rows)
