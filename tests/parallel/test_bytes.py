"""What each rank keeps, on ranks that do not exist: the ZeRO paper's arithmetic (Rajbhandari 2019, arXiv 1910.02054)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import workers
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.engine.build import build
from genwright.engine.step import train_step
from genwright.parallel.mesh import fake_ranks, placement
from genwright.parallel.norm import global_norm
from genwright.parallel.shard import local_bytes
from genwright.plan.here.trace import fake_weights_can_be_cast

WIDE = dict(
    vocab_size=2048,
    hidden_size=1024,
    intermediate_size=2048,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=8,
)


def wide(dtype: torch.dtype, attention: str) -> Any:
    config = LlamaConfig(**WIDE, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype)


def resident(model: Any) -> tuple[int, int]:
    """Bytes that stand in the middle of a step beside the shards: gathered weights, and gradients of either kind."""
    gathered = 0
    grads = [one.grad for one in model.parameters() if one.grad is not None]
    for unit in model.modules():
        for group in unit._get_fsdp_state()._fsdp_param_groups if hasattr(unit, "_get_fsdp_state") else []:
            for one in group.fsdp_params:
                gathered += sum(whole.untyped_storage().size() for whole in one.all_gather_outputs)
                grads += [one.unsharded_accumulated_grad] if one.unsharded_accumulated_grad is not None else []
                grads += [one.sharded_param.grad] if one.sharded_param.grad is not None else []
    return gathered, local_bytes(list({id(one): one for one in grads}.values()))


def bytes_per_weight(strategy: str, ranks: int, adapter: str = "full", **options: Any) -> SimpleNamespace:
    """Of rank 0, over a step of at least two microbatches, on ranks that do not exist and weights without numbers."""
    middle: list[tuple[int, int]] = []

    def watched(model: Any, given: Any) -> Any:
        for number, batch in enumerate(given):
            if number:
                middle.append(resident(model))
            yield batch

    with fake_ranks(ranks), fake_weights_can_be_cast(), FakeTensorMode():
        made = workers.recipe(adapter)
        built = build(made, wide, placement(strategy, ranks=ranks, **options))
        num_weights = sum(one.numel() for one in built.parameters.values())
        one = workers.feed().batches([0, 1, 2, 3], seed=0, step=0, packing=True, capacity=100)[0]
        share = built.team.share(built.model, [one] * (2 * ranks))
        train_step(
            built.model, built.optimizer, built.objective, watched(built.model, share), max_norm=1.0, global_norm=global_norm
        )  # fmt: skip
        state = [value for state in built.optimizer.state.values() for value in state.values() if value.ndim]
        parts = {
            "weights": local_bytes(list(built.parameters.values())), "state": local_bytes(state), "all": local_bytes(list(built.model.parameters())),
            "gathered": middle[0][0], "gradients": middle[0][1],
        }  # fmt: skip
    return SimpleNamespace(num_weights=num_weights, **{part: size / num_weights for part, size in parts.items()})


@pytest.mark.parametrize("ranks", [2, 64, 1024])
@pytest.mark.parametrize(
    ("strategy", "gathered", "gradients", "split"),
    [("ddp", 0, 4, False), ("zero1", 4, 4, True), ("zero2", 4, 0, True), ("zero3", 0, 0, True)],
)
def test_bytes_follow_the_paper(strategy: str, gathered: int, gradients: int, split: bool, ranks: int) -> None:
    """ZeRO, figure 1, for float32 masters: 4 weights, 4 gradients, 8 AdamW; a stage divides one more of them by the ranks.

    What differs: stages 1 and 2 keep the masters' shard (4 / ranks) beside the whole weights that they are gathered to.
    """
    found = bytes_per_weight(strategy, ranks)
    part = 1 / ranks if split else 1
    assert found.weights == pytest.approx(4 * part)
    assert found.state == pytest.approx(8 * part)
    assert found.gathered == pytest.approx(gathered)
    assert found.gradients == pytest.approx(gradients or 4 * part)


@pytest.mark.parametrize("factor", [1, 2, 16, 1024])
def test_hybrid_goes_from_replication_to_stage_three(factor: int) -> None:
    found = bytes_per_weight("hybrid", 1024, sharding_factor=factor)
    assert found.weights + found.gradients + found.state == pytest.approx(16 / factor)


@pytest.mark.parametrize(("strategy", "ranks"), [("zero1", 64), ("zero3", 64)])
def test_a_frozen_base_is_split_by_stage_three_only(strategy: str, ranks: int) -> None:
    """Its 2 or 4 bytes a weight are parameters, and stages 1 and 2 do not split parameters, nor send them."""
    found, whole = bytes_per_weight(strategy, ranks, "lora"), bytes_per_weight("ddp", ranks, "lora")
    base = whole.all - whole.weights
    assert found.weights == pytest.approx(4 / ranks)
    assert found.all - found.weights == pytest.approx(base / ranks if strategy == "zero3" else base)
