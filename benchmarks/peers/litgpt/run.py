"""LitGPT's LoRA fine-tuning on the task that Genwright gets, in LitGPT's own environment.

    .venv/bin/python run.py TASK.json OUT_FOLDER        writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/

The loop is `litgpt.finetune.lora.fit`, its model, its collator, its loss. What it has no setting for is handed to it: rows in our
order, a schedule without warm-up, clipping inside the optimiser's step. ../../README.md says why these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # encoded.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # clock.py and machine.py, standard library only

import lightning as L
import torch
from encoded import Counting, encoded_rows, save_adapter
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data.base import get_sft_collate_fn
from litgpt.finetune import lora as trainer
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from clock import StepClock
from machine import PACKAGES, versions

PRECISIONS = {"bf16-autocast": "bf16-mixed", "bf16-weights": "bf16-true", "fp32": "32-true"}
NAMES = {
    "attn.proj": "self_attn.o_proj",
    "mlp.fc_1": "mlp.gate_proj",
    "mlp.fc_2": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
}
COUNTS = ("raw", "raw_plus_prompt_template")
TARGETS = ("query", "key", "value", "projection", "mlp")


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips first: LitGPT's LoRA loop has no clipping, and the task asks for it."""

    max_norm = 1.0

    def step(self, *arguments: Any, **options: Any) -> Any:
        """Clip the norm of all gradients, then step."""
        torch.nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], self.max_norm)
        return super().step(*arguments, **options)


class TickingSchedule(torch.optim.lr_scheduler.CosineAnnealingLR):
    """Cosine without warm-up. LitGPT steps it once after each optimiser step: that is where the clock ticks."""

    clock: StepClock | None = None

    def step(self, *arguments: Any) -> None:
        """One more step is done."""
        super().step(*arguments)
        if self.clock is not None:
            self.clock.tick()


def model_config(folder: Path, lora: dict[str, Any]) -> Config:
    """LitGPT's configuration of a Llama, from the folder's own."""
    told = json.loads((folder / "config.json").read_text())
    rope = (told.get("rope_parameters") or told)["rope_theta"]
    return Config(
        name="the task's model", block_size=told["max_position_embeddings"], vocab_size=told["vocab_size"],
        padded_vocab_size=told["vocab_size"], n_layer=told["num_hidden_layers"], n_head=told["num_attention_heads"],
        n_embd=told["hidden_size"], n_query_groups=told["num_key_value_heads"], rotary_percentage=1.0,
        parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        intermediate_size=told["intermediate_size"], rope_base=rope, norm_eps=told["rms_norm_eps"],
        lora_r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"],
        **{f"lora_{name}": True for name in TARGETS},
    )  # fmt: skip


def base_weights(folder: Path, config: Config) -> dict[str, torch.Tensor]:
    """The folder's weights under LitGPT's names, by its own converter."""
    weights: dict[str, torch.Tensor] = {}
    files = {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}
    copy_weights_hf_llama(config, {}, weights, files)
    return weights


def peft_weights(model: Any, rank: int) -> dict[str, torch.Tensor]:
    """LitGPT's LoRA under `peft`'s names. Query, key and value stand in one matrix there: A and B are cut in three."""
    found: dict[str, torch.Tensor] = {}
    for number, block in enumerate(model.transformer.h):
        begin = f"base_model.model.model.layers.{number}"
        qkv = block.attn.qkv
        parts = zip("qkv", qkv.lora_A.detach().split(rank), qkv.lora_B.detach().split(qkv.qkv_shapes), strict=True)
        for name, down, up in parts:
            found[f"{begin}.self_attn.{name}_proj.lora_A.weight"] = down
            found[f"{begin}.self_attn.{name}_proj.lora_B.weight"] = up
        for theirs, name in NAMES.items():
            layer = block.get_submodule(theirs)
            found[f"{begin}.{name}.lora_A.weight"] = layer.lora_A.detach()
            found[f"{begin}.{name}.lora_B.weight"] = layer.lora_B.detach()
    return found


def train(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train by LitGPT's `fit`, save the adapter, return what was measured and with what."""
    folder, per_step, precision = Path(task["model"]), task["rows_per_step"], PRECISIONS[task["peer"]["precision"]]
    fabric = L.Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.seed_everything(task["seed"], verbose=False)
    config = model_config(folder, task["lora"])
    with fabric.init_module(empty_init=False):
        model = GPT(config)
    mark_only_lora_as_trainable(model)
    model.load_state_dict(base_weights(folder, config), strict=False)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    wrapped = fabric.setup_module(model)
    ClippedAdamW.max_norm = task["max_norm"]
    plain = ClippedAdamW(
        [one for one in model.parameters() if one.requires_grad],
        lr=task["learning_rate"],
        weight_decay=task["weight_decay"],
    )
    optimizer = fabric.setup_optimizers(plain)
    schedule = TickingSchedule(optimizer, T_max=task["steps"])
    schedule.clock = clock = StepClock()
    counting = Counting(get_sft_collate_fn())
    rows = [row | {"token_counts": dict.fromkeys(COUNTS, len(row["input_ids"]))} for row in encoded_rows(task)]
    batches = DataLoader(rows, batch_size=per_step, collate_fn=counting)
    unseen = DataLoader(rows[:1], batch_size=1, collate_fn=get_sft_collate_fn())
    trainer.Tokenizer = lambda _: None  # only for writing samples, which is not asked for
    trainer.fit(
        fabric, wrapped, optimizer, schedule, *fabric.setup_dataloaders(batches, unseen), devices=1, checkpoint_dir=folder,
        out_dir=out, train=TrainArgs(
            save_interval=None, log_interval=10, global_batch_size=per_step, micro_batch_size=per_step, epochs=2, max_steps=task["steps"],
        ),
        eval=EvalArgs(interval=10**9, initial_validation=False), data=None,
    )  # fmt: skip
    save_adapter(out / "adapter", peft_weights(model, task["lora"]["rank"]), task["lora"])
    return {
        **clock.measured(counting.learned, counting.tokens, counting.computed),
        "trained_parameters": trained, "train_loss": [], "documents_leak": None,
        "settings": {"precision": precision, "optimizer": "torch.optim.AdamW", "threads": torch.get_num_threads()},
        "versions": versions((*PACKAGES, "litgpt", "lightning")),
    }  # fmt: skip


def main() -> None:
    """Read the task, train, write run.json."""
    task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(train(task, out), indent=1))


if __name__ == "__main__":
    main()
