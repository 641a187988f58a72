"""Tiny real models, made from configurations with a fixed seed; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

WORDS = ["<unk>", "<s>", "</s>", "<|im_end|>", *(f"w{number}" for number in range(44))]

LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": {**LAYERS, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "gemma2": {**LAYERS, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 1.5, "sliding_window": 8},
    "granite": {**LAYERS, "num_key_value_heads": 2, "logits_scaling": 3.0},
    "cohere": {**LAYERS, "num_key_value_heads": 2, "logit_scale": 0.25},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "bert": LAYERS,
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
}
KINDS = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}


def make_model(kind: str) -> torch.nn.Module:
    """A random model of a kind whose logits are far apart, so that comparisons can fail."""
    config = AutoConfig.for_model(
        kind, vocab_size=len(WORDS), pad_token_id=0, bos_token_id=1, eos_token_id=2, **CONFIGS[kind]
    )
    torch.manual_seed(0)
    model = KINDS.get(kind, AutoModelForCausalLM).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder on disk."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def model_of():
    """The maker of tiny models."""
    return make_model


@pytest.fixture
def tokenizer():
    """Forty-eight words, two of which end an answer."""
    return make_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and threads that wait for a busy machine lose a lot."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch) -> dict:
    """An empty catalogue, to which a test adds the cards it needs."""
    cards: dict = {}
    monkeypatch.setattr("genwright.models.sources.models", lambda: cards)
    return cards


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer llama with 48 words, as llama.cpp would write it: F32 norms, Q8_0 matrices."""
    path = tmp_path_factory.mktemp("gguf") / "Tiny.Q8_0.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in {"context_length": 64, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64,
                        "head_count": 4, "head_count_kv": 2, "vocab_size": 48}.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    letters = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "Ġ",
        "h",
        "e",
        "l",
        "o",
        "he",
        *"abcdfgijkmnpqrstuvwxyzABCDEFGHIJKLMNO",
    ]
    writer.add_token_list(letters[:48])
    writer.add_token_types([3, 3, 3] + [1] * 45)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    chance = np.random.default_rng(0)
    for name, shape in _gguf_shapes().items():
        values = chance.normal(0, 0.3, shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, kind) if len(shape) == 2 else np.abs(values) + 0.5
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (48, 32), "output_norm.weight": (32,)}
    for layer in range(2):
        for name, shape in {"attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
                            "attn_output": (32, 32), "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}.items():  # fmt: skip
            shapes[f"blk.{layer}.{name}.weight"] = shape
    return shapes
