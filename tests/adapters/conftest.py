"""Tiny real models of every family, made from configurations with a fixed seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    T5Config,
)

LLAMA = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0,
)  # fmt: skip
BERT = BertConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3,
)  # fmt: skip
T5 = T5Config(
    vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0, decoder_start_token_id=0,
    tie_word_embeddings=True,
)  # fmt: skip
MAKERS = {
    "decoder": (AutoModelForCausalLM, LLAMA),
    "encoder": (AutoModelForMaskedLM, BERT),
    "encoder-decoder": (AutoModelForSeq2SeqLM, T5),
    "classes": (AutoModelForSequenceClassification, BERT),
    "reward": (AutoModelForSequenceClassification, LLAMA),
}


def make(family: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """A random model whose logits are far apart; a head that a family makes anew for its task is named on the model."""
    maker, config = MAKERS[family]
    torch.manual_seed(7)
    model = maker.from_config(copy.deepcopy(config), attn_implementation=attention if family == "decoder" else "eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    if family in ("classes", "reward"):
        model.genwright_heads = ("classifier",) if family == "classes" else ("score",)
    return (model if dtype == torch.float32 else model.to(dtype)).eval()


@pytest.fixture
def model_of():
    """The maker of tiny models."""
    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and threads that wait for a busy machine lose a lot."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
