"""TRL on the other columns: full fine-tuning and prompt tuning by SFTTrainer, DPO by DPOTrainer; in TRL's own environment.

    .venv/bin/python methods.py TASK.json OUT_FOLDER    writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/ (full: a whole model)

The task's "method" is "full", "prompt-tuning" (with "virtual_tokens") or "dpo" (with "beta"; its rows have prompt, chosen and
rejected, it trains the task's LoRA and takes the base without it as its reference). What run.py says of precision and order holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # run.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # clock.py and machine.py, standard library only

import torch
from datasets import Dataset, disable_caching, disable_progress_bars
from peft import PromptTuningConfig
from run import PRECISIONS, Counting, Ticking, lora_config, rows_in_order
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from clock import StepClock
from machine import versions


class CountingPairs(Counting):
    """DPO's batch: the chosen half, then the rejected one; learned are the answers' tokens of both."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        self.learned.append(int(batch["completion_mask"][:, 1:].sum()))
        self.tokens.append(int(batch["attention_mask"].sum()))
        self.computed.append(batch["input_ids"].numel())
        return batch


def common(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """What SFTConfig and DPOConfig share: the task's numbers, the peer's choices, defaults."""
    peer = task["peer"]
    return {
        "output_dir": str(out / "trainer"), "num_train_epochs": 1, "learning_rate": task["learning_rate"],
        "lr_scheduler_type": task["schedule"], "warmup_steps": 0, "weight_decay": task["weight_decay"],
        "max_grad_norm": task["max_norm"], "seed": task["seed"], "use_cpu": True, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "per_device_train_batch_size": task["rows_per_step"], "max_length": None,
        "gradient_checkpointing": bool(peer.get("gradient_checkpointing")), **PRECISIONS[peer["precision"]],
    }  # fmt: skip


def supervised(task: dict[str, Any], out: Path, tokenizer: Any, clock: StepClock) -> tuple[Any, Counting]:
    """SFTTrainer over all weights, or over virtual tokens."""
    peft_config = None
    if task["method"] == "prompt-tuning":
        peft_config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=task["virtual_tokens"])
    trainer = SFTTrainer(
        model=task["model"], args=SFTConfig(**common(task, out), train_sampling_strategy="sequential"),
        train_dataset=rows_in_order(task, tokenizer), processing_class=tokenizer, peft_config=peft_config, callbacks=[Ticking(clock)],
    )  # fmt: skip
    return trainer, Counting(trainer.data_collator)


def preference(task: dict[str, Any], out: Path, tokenizer: Any, clock: StepClock) -> tuple[Any, Counting]:
    """DPOTrainer over the task's LoRA. Reference log-probabilities are TRL's default: computed in every step."""
    rows = [json.loads(line) for line in Path(task["rows"]).read_text(encoding="utf-8").splitlines()]
    ordered = [rows[number] for step in task["order"] for number in step]
    prompt = lambda row: tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, tokenize=False
    )
    pairs = [{"prompt": prompt(row), "chosen": row["chosen"], "rejected": row["rejected"]} for row in ordered]
    trainer = DPOTrainer(
        model=task["model"], args=DPOConfig(**common(task, out), beta=task["beta"]), train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer, peft_config=lora_config(task["lora"]), callbacks=[Ticking(clock)],
    )  # fmt: skip
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    return trainer, CountingPairs(trainer.data_collator)


METHODS = {"full": supervised, "prompt-tuning": supervised, "dpo": preference}


def train(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train, save, return what was measured and with what."""
    tokenizer, clock = AutoTokenizer.from_pretrained(task["model"]), StepClock()
    trainer, counting = METHODS[task["method"]](task, out, tokenizer, clock)
    trainer.data_collator = counting
    trainer.train()
    trainer.model.save_pretrained(out / "adapter")
    names = ("gradient_checkpointing", "bf16", "optim", "learning_rate", "per_device_train_batch_size", "max_length")
    return {
        **clock.measured(counting.learned, counting.tokens, counting.computed),
        "trained_parameters": sum(one.numel() for one in trainer.model.parameters() if one.requires_grad),
        "train_loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "documents_leak": None,
        "settings": {name: str(getattr(trainer.args, name)) for name in names} | {"threads": torch.get_num_threads()},
        "versions": versions(),
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
