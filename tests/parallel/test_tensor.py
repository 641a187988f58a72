"""Which models split, into how many; that the split one is the whole one is shown in test_shard.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import workers
from transformers import AutoModelForCausalLM, GPT2Config

from genwright.base.errors import RecipeError
from genwright.engine.build import build
from genwright.parallel.mesh import fake_ranks, placement
from genwright.parallel.shard import local_bytes
from genwright.parallel.tensor import check_degree, plan_of

LLAMA = {"q_proj": "colwise", "k_proj": "colwise", "v_proj": "colwise", "o_proj": "rowwise", "gate_proj": "colwise",
         "up_proj": "colwise", "down_proj": "rowwise"}  # fmt: skip


def test_the_plan_is_the_models_own_layer_by_layer() -> None:
    plan = plan_of(workers.load()(torch.float32, "eager"))
    assert len(plan) == 3 * len(LLAMA)
    assert all(LLAMA[name.rpartition(".")[2]] == style for name, style in plan.items())


def test_a_model_without_a_plan() -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(RecipeError, match=r"GPT2LMHeadModel has no plan(.|\n)*tensor_degree = 1"):
        plan_of(model)


@pytest.mark.parametrize(
    ("degree", "words"), [(3, "4 heads and 2 key/value heads(.|\n)*1, 2(.|\n)*set it to 2"), (4, "found:  4")]
)
def test_heads_that_do_not_divide(degree: int, words: str) -> None:
    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, intermediate_size=48)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    check_degree(model, 2)
    with pytest.raises(RecipeError, match=words):
        check_degree(model, degree)


def test_an_adapter_in_front_of_the_layers_is_refused() -> None:
    with fake_ranks(2), pytest.raises(RecipeError, match=r"stands in front of them(.|\n)*full"):
        build(workers.recipe("lora"), workers.load(), placement("ddp", ranks=2, tensor_degree=2))


def test_layers_products_are_divided_and_the_rest_is_whole() -> None:
    with fake_ranks(8):
        built: Any = build(workers.recipe("full"), workers.load(), placement("ddp", ranks=8, tensor_degree=2))
    inside = {
        name: one for name, one in built.parameters.items() if name.rpartition(".")[0].rpartition(".")[2] in LLAMA
    }
    outside = [one for name, one in built.parameters.items() if name not in inside]
    whole = lambda tensors: sum(one.numel() * 4 for one in tensors)
    assert 2 * local_bytes(list(inside.values())) == whole(inside.values()) > 0
    assert local_bytes(outside) == whole(outside) > 0
    assert (built.team.ranks, built.team.rank) == (4, 0)
