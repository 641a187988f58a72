"""What runs inside the processes that the tests of this folder start: a tiny Llama, ragged rows, six AdamW steps."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import LlamaConfig

from genwright.adapters.full import Full, LastLayers
from genwright.adapters.lora import LoRA
from genwright.data.collate import Batch, Item, collate_items
from genwright.data.layouts import Feed, plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import Built, build
from genwright.engine.loop import mean_loss, train
from genwright.engine.recipe import Recipe
from genwright.models.families import Head, logits_and_values_at
from genwright.objectives.classify import Classification
from genwright.objectives.language import Instruction, model_inputs
from genwright.objectives.loss import Loss, Term
from genwright.objectives.preference import DPO
from genwright.parallel.mesh import Placement, placement
from genwright.parallel.shard import gathered, local_bytes

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
ADAPTERS = {"full": Full(), "lora": LoRA(rank=4), "last-layers": LastLayers(layers=1)}


LABELS = ("one", "two", "three")


LANGUAGE = Head()


def load(tied: bool = True, head: Head = LANGUAGE) -> Any:
    def loaded(dtype: torch.dtype, attention: str) -> Any:
        torch.manual_seed(7)
        config = head.configured(LlamaConfig(**SIZES, tie_word_embeddings=tied, pad_token_id=0))
        return head.finish_(head.loader("decoder").from_config(config, attn_implementation=attention).to(dtype))

    return loaded


@dataclass(frozen=True)
class Items:
    """Rows that are laid out already."""

    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, numbers: Sequence[int], *, seed: int, step: int, packing: bool, capacity: int) -> list[Batch]:
        return collate_items([self.items[number] for number in numbers], packing=packing, capacity=capacity, pad_id=0)


@dataclass(frozen=True)
class Worth:
    """Sum of (v - 1)^2 over labels, and next tokens: the value head is called after the model has come back."""

    head: ClassVar[str] = "value"
    couples_rows: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        logits_NV, values_N = logits_and_values_at(model, model_inputs(batch), batch.positions_N)
        words = torch.nn.functional.cross_entropy(logits_NV.float(), batch.labels_N, reduction="sum")
        count = torch.tensor(float(len(batch.labels_N)))
        return Loss({"words": Term(words, count), "worth": Term((values_N - 1).square().sum(), count)})


def pair(chance: random.Random) -> Item:
    """A prompt with two answers, which a reference has judged."""
    prompt, *answers = (chance.randint(2, 6) for _ in range(3))
    ids = [chance.randrange(1, 50) for _ in range(prompt + sum(answers))]
    starts = (prompt, prompt + answers[0])
    positions = [
        place for start, length in zip(starts, answers) for place in (prompt - 1, *range(start, start + length - 1))
    ]
    sequences = [number for number, length in enumerate(answers) for _ in range(length)]
    columns = {"reference_D": torch.tensor([-40.0 * chance.random(), -40.0 * chance.random()])}
    ends = [start + length - 1 for start, length in zip(starts, answers)]
    return Item(ids, (prompt, *answers), positions, ids[prompt:], sequences, 2, {"pairs": 1.0}, columns, ends=ends)


def text(chance: random.Random) -> Item:
    """A text of one class."""
    length = chance.randint(4, 15)
    return Item(
        [chance.randrange(1, 50) for _ in range(length)],
        length,
        [length - 1],
        [chance.randrange(3)],
        [0],
        ends=[length - 1],
    )


FAMILIES: dict[str, tuple[Any, Any]] = {
    "preference": (DPO(), pair),
    "classes": (Classification(), text),
    "values": (Worth(), None),
}
"""Objectives beside next tokens, each with its own kind of rows."""


def feed_for(family: str) -> Any:
    make = FAMILIES[family][1] if family else None
    if make is None:
        return feed()
    chance = random.Random(5)
    return Items(tuple(make(chance) for _ in range(13)))


def feed() -> Feed:
    """Rows of 6 to 20 tokens, of which a different share is learned."""
    chance, rows = random.Random(0), []
    for row in range(13):
        length, prompt = chance.randint(6, 20), chance.randint(2, 4)
        ids = [chance.randrange(1, 50) for _ in range(length)]
        rows.append(Encoded(ids, [place >= prompt for place in range(length)], 0, str(row)))
    return plain_feed(rows)


def recipe(adapter: str, **changes: Any) -> Recipe:
    defaults = dict(objective=Instruction(), adapter=ADAPTERS[adapter], precision="fp32", steps=6, batch_size=5, learning_rate=1e-2,
                    pack_tokens=24, max_norm=0.5)  # fmt: skip
    return Recipe(**defaults | changes)


def trained(built: Built, made: Recipe, rows: Any) -> dict[str, Any]:
    """Losses, norms, the loss over all rows, and the sums and first numbers of each final weight: enough to compare."""
    steps = list(train(built, made, rows))
    whole = gathered(built.parameters)
    return {
        "losses": [step.loss for step in steps],
        "norms": [step.grad_norm for step in steps],
        "validation": mean_loss(built, made, rows),
        "weights": {name: tensor.flatten().tolist() for name, tensor in whole.items()},
        "bytes": local_bytes(list(built.parameters.values())),
        "state_bytes": local_bytes(
            [one for state in built.optimizer.state.values() for one in state.values() if one.ndim]
        ),
    }


def gradients_of(built: Built, pack_tokens: int) -> dict[str, list[float]]:
    """Whole gradients of one step over eight rows, not clipped."""
    made = recipe("full", steps=1, batch_size=8, max_norm=0.0, pack_tokens=pack_tokens)
    list(train(built, made, feed()))
    return {
        name: one.flatten().tolist() for name, one in gathered({n: p.grad for n, p in built.parameters.items()}).items()
    }


def curve(case: dict[str, Any], place: Placement | None = None) -> dict[str, Any]:
    """One case: {"adapter", "strategy", "sharding_factor", "recompute", "tied", "recipe"}."""
    if place is None:
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        place = placement(
            case.get("strategy", "single"), ranks=ranks, sharding_factor=case.get("sharding_factor", 0),
            tensor_degree=case.get("tensor_degree", 1), recompute=case.get("recompute", "none"),
        )  # fmt: skip
    family = case.get("family", "")
    changes = dict(objective=FAMILIES[family][0], labels=LABELS if family == "classes" else ()) if family else {}
    made = recipe(case["adapter"], **changes, **case.get("recipe", {}))
    if case.get("gradients"):
        return gradients_of(build(made, load(), place), 24)
    return trained(build(made, load(case.get("tied", True), made.head), place), made, feed_for(family))


def curves(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several cases one after another in one set of processes: starting them costs more than the training."""
    torch.set_num_threads(1)
    return [curve(case) for case in cases]
