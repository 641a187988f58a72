"""torchtune's single-device LoRA recipe on the task that Genwright gets, in torchtune's own environment.

    .venv/bin/python run.py TASK.json OUT_FOLDER        writes OUT_FOLDER/run.json and OUT_FOLDER/adapter/

The recipe is `recipes.lora_finetune_single_device`: its model, loss and training loop. Replaced are the ways in and out: weights and
rows come from the task, the adapter leaves in `peft`'s form by torchtune's own converter. ../../README.md says why these.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # encoded.py
sys.path.insert(0, str(Path(__file__).parents[2]))  # clock.py and machine.py, standard library only

import torch
import torchtune
from encoded import Counting, encoded_rows, save_adapter
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torchdata.stateful_dataloader import StatefulDataLoader
from torchtune import training
from torchtune.data import padded_collate_sft
from torchtune.models.convert_weights import hf_to_tune, tune_to_peft_adapter_weights
from torchtune.modules.peft import get_adapter_state_dict
from torchtune.training.metric_logging import MetricLoggerInterface

from clock import StepClock
from machine import PACKAGES, versions

# The wheel carries its recipes as files to be copied, and refuses to import them as a package.
RECIPE = Path(torchtune.__file__).parents[1] / "recipes" / "lora_finetune_single_device.py"
described = importlib.util.spec_from_file_location("lora_finetune_single_device", RECIPE)
recipe_file = importlib.util.module_from_spec(described)
described.loader.exec_module(recipe_file)

PRECISIONS = {"bf16-weights": "bf16", "fp32": "fp32"}
"""torchtune has no autocast: weights and adapters are of one type."""


class Ticking(MetricLoggerInterface):
    """The recipe logs once after each optimiser step: that is where the clock ticks."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def log(self, name: str, data: Any, step: int) -> None:
        """Nothing is kept."""

    def log_config(self, config: Any) -> None:
        """Nothing is kept."""

    def log_dict(self, payload: Any, step: int) -> None:
        """One more step is done."""
        self.clock.tick()

    def close(self) -> None:
        """Nothing is open."""


class Recipe(recipe_file.LoRAFinetuneRecipeSingleDevice):
    """The recipe with the task's weights, rows and clock, and an adapter as `peft` reads it."""

    def __init__(self, settings: Any, task: dict[str, Any], out: Path) -> None:
        super().__init__(settings)
        self.task, self.out, self.clock = task, out, StepClock()
        told = json.loads((Path(task["model"]) / "config.json").read_text())
        names = {"num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads", "dim": "hidden_size"}
        self.heads = {ours: told[theirs] for ours, theirs in names.items()}

    def load_checkpoint(self, cfg_checkpointer: Any) -> dict[str, Any]:
        """The model's safetensors under torchtune's names."""
        files = sorted(Path(self.task["model"]).glob("*.safetensors"))
        weights = {name: one for path in files for name, one in load_file(path).items() if name != "lm_head.weight"}
        return {training.MODEL_KEY: hf_to_tune(weights, **self.heads)}

    def _setup_data(self, *_: Any, **__: Any) -> StatefulDataLoader:
        rows = [
            {"tokens": row["input_ids"].tolist(), "labels": row["labels"].tolist()} for row in encoded_rows(self.task)
        ]
        self.counting = CountingTokens(
            partial(padded_collate_sft, padding_idx=0, ignore_idx=self._loss_fn.ignore_index)
        )
        loader = StatefulDataLoader(
            rows, batch_size=self.task["rows_per_step"], collate_fn=self.counting, shuffle=False
        )
        loader.sampler.set_epoch = lambda _: None
        return loader

    def save_checkpoint(self, epoch: int) -> None:
        """`peft`'s files."""
        weights = tune_to_peft_adapter_weights(get_adapter_state_dict(self._model.state_dict()), **self.heads)
        save_adapter(self.out / "adapter", weights, self.task["lora"])


class CountingTokens(Counting):
    """Counting, for rows that call their ids `tokens` and a batch that calls them so too."""

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """Collate and count."""
        batch: dict[str, Any] = self.collator(rows)
        self.learned.append(int((batch["labels"][:, 1:] != -100).sum()))
        self.tokens.append(sum(len(row["tokens"]) for row in rows))
        self.computed.append(batch["tokens"].numel())
        return batch


def settings_of(task: dict[str, Any], out: Path) -> Any:
    """The recipe's own configuration of Llama 3.2, with the task's sizes and numbers; RoPE is left unscaled."""
    told, lora = json.loads((Path(task["model"]) / "config.json").read_text()), task["lora"]
    return OmegaConf.create({
        "output_dir": str(out), "device": "cpu", "dtype": PRECISIONS[task["peer"]["precision"]], "seed": task["seed"], "epochs": 1,
        "max_steps_per_epoch": task["steps"], "resume_from_checkpoint": False, "gradient_accumulation_steps": 1, "compile": False,
        "clip_grad_norm": task["max_norm"], "shuffle": False, "batch_size": task["rows_per_step"], "log_every_n_steps": 1,
        "enable_activation_checkpointing": bool(task["peer"].get("gradient_checkpointing")), "checkpointer": {"model_type": "LLAMA3_2"},
        "save_adapter_weights_only": True, "tokenizer": {"_component_": "types.SimpleNamespace", "pad_id": 0}, "dataset": {},
        "metric_logger": {"_component_": "torchtune.training.metric_logging.StdoutLogger"},
        "model": {
            "_component_": "torchtune.models.llama3_2.lora_llama3_2", "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True, "lora_rank": lora["rank"], "lora_alpha": lora["alpha"], "lora_dropout": lora["dropout"],
            "vocab_size": told["vocab_size"], "num_layers": told["num_hidden_layers"], "num_heads": told["num_attention_heads"],
            "num_kv_heads": told["num_key_value_heads"], "embed_dim": told["hidden_size"], "max_seq_len": told["max_position_embeddings"],
            "intermediate_dim": told["intermediate_size"], "norm_eps": told["rms_norm_eps"], "scale_factor": 1,
            "rope_base": int((told.get("rope_parameters") or told)["rope_theta"]),
        },
        "optimizer": {"_component_": "torch.optim.AdamW", "fused": True, "weight_decay": task["weight_decay"], "lr": task["learning_rate"]},
        "lr_scheduler": {"_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup", "num_warmup_steps": 0},
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
    })  # fmt: skip


def train(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train by the recipe, return what was measured and with what."""
    settings = settings_of(task, out)
    recipe = Recipe(settings, task, out)
    recipe.setup(OmegaConf.merge(settings))
    recipe._metric_logger = Ticking(recipe.clock)
    recipe.train()
    trained = sum(one.numel() for one in recipe._model.parameters() if one.requires_grad)
    counts = recipe.counting
    return {
        **recipe.clock.measured(counts.learned, counts.tokens, counts.computed),
        "trained_parameters": trained, "train_loss": [], "documents_leak": None,
        "settings": {"dtype": str(settings.dtype), "gradient_checkpointing": settings.enable_activation_checkpointing,
                     "optimizer": "AdamW, fused", "threads": torch.get_num_threads()},
        "versions": versions((*PACKAGES, "torchtune", "torchao")),
    }  # fmt: skip


def main() -> None:
    """Read the task, train, write run.json."""
    task, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(train(task, out), indent=1))


if __name__ == "__main__":
    main()
