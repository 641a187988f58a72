"""Tokenizers made on the spot: byte-level BPE with ChatML, with end-of-turn = padding, as SmolLM2 has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SHARED = Path(__file__).parents[2].parent / "shared"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def backend() -> str:
    """Trained once; every byte is in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|call|>", "<|bos|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the user asks and the assistant answers the user kindly"] * 4, trainer)
    return tokenizer.to_str()


@pytest.fixture
def tokenizer_with() -> Callable[..., Any]:
    """A tokenizer with this template (None: without) and these special tokens."""

    def make(template: str | None = CHATML, **special: str | None) -> Any:
        named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": None, **special}
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(backend()), chat_template=template,
            additional_special_tokens=["<|im_start|>", "<|end|>", "<|call|>"], **named,
        )  # fmt: skip

    return make


@pytest.fixture
def tokenizer(tokenizer_with: Callable[..., Any]) -> Any:
    return tokenizer_with()


@pytest.fixture
def stories() -> Any:
    folder = SHARED / "models" / "stories260k"
    if not folder.exists():
        pytest.skip("the model stories260k is not here")
    return AutoTokenizer.from_pretrained(folder)
