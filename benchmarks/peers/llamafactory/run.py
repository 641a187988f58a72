"""LLaMA-Factory's supervised fine-tuning on the task that Genwright gets, in LLaMA-Factory's own environment.

    .venv/bin/python run.py TASK.json OUT_FOLDER        writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/

By `run_exp`, what `llamafactory-cli train` calls. Its "empty" template adds nothing: rows come in rendered by the chat template, as
every other side gets them. ../../README.md says why these.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # encoded.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # clock.py and machine.py, standard library only

# Only for images and sound, and published for CUDA alone: beside torch's CPU build they cannot be imported.
UNUSABLE = ("torchvision", "torchaudio")
found_by_python = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.split(".")[0] in UNUSABLE else found_by_python(name, *more)
sys.modules["torchaudio"] = ModuleType("torchaudio")

import torch  # noqa: E402
from encoded import Counting, end_of_turn, rows_in_order  # noqa: E402
from llamafactory.train.sft import workflow  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from clock import StepClock  # noqa: E402
from machine import PACKAGES, versions  # noqa: E402

PRECISIONS: dict[str, dict[str, Any]] = {
    "bf16-autocast": {"bf16": True},  # adapters in float32, the base in bfloat16: LLaMA-Factory loads it so
    "bf16-weights": {"bf16": True, "pure_bf16": True},
    "fp32": {"bf16": False},
}


class Ticking(TrainerCallback):
    """Ticks the clock after every optimiser step; at the end it counts what was trained."""

    def __init__(self, clock: StepClock) -> None:
        self.clock, self.trained = clock, 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick()

    def on_train_end(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.trained = sum(one.numel() for one in model.parameters() if one.requires_grad)


def write_rows(task: dict[str, Any], folder: Path) -> None:
    """LLaMA-Factory's data folder: the rows in our order, and what their columns are."""
    folder.mkdir(parents=True, exist_ok=True)
    end = end_of_turn(Path(task["model"]))
    rows = [{"prompt": row["prompt"], "answer": row["completion"] + end} for row in rows_in_order(task)]
    (folder / "rows.json").write_text(json.dumps(rows))
    columns = {"rows": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "answer"}}}
    (folder / "dataset_info.json").write_text(json.dumps(columns))


def arguments(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """The task's numbers, and LLaMA-Factory's defaults."""
    lora = task["lora"]
    return {
        "stage": "sft", "do_train": True, "model_name_or_path": task["model"], "finetuning_type": "lora", "lora_target": "all",
        "lora_rank": lora["rank"], "lora_alpha": lora["alpha"], "lora_dropout": lora["dropout"],
        "dataset_dir": str(out / "data"), "dataset": "rows", "template": "empty", "cutoff_len": 2048, "overwrite_cache": True,
        "disable_shuffling": True, "output_dir": str(out / "adapter"), "per_device_train_batch_size": task["rows_per_step"],
        "gradient_accumulation_steps": 1, "learning_rate": task["learning_rate"], "lr_scheduler_type": task["schedule"],
        "warmup_steps": 0, "weight_decay": task["weight_decay"], "max_grad_norm": task["max_norm"], "num_train_epochs": 1,
        "max_steps": task["steps"], "seed": task["seed"], "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "logging_steps": 10, "disable_tqdm": True, "disable_gradient_checkpointing": not task["peer"].get("gradient_checkpointing"),
        "packing": False, **PRECISIONS[task["peer"]["precision"]],
    }  # fmt: skip


def train(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train by `run_exp`, return what was measured and with what. It saves the adapter itself."""
    write_rows(task, out / "data")
    clock, counts = StepClock(), []
    ticking, theirs = Ticking(clock), workflow.SFTDataCollatorWith4DAttentionMask

    def counting(**options: Any) -> Counting:
        counts.append(Counting(theirs(**options)))
        return counts[0]

    workflow.SFTDataCollatorWith4DAttentionMask = counting
    given = arguments(task, out)
    run_exp(args=given, callbacks=[ticking])
    return {
        **clock.measured(counts[0].learned, counts[0].tokens, counts[0].computed),
        "trained_parameters": ticking.trained, "train_loss": [], "documents_leak": None,
        "settings": {key: given[key] for key in ("bf16", "disable_gradient_checkpointing", "packing", "lora_target")}
        | {"threads": torch.get_num_threads()},
        "versions": versions((*PACKAGES, "llamafactory")),
    }  # fmt: skip


def main() -> None:
    """Read the task, train, write run.json."""
    task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(train(task, out), indent=1))


if __name__ == "__main__":
    main()
