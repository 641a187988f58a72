"""The task's rows as tokens, and a LoRA as `peft`'s files, for trainers that read neither `transformers` nor `peft` folders.

Imports only what such a trainer's environment has anyway: tokenizers, jinja2, safetensors, torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.torch import save_file
from tokenizers import Tokenizer

IGNORED = -100


def rows_in_order(task: dict[str, Any]) -> list[dict[str, str]]:
    """{"prompt", "completion"} as our engine takes them, step after step; the prompt rendered by the chat template."""
    rows = [json.loads(line) for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    folder = Path(task["model"])
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template(folder))

    def prompt(row: dict[str, str]) -> str:
        return template.render(messages=[{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)

    return [{**rows[n], "prompt": prompt(rows[n])} for step in task["order"] for n in step]


def chat_template(folder: Path) -> str:
    """From its own file, or from the tokenizer's configuration."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return str(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


def end_of_turn(folder: Path) -> str:
    """The tokenizer's EOS, which ends an answer."""
    token = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    return token if isinstance(token, str) else str(token["content"])


def encoded_rows(task: dict[str, Any]) -> list[dict[str, Any]]:
    """[{"input_ids", "labels"}], int64: the answer and its end are learned, the prompt is not."""
    folder = Path(task["model"])
    tokenizer, end = Tokenizer.from_file(str(folder / "tokenizer.json")), end_of_turn(folder)
    tokenizer.no_truncation()
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    made = []
    for row in rows_in_order(task):
        asked, whole = ids(row["prompt"]), ids(row["prompt"] + row["completion"] + end)
        labels = [IGNORED] * len(asked) + whole[len(asked) :]
        made.append({"input_ids": torch.tensor(whole), "labels": torch.tensor(labels)})
    return made


class Counting:
    """A collator, and a count of what leaves it, in tokens: learned, real, computed (with padding)."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.learned: list[int] = []
        self.tokens: list[int] = []
        self.computed: list[int] = []

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """Collate and count."""
        batch: dict[str, Any] = self.collator(rows)
        self.learned.append(int((batch["labels"][:, 1:] != IGNORED).sum()))
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        self.computed.append(batch["input_ids"].numel())
        return batch


def save_adapter(folder: Path, weights: dict[str, torch.Tensor], lora: dict[str, Any]) -> None:
    """`peft`'s two files. Names are as in its state dict, without the adapter's name."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in weights})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": lora["rank"], "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"], "target_modules": targets, "bias": "none",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    save_file(
        {name: one.float().contiguous().clone() for name, one in weights.items()}, folder / "adapter_model.safetensors"
    )
