"""Rounds of rollouts: the model that is trained answers prompts, its answers are rewarded, and it learns from them.

A round serves `updates` optimiser steps. Everything in it is a function of the weights at its first step, the seed and
its number; so a run may stop and resume between rounds, and is then exactly the run that was never stopped.

Legend: P prompts, G answers of each, A = P*G answers, T tokens of the longest answer; N labels, D sequences of a microbatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genwright.base.errors import RecipeError
from genwright.data.collate import Batch
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
        self.batches: list[Batch] = []
        self.rewards = torch.zeros(0)

    def microbatches(self, step: int) -> tuple[tuple[int, ...], list[Batch]]:
        """The rows of a step's round and the step's microbatches. The first step of a round answers its prompts."""
        if step // self.recipe.rollouts.updates != self.number:
            self._begin(step // self.recipe.rollouts.updates)
        return self.rows, self.batches

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
        self.rows = tuple(
            rows_of_step(number, num_rows=len(self.prompts), rows_per_step=recipe.batch_size, seed=recipe.seed)
        )
        asked = [self.prompts.encoded[row] for row in self.rows]
        with evaluating(self.built.model), _precision(recipe, self.prompts.device):
            answers = self._answers(asked)
            self.rewards = torch.tensor([self._worths(row, group) for row, group in zip(self.rows, answers)])
            batches = self._laid_out([grouped(row, group) for row, group in zip(asked, answers)])
            told = [self._said_of(batch) for batch in batches]
        self.batches = self._with_targets(batches, told)

    def _answers(self, asked: Sequence[Encoded]) -> list[list[list[int]]]:
        """G answers of each prompt, drawn from the model's own distribution, each with the token that ended it."""
        size = self.recipe.rollouts.answers
        sampling = Sampling(self.recipe.rollouts.max_new_tokens, 1.0, seed=self.recipe.seed * 1_000_003 + self.number)
        prompts = [row.input_ids for row in asked for _ in range(size)]
        written = generate(self.built.model, self.tokenizer, prompts, sampling, keep_end=True)
        return [written[start : start + size] for start in range(0, len(written), size)]

    def _worths(self, row: int, answers: list[list[int]]) -> list[float]:
        """Errors: RecipeError where PPO has no reward for an answer; GRPO leaves it out of its group."""
        worths = [self.worth(row, answer) for answer in answers]
        if self.recipe.objective.head == "value" and any(math.isnan(worth) for worth in worths):
            raise RecipeError(
                "The reward function says NaN of an answer, and PPO has one answer a prompt.", found=f"training row {row}",
                wanted="a number for every answer", do="return a number, or use grpo, which leaves such an answer out",
            )  # fmt: skip
        return worths

    def _laid_out(self, encoded: list[Encoded]) -> list[Batch]:
        """The round's microbatches; column number_D counts its answers, whatever order they are packed in."""
        size = self.recipe.rollouts.answers
        numbered = [
            replace(row, columns={"number_D": torch.arange(place * size, (place + 1) * size)}) for place, row in enumerate(encoded)
        ]  # fmt: skip
        feed, recipe = replace(self.prompts, encoded=numbered), self.recipe
        return feed.batches(
            range(len(feed)), seed=recipe.seed, step=self.number, packing=True, capacity=recipe.pack_tokens
        )

    def _said_of(self, batch: Batch) -> dict[str, Tensor]:
        """Log-probabilities as the trainer computes them on this very microbatch, so that the first ratio is exactly 1."""
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

    def _with_targets(self, batches: list[Batch], told: list[dict[str, Tensor]]) -> list[Batch]:
        """The microbatches with all that their objective wants to know."""
        objective = self.recipe.objective
        if objective.head == "value":
            targets = self._advantages_and_returns(batches, told)
        else:
            advantages = group_advantages(self.rewards, "none" if objective.loss == "dr_grpo" else "group").flatten()
            numbers = [batch.columns["number_D"] for batch in batches]
            targets = [{"advantage_D": advantages.to(number_D.device)[number_D]} for number_D in numbers]
        return [
            replace(batch, columns={**batch.columns, **said, **target}) for batch, said, target in zip(batches, told, targets)
        ]  # fmt: skip

    def _advantages_and_returns(self, batches: list[Batch], told: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """PPO's targets, over all answers of the round, laid out as the microbatches are."""
        sizes = [torch.bincount(batch.document_N, minlength=batch.num_documents).tolist() for batch in batches]
        lengths = [length for one in sizes for length in one]
        parts = lambda name: [part for said, one in zip(told, sizes) for part in said[name].split(one)]
        padded = lambda name: torch.nn.utils.rnn.pad_sequence(parts(name), batch_first=True)
        number_A = torch.cat([batch.columns["number_D"] for batch in batches])
        rewards_A = self.rewards.to(number_A.device).flatten()[number_A]
        both = self.recipe.objective.targets(
            rewards_A,
            padded("old_N"),
            padded("reference_N"),
            padded("old_value_N"),
            torch.tensor(lengths, device=number_A.device),
        )
        flat = [torch.cat([row[:length] for row, length in zip(target_AT, lengths)]) for target_AT in both]
        of_batch = [sum(one) for one in sizes]
        return [
            {"advantage_N": advantage_N, "return_N": return_N}
            for advantage_N, return_N in zip(flat[0].split(of_batch), flat[1].split(of_batch))
        ]


def _precision(recipe: Recipe, device: str) -> Any:
    """Answers are sampled in the precision that the trainer computes in."""
    policy = resolve(recipe.precision, device)
    casts = recipe.adapter.trains_base and policy.compute != torch.float32
    return torch.autocast(device, dtype=policy.compute) if casts else nullcontext()


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
        raise RecipeError(
            "PPO learns from one answer a prompt.", wanted="adapt.answers = 1", found=str(size), do="set it"
        )
    if not value and size < 2:
        raise RecipeError(
            "GRPO compares a prompt's answers with each other.", wanted="adapt.answers of at least 2", found=str(size)
        )


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
