"""Our losses and TRL's on the same tokens and weights: largest differences of value and gradient.

    .venv/bin/python benchmarks/losses.py [--out benchmarks/results/losses.json]

A tiny random Llama, a reference and a scorer are written to a folder. TRL's own trainers make their batches and losses of
it in peers/trl/.venv (made by finetune.py); the tokens they used come back and go through our objectives, packed, with the
prompt standing once where answers share it. Not compared: PPO, which TRL 1.16 no longer has; ORPO's NLL, which TRL takes
over the prompt too; unlearning, which TRL has not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

import machine
from genwright.data.collate import Batch, Item, collate_items
from genwright.models.attention import NAME
from genwright.models.families import Head, logits_at
from genwright.objectives.distill import Distill
from genwright.objectives.language import label_log_probabilities, model_inputs
from genwright.objectives.policy import GRPO, group_advantages
from genwright.objectives.preference import DPO, KTO, ORPO, Reward

HERE = Path(__file__).resolve().parent
PEER = HERE / "peers" / "trl"
WORDS = ["<pad>", "<unk>", "<s>", "</s>", *(f"w{number}" for number in range(4, 44))]
CONFIG = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


def write_models(folder: Path) -> None:
    """model/, reference/ and scorer/: random, with weights large enough that a wrong loss would show."""
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    kinds = {"model": LlamaForCausalLM, "reference": LlamaForCausalLM, "scorer": LlamaForSequenceClassification}
    for seed, (name, kind) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        made = kind(LlamaConfig(**CONFIG, num_labels=1 if name == "scorer" else 2))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.25)
        made.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def load(folder: Path, head: str = "language") -> Any:
    """One of them, with our attention and our head."""
    kind = LlamaForSequenceClassification if head == "score" else LlamaForCausalLM
    return Head(head).finish_(kind.from_pretrained(folder, attn_implementation=NAME, dtype=torch.float32)).eval()


def item(prompt: list[int], answers: Sequence[list[int]]) -> Item:
    """A prompt, once, and its answers as branches."""
    positions, labels, sequences, ends, start = [], [], [], [], len(prompt)
    for number, answer in enumerate(answers):
        positions += [len(prompt) - 1, *range(start, start + len(answer) - 1)]
        labels += answer
        sequences += [number] * len(answer)
        start += len(answer)
        ends.append(start - 1)
    ids = [*prompt, *(token for answer in answers for token in answer)]
    return Item(ids, (len(prompt), *map(len, answers)), positions, labels, sequences, len(answers), ends=ends)


def batch_of(items: Sequence[Item], counts: dict[str, float], **columns: Tensor) -> Batch:
    """One packed batch, with what the objective divides by and reads."""
    (batch,) = collate_items(items, packing=True, capacity=10_000, pad_id=0)
    batch.counts.update({name: torch.tensor(value) for name, value in counts.items()})
    batch.columns.update(columns)
    return batch


def pairs(rows: list[dict[str, Any]]) -> list[Item]:
    """TRL lays all chosen answers before all rejected ones. A reward batch has no prompt: what both begin with is one."""
    half, items = len(rows) // 2, []
    for chosen, rejected in zip(rows[:half], rows[half:]):
        if chosen["answer"]:
            items.append(item(chosen["prompt"], [chosen["answer"], rejected["answer"]]))
            continue
        one, other = chosen["prompt"], rejected["prompt"]
        shared = next(place for place in range(len(one)) if one[place] != other[place])
        items.append(item(one[:shared], [one[shared:], other[shared:]]))
    return items


def singles(rows: list[dict[str, Any]]) -> list[Item]:
    """Each row alone."""
    return [item(row["prompt"], [row["answer"]]) for row in rows]


def flat(values: list[list[float]]) -> Tensor:
    return torch.tensor([value for row in values for value in row])


class Ours:
    """Our loss of each of TRL's cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log_probs(self, batch: Batch, model: str = "reference") -> Tensor:
        with torch.no_grad():
            log_probs_N = label_log_probabilities(load(self.folder / model), batch)
        return torch.zeros(batch.num_documents).index_add(0, batch.document_N, log_probs_N)

    def preference(self, case: dict[str, Any], objective: Any) -> tuple[Any, Batch, Any]:
        items = pairs(case["rows"])
        batch = batch_of(items, {"pairs": float(len(items)), "chosen_tokens": 1.0})
        batch.columns["reference_D"] = self.log_probs(batch)
        return objective, batch, load(self.folder / "model")

    def kto(self, case: dict[str, Any]) -> tuple[Any, Batch, Any]:
        judged = sum(mark >= 0 for mark in case["desirable"])
        batch = batch_of(singles(case["rows"]), {"judged": float(judged)}, desirable_D=torch.tensor(case["desirable"]))
        batch.columns["reference_D"] = self.log_probs(batch, "model")
        return KTO(beta=0.1, desirable_weight=1.5), batch, load(self.folder / "reference")

    def reward(self, case: dict[str, Any]) -> tuple[Any, Batch, Any]:
        items = pairs(case["rows"])
        return (
            Reward(centering=0.01),
            batch_of(items, {"pairs": float(len(items))}),
            load(self.folder / "scorer", "score"),
        )

    def policy(self, case: dict[str, Any], objective: GRPO) -> tuple[Any, Batch, Any]:
        columns = {"old_N": flat(case["old_per_token_logps"]), "reference_N": flat(case["ref_per_token_logps"])}
        columns["advantage_D"] = group_advantages(torch.tensor(case["rewards"])).flatten()
        return objective, batch_of(singles(case["rows"]), {}, **columns), load(self.folder / "model")

    def distill(self, case: dict[str, Any]) -> tuple[Any, Batch, Any]:
        batch = batch_of(pairs(case["rows"]), {})
        with torch.no_grad():
            logits_NV = logits_at(load(self.folder / "reference"), model_inputs(batch), batch.positions_N)
        values_NK, ids_NK = (logits_NV / 2).log_softmax(-1).topk(logits_NV.shape[1], dim=-1)
        batch.columns.update(teacher_ids_NK=ids_NK, teacher_log_probs_NK=values_NK)
        return Distill(temperature=2.0, beta=case["beta"]), batch, load(self.folder / "model")


def cases(ours: Ours) -> dict[str, tuple[str, Callable[[dict[str, Any]], tuple[Any, Batch, Any]], float]]:
    """Name: (what of TRL it is compared with, ours, the factor by which ours is larger by definition)."""
    grpo = "GRPOTrainer._compute_loss on a rollout made by hand"
    jsd = "GKDTrainer.generalized_jsd_loss; ours has the factor T^2 = 4"
    return {
        "dpo": ("DPOTrainer._compute_loss", lambda case: ours.preference(case, DPO(beta=0.1)), 1.0),
        "dpo-beta-1": ("DPOTrainer._compute_loss", lambda case: ours.preference(case, DPO(beta=1.0)), 1.0),
        "dpo-ipo": ("DPOTrainer._compute_loss", lambda case: ours.preference(case, DPO(beta=0.1, loss="ipo")), 1.0),
        "kto": ("KTOTrainer._compute_loss, its mismatched answers; the reference is trained, so that z > 0", ours.kto, 1.0),
        "reward": ("RewardTrainer.compute_loss", ours.reward, 1.0),
        "orpo-odds": ("ORPOTrainer.odds_ratio_loss", lambda case: ours.preference(case, OddsOnly()), 1.0),
        "grpo": (grpo, lambda case: ours.policy(case, GRPO(loss="grpo", beta=0.1)), 1.0),
        "grpo-k3": (grpo, lambda case: ours.policy(case, GRPO(loss="grpo", beta=0.1, corrected_kl=False)), 1.0),
        "dapo": (grpo, lambda case: ours.policy(case, GRPO(beta=0.1)), 1.0),
        "dr_grpo": (grpo, lambda case: ours.policy(case, GRPO(loss="dr_grpo", answer_tokens=16)), 1.0),
        "gspo": (grpo, lambda case: ours.policy(case, GRPO(loss="gspo")), 1.0),
        "cispo": (grpo + "; its epsilon_high 1.2 is our 0.2", lambda case: ours.policy(case, GRPO(loss="cispo")), 1.0),
        **dict.fromkeys(("distill-forward", "distill-jsd", "distill-reverse"), (jsd, ours.distill, 4.0)),
    }  # fmt: skip


class OddsOnly:
    """ORPO without its NLL."""

    def __call__(self, model: Any, batch: Batch) -> Any:
        loss = ORPO(odds_weight=0.1)(model, batch)
        loss.terms.pop("chosen")
        return loss


def compare(
    theirs: dict[str, Any], gradients: dict[str, Tensor], made: tuple[Any, Batch, Any], factor: float
) -> dict[str, Any]:
    """Largest differences; the gradient's beside its own largest entry."""
    objective, batch, model = made
    terms = objective(model, batch).terms.values()
    loss = sum(term.weight * term.total / batch.counts[term.per] for term in terms) / factor
    loss.backward()
    ours = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    differences = [float((ours[key] - gradients[key]).abs().max()) for key in ours.keys() & gradients.keys()]
    value = float(loss.detach())
    return {
        "ours": value, "trl": theirs["loss"], "loss_difference": abs(value - theirs["loss"]),
        "gradient_difference": max(differences), "largest_gradient": max(float(one.abs().max()) for one in gradients.values()),
        "parameters_with_one_gradient_only": sorted(ours.keys() ^ gradients.keys()),
    }  # fmt: skip


def main() -> None:
    """Write the models, run TRL, compare, write the result; exit 1 where anything differs by more than float32 rounding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "losses.json")
    out = parser.parse_args().out
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder, said = Path(scratch) / "models", Path(scratch) / "trl"
        said.mkdir()
        write_models(folder)
        subprocess.run([PEER / ".venv" / "bin" / "python", PEER / "losses.py", folder, said], check=True)
        theirs = json.loads((said / "cases.json").read_text())
        compared = {}
        for name, (against, make, factor) in cases(Ours(folder)).items():
            case, gradients = theirs["cases"][name], load_file(said / f"{name}.safetensors")
            z = {"z": case["z"]} if "z" in case else {}
            compared[name] = {"against": against, **z, **compare(case, gradients, make(case), factor)}
    advantages = torch.tensor(theirs["cases"]["grpo"]["advantages"])
    difference = (group_advantages(torch.tensor(theirs["cases"]["grpo"]["rewards"]))[0] - advantages).abs().max()
    worst = max(one["gradient_difference"] / one["largest_gradient"] for one in compared.values())
    result = {
        "cases": compared, "advantages": {"trl": advantages.tolist(), "difference": float(difference)},
        "largest_loss_difference": max(one["loss_difference"] for one in compared.values()),
        "largest_relative_gradient_difference": worst,
        "not_compared": ["PPO: not in TRL 1.16", "ORPO's NLL: TRL's includes the prompt", "unlearning: not in TRL"],
        "versions": {"ours": machine.versions(), "trl": theirs["versions"]},
    }  # fmt: skip
    machine.write_result(out, **result)
    for name, one in compared.items():
        values = f"ours {one['ours']:.7f}  TRL {one['trl']:.7f}"
        print(
            f"{name:16} {values}  gradients differ by {one['gradient_difference']:.1e} of {one['largest_gradient']:.1e}"
        )
    sys.exit(worst > 1e-4 or any(one["parameters_with_one_gradient_only"] for one in compared.values()))


if __name__ == "__main__":
    main()
