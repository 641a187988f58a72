"""The loop: a generator of trained steps. Saving, judging and telling are done by whoever consumes it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from genwright.base.errors import Diverged, RecipeError
from genwright.data.collate import Batch
from genwright.data.layouts import Feed
from genwright.data.order import rows_of_step
from genwright.engine.build import Built
from genwright.engine.optim import rate_at, set_rate_
from genwright.engine.recipe import Recipe
from genwright.engine.rollouts import Rounds
from genwright.engine.step import train_step
from genwright.parallel.norm import global_norm

MOST_SKIPPED_IN_A_ROW = 10
"""So many non-finite steps one after another are not bad luck."""


@dataclass(frozen=True)
class TrainedStep:
    """One optimiser step, as numbers. `step` counts from 1: how many are done."""

    step: int
    loss: float
    grad_norm: float
    skipped: bool
    tokens: int
    learned_tokens: int
    learning_rate: float
    seconds: float
    rows: tuple[int, ...]
    reward: float | None = None
    """The mean over the round's answers, where the model learns from its own."""
    resumable: bool = True
    """Whether a run may go on from here: a round of rollouts is not begun in its middle."""


def microbatches_of_step(recipe: Recipe, feed: Feed, step: int, ranks: int = 1) -> tuple[tuple[int, ...], list[Batch]]:
    """The rows of a step and their microbatches: a pure function of the seed and the step, so resuming is exact."""
    rows = rows_of_step(step, num_rows=len(feed), rows_per_step=recipe.batch_size, seed=recipe.seed)
    batches = _evenly(recipe, feed, rows, step, ranks)
    if recipe.objective.couples_rows and len(batches) > 1:
        raise RecipeError(
            f"{type(recipe.objective).__name__} compares the rows of a step with each other, so they must be one microbatch.",
            wanted="adapt.pack_tokens large enough for a whole step",
            found=f"{len(batches)} microbatches of {recipe.pack_tokens} tokens in step {step + 1}",
            do=f"raise adapt.pack_tokens to {sum(batch.tokens for batch in batches)}, or lower adapt.batch_size",
        )
    return tuple(rows), batches


def _evenly(recipe: Recipe, feed: Feed, rows: Sequence[int], step: int, ranks: int) -> list[Batch]:
    """Microbatches for several ranks are cut smaller where that keeps all busy without one more pass."""
    cut = lambda capacity: feed.batches(
        rows, seed=recipe.seed, step=step, packing=recipe.packing, capacity=capacity
    )  # fmt: skip
    batches = cut(recipe.pack_tokens)
    wanted = -(-len(batches) // ranks) * ranks
    if len(batches) == wanted or recipe.objective.couples_rows:
        return batches
    fair = sum(batch.tokens for batch in batches) / wanted
    finer = (cut(min(recipe.pack_tokens, math.ceil(fair * slack))) for slack in (1.05, 1.3))
    return next((one for one in finer if len(batches) < len(one) <= wanted), batches)


def train(
    built: Built, recipe: Recipe, feed: Feed, *, start: int = 0, rounds: Rounds | None = None
) -> Iterator[TrainedStep]:
    """Train from step `start` to the end, yielding after each step; one sync with the host a step.

    `rounds` answers the feed's prompts, where the model learns from its own answers.

    Errors: Diverged after MOST_SKIPPED_IN_A_ROW non-finite steps, naming the rows of the last one.
    """
    team, skipped_in_a_row = built.team, 0
    for step in range(start, recipe.steps):
        began = time.perf_counter()
        rows, batches = rounds.microbatches(step) if rounds else microbatches_of_step(recipe, feed, step, team.ranks)
        rate = rate_at(
            step, steps=recipe.steps, top=recipe.learning_rate, schedule=recipe.schedule, warmup_fraction=recipe.warmup_fraction
        )  # fmt: skip
        set_rate_(built.optimizer, rate)
        # Dropout is a function of seed, step and rank too.
        torch.manual_seed(recipe.seed * 1_000_003 + step + team.rank * 1_000_000_007)
        report = train_step(
            built.model, built.optimizer, built.objective, team.share(built.model, batches), max_norm=recipe.max_norm,
            global_norm=global_norm, scaling=built.scaling,
        )  # fmt: skip
        loss, norm, skipped = torch.stack([team.summed(report.loss.float()), report.grad_norm, report.skipped]).tolist()
        skipped_in_a_row = skipped_in_a_row + 1 if skipped else 0
        yield TrainedStep(
            step + 1, loss, norm, bool(skipped), sum(batch.tokens for batch in batches),
            sum(batch.learned_tokens for batch in batches), rate, time.perf_counter() - began, rows,
            rounds.mean_reward() if rounds else None, rounds.begins(step + 1) if rounds else True,
        )  # fmt: skip
        if skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise Diverged(
                f"{skipped_in_a_row} steps in a row had a gradient that is not a number; no weight was changed by them.",
                found=f"step {step + 1}, training rows {', '.join(map(str, rows))}",
                do="look at these rows with `genwright data show`, or lower adapt.learning_rate",
            )


@torch.no_grad()
def mean_loss(built: Built, recipe: Recipe, feed: Feed) -> float:
    """The objective over all given rows, without training anything; chance is that of step 0."""
    built.model.eval()
    numbers = range(len(feed))
    if recipe.objective.couples_rows:
        steps = [numbers[start : start + recipe.batch_size] for start in range(0, len(feed), recipe.batch_size)]
    else:
        steps = [numbers]
    losses = [_mean_of(built, recipe, feed, rows) for rows in steps]
    built.model.train()
    return sum(loss * len(rows) for loss, rows in zip(losses, steps)) / len(feed)


def _mean_of(built: Built, recipe: Recipe, feed: Feed, rows: Sequence[int]) -> float:
    batches = feed.batches(rows, seed=recipe.seed, step=0, packing=recipe.packing, capacity=recipe.pack_tokens)
    batches = built.team.share_of(batches)
    losses = [built.objective(built.model, batch).terms for batch in batches]
    shares = [
        term.weight * term.total / batch.counts[term.per]
        for batch, terms in zip(batches, losses)
        for term in terms.values()
    ]
    return float(built.team.summed(torch.stack(shares).sum()))
