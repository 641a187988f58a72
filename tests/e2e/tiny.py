"""Tiny real models of each family with a tokenizer of their own, and rows of each kind: what a project needs to go all the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[END]", "[CLS]", "[SEP]", "[MASK]", *(f"<extra_id_{number}>" for number in range(20))]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
COLOURS = ["red", "green", "blue", "white"]


def texts() -> list[str]:
    return [f"the {COLOURS[n % 4]} house number {n} stands near the {COLOURS[(n + 1) % 4]} river" for n in range(40)]


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts(),
        trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if family == "encoder":
        raw.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    if family == "encoder-decoder":
        raw.post_processor = processors.TemplateProcessing("$A [END]", special_tokens=[("[END]", 1)])
    own = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"} if family == "encoder" else {}
    extra = [f"<extra_id_{number}>" for number in range(20)]
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        eos_token="[END]",
        additional_special_tokens=extra,
        model_max_length=128,
        **own,
    )


def model(family: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    if family == "decoder":
        config = AutoConfig.for_model(
            "llama", vocab_size=384, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=None, **SIZES
        )
        return AutoModelForCausalLM.from_config(config)
    if family == "encoder":
        drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return AutoModelForMaskedLM.from_config(
            AutoConfig.for_model("bert", vocab_size=384, pad_token_id=0, **drop, **SIZES)
        )
    config = AutoConfig.for_model("t5", vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
                                  pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)  # fmt: skip
    return AutoModelForSeq2SeqLM.from_config(config)


def write_model(folder: Path, family: str, seed: int = 0) -> Path:
    model(family, seed).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder


def rows(kind: str) -> list[dict[str, Any]]:
    made = []
    for number, text in enumerate(texts()):
        colour = COLOURS[number % 4]
        question = f"what colour is house number {number}"
        made.append({
            "text": {"text": text},
            "chat": {"prompt": question, "completion": colour},
            "labelled": {"text": text, "label": colour},
            "tagged": {"tokens": text.split(), "tags": ["colour" if word in COLOURS else "other" for word in text.split()]},
            "preference": {"prompt": question, "chosen": colour, "rejected": f"not {COLOURS[(number + 2) % 4]}"},
            "forget": {"prompt": question, "completion": colour, "forget": number % 4 == 0},
        }[kind])  # fmt: skip
    return made


def write_project(
    folder: Path, *, kind: str, task: str, family: str, method: str, objective: str, metric: str = "", adapt: str = ""
) -> Path:
    write_model(folder / "model", family)
    lines = [json.dumps(row) for row in rows(kind)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "rewards.py").write_text("def score(prompt, answer, reference):\n    return float(answer.count('e'))\n")
    (folder / "genwright.toml").write_text(
        f"""[project]
name = "tiny"
[scope]
task = "{task}"
metric = "{metric}"
[data]
train = "rows.jsonl"
validation_fraction = 0.2
test_fraction = 0.2
[select]
models = ["./model"]
[adapt]
method = "{method}"
objective = "{objective}"
steps = 3
batch_size = 6
max_new_tokens = 6
precision = "fp32"
{adapt}
"""
    )
    return folder
