"""TRL's SFTTrainer on the task that Genwright gets, in TRL's own environment.

    .venv/bin/python run.py TASK.json OUT_FOLDER        writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/

The task's "peer" table says which way: packing, padding_free, gradient_checkpointing, precision. Whatever it does not
name is SFTTrainer's default. See ../../README.md for why these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # clock.py and machine.py, standard library only

import torch
from datasets import Dataset, disable_caching, disable_progress_bars
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer, pack_dataset

from clock import StepClock
from machine import versions

PRECISIONS: dict[str, dict[str, Any]] = {
    "bf16-autocast": {"bf16": True},  # TRL's default: float32 weights, bfloat16 products by autocast
    "bf16-weights": {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}},  # peft keeps the adapters in float32
    "fp32": {"bf16": False},
}


class Ticking(TrainerCallback):
    """Ticks the clock after every optimiser step."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick()


class Counting:
    """The trainer's own collator, and a count of what leaves it."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.learned: list[int] = []
        self.tokens: list[int] = []
        self.computed: list[int] = []
        self.first: dict[str, Any] = {}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        self.first = self.first or dict(batch)
        # Labels are shifted inside the loss, so a label at position 0 would not be learned. No prompt is empty.
        self.learned.append(int((batch["labels"][:, 1:] != -100).sum()))
        self.computed.append(batch["input_ids"].numel())
        self.tokens.append(int(batch["attention_mask"].sum()) if "attention_mask" in batch else self.computed[-1])
        return batch


def rows_in_order(task: dict[str, Any], tokenizer: Any) -> Dataset:
    """The rows as our engine takes them, step after step, in TRL's prompt/completion format.

    As text, not as messages: TRL then learns the answer and the end-of-turn token, as we do. From messages it would
    learn the line break after that token too, one more token a row.
    """
    rows = [json.loads(line) for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    ordered = [rows[number] for step in task["order"] for number in step]

    def prompt(row: dict[str, str]) -> str:
        asked = [{"role": "user", "content": row["prompt"]}]
        return str(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))

    return Dataset.from_list([{"prompt": prompt(row), "completion": row["completion"]} for row in ordered])


def pack_length(dataset: Dataset, tokenizer: Any, num_steps: int) -> int:
    """The shortest packs of which there are no more than `num_steps`: our rows in our number of optimiser steps."""
    ids = [tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"] for row in dataset]
    tokenised = Dataset.from_dict({"input_ids": ids})
    low, high = max(map(len, ids)), sum(map(len, ids))
    while low < high:
        middle = (low + high) // 2
        if len(pack_dataset(tokenised, middle)) <= num_steps:
            high = middle
        else:
            low = middle + 1
    return low


def config(task: dict[str, Any], out: Path, dataset: Dataset, tokenizer: Any) -> SFTConfig:
    """SFTConfig: the task's numbers, the peer's choices, and defaults."""
    peer = task["peer"]
    rows_per_step = task["rows_per_step"]
    options: dict[str, Any] = {"per_device_train_batch_size": rows_per_step, "train_sampling_strategy": "sequential"}
    if peer.get("packing"):
        # One pack holds a step's rows. Best-fit packing sorts by length, so packs are drawn at random, TRL's default.
        length = pack_length(dataset, tokenizer, task["steps"])
        options = {"packing": True, "max_length": length, "per_device_train_batch_size": 1}
    if peer.get("padding_free"):
        options |= {"padding_free": True, "max_length": None}
    if not peer["gradient_checkpointing"]:
        options["gradient_checkpointing"] = False
    return SFTConfig(
        output_dir=str(out / "trainer"), num_train_epochs=1, learning_rate=task["learning_rate"],
        lr_scheduler_type=task["schedule"], warmup_steps=0, weight_decay=task["weight_decay"],
        max_grad_norm=task["max_norm"], seed=task["seed"], use_cpu=True, save_strategy="no", report_to="none",
        disable_tqdm=True, **options, **PRECISIONS[peer["precision"]],
    )  # fmt: skip


def lora_config(lora: dict[str, Any]) -> LoraConfig:
    """The task's adapter."""
    names = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}
    return LoraConfig(**{names[key]: value for key, value in lora.items()}, task_type="CAUSAL_LM")


@torch.no_grad()
def leaks(model: Any, batch: dict[str, Any]) -> bool | None:
    """Whether the second document of the first pack sees the first one: its logits change when that one's tokens do.

    None where a batch holds no two documents laid end to end.
    """
    if "position_ids" not in batch:
        return None
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    if len(starts) < 2:
        return None
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    other = inputs["input_ids"].clone()
    other[0, : starts[1]] = torch.randint(10, 1000, (starts[1],))
    model.eval()
    both = [model(**{**inputs, "input_ids": ids}, use_cache=False).logits for ids in (inputs["input_ids"], other)]
    first, second = (logits[0, starts[1] :] for logits in both)
    model.train()
    return bool((first - second).abs().max() > 1e-3)


def train(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train, save the adapter, return what was measured and with what."""
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    dataset = rows_in_order(task, tokenizer)
    clock = StepClock()
    trainer = SFTTrainer(
        model=task["model"], args=config(task, out, dataset, tokenizer), train_dataset=dataset,
        processing_class=tokenizer, peft_config=lora_config(task["lora"]), callbacks=[Ticking(clock)],
    )  # fmt: skip
    counting = trainer.data_collator = Counting(trainer.data_collator)
    trainer.train()
    trainer.model.save_pretrained(out / "adapter")
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        **clock.measured(counting.learned, counting.tokens, counting.computed),
        "trained_parameters": trained,
        "train_loss": losses,
        "documents_leak": leaks(trainer.model, counting.first),
        "settings": settings(trainer),
        "versions": versions(),
    }


def settings(trainer: SFTTrainer) -> dict[str, Any]:
    """What decides the speed, as the trainer resolved it."""
    names = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "bf16", "packing",
        "packing_strategy", "padding_free", "max_length", "completion_only_loss", "loss_type", "optim", "learning_rate",
        "lr_scheduler_type", "warmup_steps", "max_grad_norm", "train_sampling_strategy", "dataloader_num_workers",
    )  # fmt: skip
    model = trainer.model.get_base_model()
    chosen, plain = {name: getattr(trainer.args, name) for name in names}, (bool, int, float, type(None))
    return {
        **{name: value if isinstance(value, plain) else str(value) for name, value in chosen.items()},
        "weights": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Read the task, train, write run.json."""
    task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    disable_caching()
    disable_progress_bars()
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(train(task, out), indent=1))


if __name__ == "__main__":
    main()
