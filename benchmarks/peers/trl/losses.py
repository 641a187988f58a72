"""TRL's own losses on a tiny model, in TRL's environment: its trainers make the batch, its methods the loss.

    .venv/bin/python losses.py MODELS_FOLDER OUT_FOLDER

MODELS_FOLDER holds model/, reference/ and scorer/, all with one tokenizer. Of every case OUT_FOLDER gets the tokens that
TRL's batch holds, its loss (cases.json), and its gradient (NAME.safetensors). Trainers are put into eval mode, where
nothing but the loss's own mean divides it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # machine.py, standard library only

import torch
from datasets import Dataset, disable_caching, disable_progress_bars
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.utils import nanstd

from machine import versions

PAIRS = [
    {"prompt": "w5 w6 w7 w8", "chosen": " w9 w10 w11", "rejected": " w12 w13 w14 w15 w16"},
    {"prompt": "w20 w21", "chosen": " w22 w23 w24 w25 w26 w27", "rejected": " w28"},
    {"prompt": "w30 w31 w32", "chosen": " w33 w34", "rejected": " w35 w36"},
]
JUDGED = [
    {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"} for pair in PAIRS for side in ("chosen", "rejected")
]  # fmt: skip
COMMON: dict[str, Any] = {
    "use_cpu": True, "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False, "bf16": False,
    "save_strategy": "no", "seed": 0, "per_device_train_batch_size": 6, "learning_rate": 0.0,
}  # fmt: skip


class Cases:
    """What TRL said, case by case."""

    def __init__(self, models: Path, out: Path) -> None:
        self.models, self.out = models, out
        self.tokenizer = AutoTokenizer.from_pretrained(models / "model")
        self.cases: dict[str, Any] = {}

    def load(self, name: str = "model") -> Any:
        kind = AutoModelForSequenceClassification if name == "scorer" else AutoModelForCausalLM
        return kind.from_pretrained(self.models / name, dtype=torch.float32)

    def arguments(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"train_dataset": Dataset.from_list(rows), "processing_class": self.tokenizer}

    def keep(self, name: str, loss: torch.Tensor, model: Any, **facts: Any) -> None:
        model.zero_grad(set_to_none=True)
        loss.backward()
        gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        save_file({key: value.contiguous() for key, value in gradients.items()}, self.out / f"{name}.safetensors")
        self.cases[name] = {"loss": float(loss.detach()), **facts}


def rows_of(ids: torch.Tensor, attention: torch.Tensor, completion: torch.Tensor) -> list[dict[str, Any]]:
    """(prompt, answer) token ids of each sequence, padding taken off."""
    rows = []
    for ids_T, here_T, answer_T in zip(ids, attention.bool(), completion.bool()):
        rows.append({"prompt": ids_T[here_T & ~answer_T].tolist(), "answer": ids_T[here_T & answer_T].tolist()})
    return rows


def dpo(cases: Cases) -> None:
    for name, options in {
        "dpo": {"beta": 0.1}, "dpo-ipo": {"beta": 0.1, "loss_type": ["ipo"]}, "dpo-beta-1": {"beta": 1.0},
    }.items():  # fmt: skip
        trainer = DPOTrainer(
            model=cases.load(), ref_model=cases.load("reference"),
            args=DPOConfig(output_dir=str(cases.out), **COMMON, **options), **cases.arguments(PAIRS),
        )  # fmt: skip
        trainer.model.eval()
        batch = next(iter(trainer.get_train_dataloader()))
        rows = rows_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
        cases.keep(name, trainer._compute_loss(trainer.model, batch, return_outputs=False), trainer.model, rows=rows)


def kto(cases: Cases) -> None:
    """The two models change places: this way round z is above 0."""
    trainer = KTOTrainer(
        model=cases.load("reference"), ref_model=cases.load(),
        args=KTOConfig(output_dir=str(cases.out), beta=0.1, desirable_weight=1.5, **COMMON), **cases.arguments(JUDGED),
    )  # fmt: skip
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    rows = rows_of(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    mismatched = rows_of(batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"])
    desirable = [float(one) for one in batch["label"]] + [-1.0] * len(mismatched)
    loss = trainer._compute_loss(trainer.model, batch, return_outputs=False)
    z = trainer._metrics["eval"]["kl"][0]
    cases.keep("kto", loss, trainer.model, rows=rows + mismatched, desirable=desirable, z=z)


def reward(cases: Cases) -> None:
    trainer = RewardTrainer(
        model=cases.load("scorer"), args=RewardConfig(output_dir=str(cases.out), center_rewards_coefficient=0.01, **COMMON),
        train_dataset=Dataset.from_list([{side: pair["prompt"] + pair[side] for side in ("chosen", "rejected")} for pair in PAIRS]),
        processing_class=cases.tokenizer,
    )  # fmt: skip
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    rows = rows_of(batch["input_ids"], batch["attention_mask"], torch.zeros_like(batch["input_ids"]))
    cases.keep("reward", trainer.compute_loss(trainer.model, dict(batch)), trainer.model, rows=rows)


def orpo(cases: Cases, rows: list[dict[str, Any]]) -> None:
    """Only the odds-ratio part, by ORPOTrainer.odds_ratio_loss: its NLL learns the prompt too, ours the answer."""
    model, half = cases.load().eval(), len(rows) // 2
    means = []
    for row in rows:
        ids = torch.tensor([row["prompt"] + row["answer"]])
        log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(row["prompt"]), ids.shape[1])
        means.append(torch.stack([log_probs[place - 1, ids[0, place]] for place in places]).mean())
    self = SimpleNamespace(beta=0.1, accelerator=SimpleNamespace(device="cpu"))
    losses = ORPOTrainer.odds_ratio_loss(self, torch.stack(means[:half]), torch.stack(means[half:]))[0]
    cases.keep("orpo-odds", -losses.mean(), model, rows=rows)


def grpo(cases: Cases) -> None:
    """A rollout made by hand, through GRPOTrainer._compute_loss; answers of one prompt each, padded as TRL pads."""
    torch.manual_seed(0)
    prompt_ids = torch.randint(5, 44, (4, 3))
    answer_ids = torch.randint(5, 44, (4, 6))
    answer_mask = (torch.arange(6) < torch.tensor([[6], [2], [4], [1]])).long()
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    with torch.no_grad():  # the logits' next-token log-probabilities, moved by noise: ratios on both sides of the clip
        ids = torch.cat([prompt_ids, answer_ids], dim=1)
        log_probs = (
            cases.load().eval()(input_ids=ids).logits[:, 2:-1].log_softmax(-1).gather(2, answer_ids[..., None])[..., 0]
        )
    noise = torch.randn(2, 4, 6)
    columns = {"old_per_token_logps": log_probs + 0.3 * noise[0], "ref_per_token_logps": log_probs + 0.3 * noise[1]}
    advantages = ((rewards - rewards.mean(1)) / (nanstd(rewards, dim=1) + 1e-4))[0]
    batch = {
        "prompt_ids": prompt_ids, "prompt_mask": torch.ones_like(prompt_ids), "completion_ids": answer_ids,
        "completion_mask": answer_mask, "advantages": advantages, "num_items_in_batch": answer_mask.sum(), **columns,
    }  # fmt: skip
    real_rows = answer_mask.bool()
    facts = {
        "rows": rows_of(ids, torch.cat([torch.ones_like(prompt_ids), answer_mask], dim=1), torch.tensor([[0] * 3 + [1] * 6] * 4)),
        "rewards": rewards.tolist(), "advantages": advantages.tolist(),
        **{name: [one[real].tolist() for one, real in zip(value, real_rows)] for name, value in columns.items()},
    }  # fmt: skip
    for name, options in {
        "grpo": {"loss_type": "grpo", "beta": 0.1}, "grpo-k3": {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
        "dapo": {"loss_type": "dapo", "beta": 0.1},
        "dr_grpo": {"loss_type": "dr_grpo", "max_completion_length": 16},
        "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
    }.items():  # fmt: skip
        trainer = GRPOTrainer(
            model=cases.load(), reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(output_dir=str(cases.out), num_generations=2, **COMMON, **options),
            **cases.arguments([{"prompt": pair["prompt"]} for pair in PAIRS]),
        )  # fmt: skip
        trainer.model.eval()
        cases.keep(name, trainer._compute_loss(trainer.model, batch), trainer.model, **facts)


def distillation(cases: Cases, rows: list[dict[str, Any]]) -> None:
    """GKDTrainer.generalized_jsd_loss over the whole vocabulary; the teacher is the reference model."""
    for name, beta in {"distill-forward": 0.0, "distill-jsd": 0.3, "distill-reverse": 1.0}.items():
        model, teacher = cases.load().eval(), cases.load("reference").eval()
        student_logits, teacher_logits = [], []
        for row in rows:
            ids, first = torch.tensor([row["prompt"] + row["answer"]]), len(row["prompt"]) - 1
            student_logits.append(model(input_ids=ids).logits[0, first:-1])
            with torch.no_grad():
                teacher_logits.append(teacher(input_ids=ids).logits[0, first:-1])
        loss = GKDTrainer.generalized_jsd_loss(
            torch.cat(student_logits), torch.cat(teacher_logits), beta=beta, temperature=2.0
        )
        cases.keep(name, loss, model, rows=rows, beta=beta)


def main() -> None:
    """Every case, then cases.json."""
    disable_caching()
    disable_progress_bars()
    disable_progress_bar()
    cases = Cases(Path(sys.argv[1]), Path(sys.argv[2]))
    dpo(cases)
    kto(cases)
    reward(cases)
    orpo(cases, cases.cases["dpo"]["rows"])
    grpo(cases)
    distillation(cases, cases.cases["dpo"]["rows"])
    (cases.out / "cases.json").write_text(json.dumps({"cases": cases.cases, "versions": versions()}))


if __name__ == "__main__":
    main()
