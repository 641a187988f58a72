"""What a second model says of each row, once, before training: reference log-probabilities, a teacher's, a layer's.

The reference is the model as training found it: with its adapter off, or, where weights of the base are trained, the
built model before its first step. So columns are made before a checkpoint is restored.

Legend: N labels of a microbatch, D its sequences, K likeliest tokens, V vocabulary, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genwright.base.errors import RecipeError
from genwright.data.collate import Batch, collate_items
from genwright.data.layouts import Feed
from genwright.engine.build import Built
from genwright.engine.hidden import COLUMN, keeps_hidden
from genwright.engine.recipe import Recipe
from genwright.models.families import head_inputs_at, logits_at
from genwright.objectives.language import label_log_probabilities, model_inputs
from genwright.objectives.loss import per_document
from genwright.objectives.unlearn import forget_at, generic_logits, hidden_at
from genwright.precision.policy import resolve

TOP_K = 64
"""Tokens of the teacher that are kept for each label; the rest is one class."""

Say = Callable[[Any, Batch], dict[str, Tensor]]
LoadSecond = Callable[[], Any]


def with_columns(recipe: Recipe, built: Built, feed: Feed, load_second: LoadSecond) -> Feed:
    """The feed with the columns its objective wants; `load_second` gives the teacher, where one is asked.

    Errors: RecipeError for a column nobody makes.
    """
    wanted = [name for name in recipe.objective.columns if name not in ROLLED_OUT]
    # A sharded head is whole only inside the model's own forward.
    wanted += [COLUMN] if built.team.ranks == 1 and keeps_hidden(recipe, built.model.config, feed) else []
    if recipe.objective.layout == "prompts" or not wanted:
        return feed
    encoded = list(feed.encoded)
    for names, make in MAKERS.items():
        if set(names) & set(wanted):
            encoded = _said_of(recipe, replace(feed, encoded=encoded), make(recipe, built, load_second), built)
    return replace(feed, encoded=encoded)


def _said_of(recipe: Recipe, feed: Feed, asked: tuple[Any, Say], built: Built) -> list[Any]:
    model, say = asked
    policy = resolve(recipe.precision, feed.device)
    in_precision = policy.around(say, trains_base=recipe.adapter.trains_base, device=feed.device)
    encoded = []
    with torch.no_grad(), evaluating(model), reference(built) if model is built.model else nullcontext():
        together = recipe.pack_tokens if feed.packs else 1  # an encoder reads one source
        for numbers in _chunks([row.num_tokens for row in feed.encoded], together):
            items = feed.items(numbers, seed=recipe.seed, step=0)
            (batch,) = collate_items(items, packing=True, capacity=1 << 60, pad_id=feed.pad_id)
            told = {name: column.cpu() for name, column in in_precision(model, batch.to(feed.device)).items()}
            for place, number in enumerate(numbers):
                own = {name: _of_row(name, column, items, place) for name, column in told.items()}
                row = feed.encoded[number]
                encoded.append(replace(row, columns={**row.columns, **own}))
    return encoded


def _of_row(name: str, column: Tensor, items: Sequence[Any], place: int) -> Tensor:
    """A row's share of a column: by its labels, or by its sequences."""
    sizes = [item.num_sequences if name.endswith("_D") else len(item.labels) for item in items]
    return column.split(sizes)[place].clone()


def _chunks(lengths: Sequence[int], capacity: int) -> Iterator[list[int]]:
    """Row numbers, in order, as many as fit."""
    chunk: list[int] = []
    used = 0
    for number, length in enumerate(lengths):
        if chunk and used + length > capacity:
            yield chunk
            chunk, used = [], 0
        chunk.append(number)
        used += length
    if chunk:
        yield chunk


def reference(built: Built) -> AbstractContextManager[Any]:
    """The built model as it was before training: its adapter off; a model without one must not have been stepped yet."""
    turn_off = getattr(built.model, "disable_adapter", None)
    return turn_off() if turn_off is not None else nullcontext()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout, until it is over."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _reference(recipe: Recipe, built: Built, load_second: LoadSecond) -> tuple[Any, Say]:
    return built.model, lambda model, batch: {"reference_D": per_document(label_log_probabilities(model, batch), batch)}


def _teacher(recipe: Recipe, built: Built, load_second: LoadSecond) -> tuple[Any, Say]:
    temperature = recipe.objective.temperature

    def say(model: Any, batch: Batch) -> dict[str, Tensor]:
        logits_NV = logits_at(model, model_inputs(batch), batch.positions_N).float()
        log_probs_NV = torch.log_softmax(logits_NV / temperature, -1)
        top = log_probs_NV.topk(min(TOP_K, log_probs_NV.shape[1]), -1)
        return {"teacher_ids_NK": top.indices, "teacher_log_probs_NK": top.values}

    return _same_vocabulary(load_second(), built), say


def _activations(recipe: Recipe, built: Built, load_second: LoadSecond) -> tuple[Any, Say]:
    return built.model, lambda model, batch: {"activations_NH": hidden_at(model, batch, recipe.objective.layer).float()}


def _hidden(recipe: Recipe, built: Built, load_second: LoadSecond) -> tuple[Any, Say]:
    return built.model, lambda model, batch: {
        COLUMN: head_inputs_at(model, model_inputs(batch), batch.positions_N).float()
    }


def _generic(recipe: Recipe, built: Built, load_second: LoadSecond) -> tuple[Any, Say]:
    """The reinforced model knows the text better; what it likes more than the base does is pushed down."""
    reinforced = _same_vocabulary(load_second(), built)

    def say(model: Any, batch: Batch) -> dict[str, Tensor]:
        base_NV, strong_NV = (
            logits_at(one, model_inputs(batch), batch.positions_N).float() for one in (model, reinforced)
        )
        generic_N = generic_logits(base_NV, strong_NV, recipe.objective.alpha).argmax(-1)
        return {"generic_ids_N": torch.where(forget_at(batch) > 0, generic_N, batch.labels_N)}

    return built.model, say


def _same_vocabulary(second: Any, built: Built) -> Any:
    sizes = [model.config.get_text_config().vocab_size for model in (second, built.model)]
    if sizes[0] != sizes[1]:
        raise RecipeError(
            "The second model has another vocabulary.", wanted=f"{sizes[1]} tokens", found=f"{sizes[0]}",
            do="choose an adapt.teacher of the same family of models, or learn from its answers (objective instruction)",
        )  # fmt: skip
    return second.to(built.model.device)


ROLLED_OUT = ("reference_N",)
"""Columns that are made anew in each round of rollouts."""

MAKERS: dict[tuple[str, ...], Callable[[Recipe, Built, LoadSecond], tuple[Any, Say]]] = {
    ("reference_D",): _reference,
    ("teacher_ids_NK", "teacher_log_probs_NK"): _teacher,
    ("activations_NH",): _activations,
    ("generic_ids_N",): _generic,
    (COLUMN,): _hidden,
}
"""Who makes which columns. The planner makes them of zeros: their shapes are the labels'."""


def blank_columns(recipe: Recipe, feed: Feed, config: Any, *, ranks: int = 1) -> Feed:
    """The feed with columns of the right shapes that say nothing: what the planner lays out."""
    wanted = {*recipe.objective.columns, *([COLUMN] if ranks == 1 and keeps_hidden(recipe, config, feed) else [])}
    size = config.get_text_config().hidden_size
    rows = [replace(row, columns={**row.columns, **_blank(wanted, item, size)}) for row, item in _laid_out(feed)]
    return replace(feed, encoded=rows) if wanted else feed


def _laid_out(feed: Feed) -> list[tuple[Any, Any]]:
    return list(zip(feed.encoded, feed.items(range(len(feed)), seed=0, step=0)))


def _blank(wanted: set[str], item: Any, hidden_size: int) -> dict[str, Tensor]:
    num_labels = len(item.labels)
    shapes = {
        "reference_D": torch.zeros(item.num_sequences), "reference_N": torch.zeros(num_labels),
        "teacher_ids_NK": torch.zeros(num_labels, TOP_K, dtype=torch.int64), "teacher_log_probs_NK": torch.zeros(num_labels, TOP_K),
        "activations_NH": torch.zeros(num_labels, hidden_size), COLUMN: torch.zeros(num_labels, hidden_size),
        "generic_ids_N": torch.tensor(item.labels, dtype=torch.int64),
    }  # fmt: skip
    return {name: shapes[name] for name in wanted & set(shapes)}
