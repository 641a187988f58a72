"""A tiny real model and rows of made-up tokens: what the engine needs, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.lora import LoRA
from genwright.data.layouts import Feed, plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import Built, build
from genwright.engine.recipe import Recipe
from genwright.objectives.language import Instruction

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True}  # fmt: skip


def load(dtype: torch.dtype, attention: str) -> Any:
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation=attention).to(dtype)


def rows(number: int) -> list[Encoded]:
    chance = random.Random(0)
    made = []
    for row in range(number):
        length, prompt = chance.randint(6, 20), chance.randint(2, 4)
        made.append(
            Encoded(
                [chance.randrange(1, 50) for _ in range(length)],
                [place >= prompt for place in range(length)],
                0,
                str(row),
            )
        )
    return made


@pytest.fixture
def feed() -> Feed:
    return plain_feed(rows(13))


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    def make(**changes: Any) -> Recipe:
        return Recipe(**{**dict(objective=Instruction(), adapter=LoRA(rank=4), precision="fp32", steps=9, batch_size=4,
                                learning_rate=1e-2, pack_tokens=40), **changes})  # fmt: skip

    return make


@pytest.fixture
def built() -> Callable[[Recipe], Built]:
    return lambda recipe: build(recipe, load)
