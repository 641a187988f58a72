"""The head that an objective names, as `estimate` traces it: against the live bytes of the engine's own step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoConfig

from genwright.adapters.base import trainable
from genwright.adapters.full import Full
from genwright.adapters.lora import LoRA
from genwright.catalogue.devices import device
from genwright.catalogue.parts import OBJECTIVES
from genwright.data.collate import Batch, Item, collate_items
from genwright.engine.recipe import Recipe
from genwright.models.attention import NAME
from genwright.plan.architectures import config_of
from genwright.plan.here.trace import build_fake, trace_step
from genwright.plan.priced.allocator import live_peak
from genwright.plan.published.frameworks import filled
from genwright.plan.traced.attention import _attend
from genwright.plan.traced.compose import compose
from genwright.plan.traced.heads import CLASSES, head_of
from genwright.plan.traced.record import Trace
from genwright.plan.traced.setup import ALSO, Setup
from genwright.plan.traced.trace_setup import trace_pieces
from genwright.plan.training import estimate_training

LLAMA = {
    "model_type": "llama", "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": 512, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
TOKENS = 256
WITHIN = 0.005
"""Of the engine's peak, as for the adapters."""
ROWS = {"reward-model": 2, "contrastive": 2}


def planned(objective: str, adapter: str, config: dict[str, Any], rows: int) -> Trace:
    setup = Setup(
        model=config, objective=objective, adapter=adapter, precision="bf16", seq_len=TOKENS, micro_batch=rows
    )
    setup, profile, _ = filled(setup.check())
    return compose(trace_pieces(setup, profile, config_of(config)), setup, profile)


def batch_of(objective: str, rows: int) -> Batch:
    """So many rows of TOKENS tokens, with what the objective reads of them."""
    kind = OBJECTIVES[objective].head
    ends = {"classes": [TOKENS - 1], "tags": [*range(TOKENS)], "value": [*range(TOKENS - 1)]}.get(kind, [])
    item = Item(
        [1] * TOKENS, (TOKENS,), ends, [0] * len(ends), [0] * len(ends), counts={"pairs": 0.5}, ends=(TOKENS - 1,)
    )
    (batch,) = collate_items(
        [item] * rows * ROWS.get(objective, 1), packing=kind != "embedding", capacity=1 << 30, pad_id=0
    )
    values = {name: torch.zeros(len(ends)) for name in ("old_N", "advantage_N", "old_value_N", "return_N")}
    last = {"last_D": torch.arange(rows * ROWS.get(objective, 1)) * TOKENS + TOKENS - 1}
    return replace(batch, columns=values if kind == "value" else last if kind == "score" else {})


def of_the_engine(objective: str, adapter: Any, config: dict[str, Any], rows: int) -> tuple[int, int]:
    recipe = Recipe(OBJECTIVES[objective](), adapter, "bf16", steps=9, batch_size=1, learning_rate=1e-3, labels=CLASSES)
    fake = build_fake(recipe, AutoConfig.for_model(**config))
    step = trace_step(fake, lambda: [batch_of(objective, rows)], recipe)
    return step.peak.total, sum(one.numel() for one in trainable(fake.built.model).values())


@pytest.mark.parametrize(("objective", "config", "rows"), [
    ("reward-model", LLAMA, 1), ("classification", LLAMA, 2), ("token-classification", LLAMA, 1), ("contrastive", LLAMA, 2),
    ("ppo", LLAMA, 1), ("token-classification", BERT, 1),
])  # fmt: skip
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_its_head_is_the_engine_s(
    objective: str, config: dict[str, Any], rows: int, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained weights are equal to the last one: the language head is gone where it is not read, the new one is trained."""
    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, _attend)
    made = Full() if adapter == "full" else LoRA()
    whole, trained = of_the_engine(objective, made, config, rows)
    trace = planned(objective, adapter, config, rows)
    assert trace.trainable == trained
    total, parts, *_ = live_peak(trace.allocations)
    assert total - parts.get("reference model", 0) == pytest.approx(whole, rel=WITHIN)


def test_every_objective_has_the_head_of_its_class() -> None:
    assert {name: head_of(name).kind for name in OBJECTIVES} == {name: OBJECTIVES[name].head for name in OBJECTIVES}
    assert {head_of(name).kind for name in ALSO} == {"language"}


def test_no_logits_stand_beside_a_score() -> None:
    """4096 x 4 bytes a token are most of the language head's peak here; a score has none of them."""
    parts = {
        objective: estimate_training(
            Setup(model=LLAMA, objective=objective, precision="bf16", seq_len=TOKENS), device("h100")
        ).breakdown
        for objective in ("instruction", "classification")
    }
    assert (
        parts["instruction"]["logits and loss"] >= 4 * 4096 * TOKENS
        and "logits and loss" not in parts["classification"]
    )


MT5 = {
    "model_type": "mt5", "vocab_size": 4096, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True, "decoder_start_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_a_head_stands_for_itself_where_the_config_says_so(kind: str) -> None:
    """T5 v1.1 and mT5 have a head beside the table: V x D weights more than the first T5."""
    sizes = {
        says: planned("instruction", "full", {**MT5, "model_type": kind, "tie_word_embeddings": says}, 1).parameters
        for says in (True, False)
    }
    assert sizes[False] - sizes[True] == 4096 * 64


@pytest.mark.parametrize("config", [LLAMA, BERT])
def test_a_fresh_head_is_float32_over_a_body_in_16_bits(config: dict[str, Any]) -> None:
    setup = Setup(model=config, objective="classification", framework="deepspeed", precision="fp16", seq_len=TOKENS)
    setup, profile, _ = filled(setup)
    weights = trace_pieces(setup, profile, config_of(config)).weights
    wide = {weight.name.split(".")[0] for weight in weights if weight.bytes_each == 4}
    assert wide == {"score" if config is LLAMA else "classifier"} and {weight.bytes_each for weight in weights} == {
        2,
        4,
    }
