"""What a rung chooses by measurement before it is judged: a prompt, or LoRA's rank and rate. Finished trials are only read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.files import sha256_of_json, write_atomic
from genwright.catalogue.parts import METRICS
from genwright.engine.recipe import Recipe
from genwright.improve.halving import halve, rounds, work
from genwright.improve.prompts import Prompt, numbers_of_examples, prompts
from genwright.improve.solution import Answering, Solution
from genwright.improve.training import Job, train_to_end
from genwright.plan.estimate import Estimate, Range

RANKS = (4, 16, 64)
RATES = (1 / 3, 1.0, 3.0)
"""Of the recipe's own learning rate."""
LORA_FACTOR, PROMPT_FACTOR = 3, 2
LEAST_STEPS, LEAST_ROWS = 4, 4
BETWEEN = 4
"""Tokens that may stand between an instruction and a question."""
TRIALS = "trials"
CHOSEN = "chosen.json"


# --- prompts ----------------------------------------------------------------------------------------------------------


def candidates(workshop: Any, rung: str) -> list[Prompt]:
    """The prompts that a rung measures: those that fit the model's context; the plain question where none does."""
    rows = workshop.rows("train")
    labels = sorted({row.label for row in rows if row.label})
    few = rung == "few-shot"
    found = numbers_of_examples(len(rows)) if few else prompts(workshop.spec.scope.task, labels, len(rows))
    longest = {count: workshop.longest_prompt(count) for count in {prompt.examples for prompt in found}}
    words = lambda prompt: len(workshop.tokenizer(prompt.instruction, add_special_tokens=False)["input_ids"])
    fits = lambda prompt: longest[prompt.examples] + words(prompt) + BETWEEN < workshop.context
    return [prompt for prompt in found if fits(prompt)] or [Prompt()]


def search_prompt(workshop: Any, rung: str, folder: Path, within: Callable[[], None]) -> Prompt:
    """The prompt that scores best on validation rows. `within` raises when the budget is spent."""
    found = _noted(folder)
    if found is not None:
        return Prompt(**found)
    metric, rows = METRICS[workshop.metric], workshop.judged_on
    answering = Answering(
        Solution(rung, str(workshop.model), examples=1), workshop.rows("train"), precision=workshop.spec.adapt.precision
    )

    def score(prompt: Prompt, count: int) -> float:
        answering.ask_as_(prompt)
        answers = answering.answer(rows[:count], workshop.sampling, lambda *_: within())
        scores = metric.per_row(answers, [str(row.conversation[-1]["content"]) for row in rows[:count]])
        return sum(scores) / len(scores)

    measure = lambda prompt, count: _kept(folder, [str(prompt), count], lambda: score(prompt, count))
    best, told = halve(
        candidates(workshop, rung), len(rows), measure, factor=PROMPT_FACTOR, least=LEAST_ROWS,
        higher_is_better=metric.higher_is_better,
    )  # fmt: skip
    _note(folder, dataclasses.asdict(best), told)
    return best


def prompt_work(workshop: Any, rung: str) -> float:
    """Answered rows of the search and of the judgement after it, over those of the judgement."""
    rows = len(workshop.judged_on)
    planned = rounds(len(candidates(workshop, rung)), rows, factor=PROMPT_FACTOR, least=LEAST_ROWS)
    return 1 + work(planned) / max(1, rows)


# --- LoRA -------------------------------------------------------------------------------------------------------------


def lora_candidates(recipe: Recipe) -> list[Recipe]:
    """Every rank at every rate, the recipe's own first among equals."""
    return [with_rank(recipe, rank, recipe.learning_rate * rate) for rank in RANKS for rate in RATES]


def with_rank(recipe: Recipe, rank: int, learning_rate: float) -> Recipe:
    """The recipe with another rank and another rate."""
    adapter: Any = recipe.adapter
    return dataclasses.replace(recipe, adapter=dataclasses.replace(adapter, rank=rank), learning_rate=learning_rate)


def search_lora(job: Job, folder: Path, within: Callable[[], None]) -> None:
    """Note the rank and the rate of the lowest validation loss; `lora_chosen` puts them into the recipe."""
    if _noted(folder) is not None:
        return

    def loss(candidate: _Shown, steps: int) -> float:
        within()
        tried = dataclasses.replace(candidate.recipe, steps=steps)
        work = folder / TRIALS / tried.identity()[:12]
        own = dataclasses.replace(
            job, recipe=tried, work=work, validate_every=steps, patience=0, milestones=(), checkpoint_every=steps
        )
        measured = train_to_end(own, work / "adapter")
        within()
        return float(measured["validation"][-1][1])

    measure = lambda candidate, steps: _kept(folder, [str(candidate), steps], lambda: loss(candidate, steps))
    shown = [_Shown(candidate) for candidate in lora_candidates(job.recipe)]
    best, told = halve(
        shown, job.recipe.steps, measure, factor=LORA_FACTOR, least=LEAST_STEPS, higher_is_better=False
    )  # fmt: skip
    _note(folder, {"rank": best.rank, "learning_rate": best.recipe.learning_rate}, told)


@dataclasses.dataclass(frozen=True)
class _Shown:
    recipe: Recipe

    @property
    def rank(self) -> int:
        adapter: Any = self.recipe.adapter
        return int(adapter.rank)

    def __str__(self) -> str:
        return f"rank {self.rank}, rate {self.recipe.learning_rate:.2g}"


def lora_chosen(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with what the search chose; before the search, as it is."""
    found = _noted(folder)
    if found is None:
        return recipe
    return with_rank(recipe, found["rank"], found["learning_rate"])


def lora_work(recipe: Recipe) -> float:
    """Steps of the search and of the training after it, over those of the training."""
    planned = rounds(len(RANKS) * len(RATES), recipe.steps, factor=LORA_FACTOR, least=LEAST_STEPS)
    return 1 + work(planned) / recipe.steps


def with_search(estimate: Estimate, part: str, factor: float, hardware: Any) -> Estimate:
    """A rung's plan where its `part` ("train_seconds" or "evaluate_seconds") is done `factor` times over.

    The high end has a fifth more: trials load, save and judge too.
    """
    once = estimate.quantities[part]
    longer = Range(once.value * factor, once.low * factor, once.high * factor * 1.2)
    add = Range(longer.value - once.value, longer.low - once.low, longer.high - once.high)
    seconds = estimate.quantities["seconds"] + add
    changed = {part: longer, "seconds": seconds}
    if "joules" in estimate.quantities:
        changed["joules"] = seconds * hardware.watts
    if "usd" in estimate.quantities:
        changed["usd"] = seconds * (hardware.usd_per_hour / 3600)
    note = f"what is searched first costs {factor - 1:.1f} times as much as the rung itself"
    return dataclasses.replace(estimate, quantities={**estimate.quantities, **changed}, notes=(*estimate.notes, note))


# --- what is kept -----------------------------------------------------------------------------------------------------


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, read where it stands on the disk already."""
    if path.exists():
        return dict(json.loads(path.read_text()))
    measured = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(measured))
    return measured


def _kept(folder: Path, trial: list[Any], measure: Callable[[], float]) -> float:
    path = folder / TRIALS / f"{sha256_of_json(trial)[:16]}.json"
    return float(kept(path, lambda: {"trial": trial, "score": measure()})["score"])


def _noted(folder: Path) -> dict[str, Any] | None:
    path = folder / CHOSEN
    return dict(json.loads(path.read_text())["chosen"]) if path.exists() else None


def _note(folder: Path, chosen: dict[str, Any], told: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CHOSEN, json.dumps({"chosen": chosen, "tried": told}, indent=1))
