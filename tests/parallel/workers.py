"""What runs inside the processes that the tests of this folder start: a tiny Llama, ragged rows, six AdamW steps."""

from __future__ import annotations

import os
import random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.full import Full, LastLayers
from genwright.adapters.lora import LoRA
from genwright.data.layouts import Feed, plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import Built, build
from genwright.engine.loop import mean_loss, train
from genwright.engine.recipe import Recipe
from genwright.objectives.language import Instruction
from genwright.parallel.mesh import Placement, placement
from genwright.parallel.shard import gathered, local_bytes

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
ADAPTERS = {"full": Full(), "lora": LoRA(rank=4), "last-layers": LastLayers(layers=1)}


def load(tied: bool = True) -> Any:
    def loaded(dtype: torch.dtype, attention: str) -> Any:
        torch.manual_seed(7)
        config = LlamaConfig(**SIZES, tie_word_embeddings=tied)
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype)

    return loaded


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


def trained(built: Built, made: Recipe) -> dict[str, Any]:
    """Losses, norms, the loss over all rows, and the sums and first numbers of each final weight: enough to compare."""
    steps = list(train(built, made, feed()))
    whole = gathered(built.parameters)
    return {
        "losses": [step.loss for step in steps],
        "norms": [step.grad_norm for step in steps],
        "validation": mean_loss(built, made, feed()),
        "weights": {name: tensor.flatten().tolist() for name, tensor in whole.items()},
        "bytes": local_bytes(list(built.parameters.values())),
        "state_bytes": local_bytes(
            [one for state in built.optimizer.state.values() for one in state.values() if one.ndim]
        ),
    }


def curve(case: dict[str, Any], place: Placement | None = None) -> dict[str, Any]:
    """One case: {"adapter", "strategy", "sharding_factor", "recompute", "tied", "recipe"}."""
    if place is None:
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        place = placement(
            case.get("strategy", "single"), ranks=ranks, sharding_factor=case.get("sharding_factor", 0),
            recompute=case.get("recompute", "none"),
        )  # fmt: skip
    made = recipe(case["adapter"], **case.get("recipe", {}))
    return trained(build(made, load(case.get("tied", True)), place), made)


def curves(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several cases one after another in one set of processes: starting them costs more than the training."""
    torch.set_num_threads(1)
    return [curve(case) for case in cases]
