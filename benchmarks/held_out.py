"""The held-out loss of a saved adapter, by an independent judge: plain transformers and peft, in float32.

Nothing of Genwright or TRL is imported; both sides' adapters go through this same process.

    python benchmarks/held_out.py --model FOLDER --rows held-out.jsonl [--adapter FOLDER]

loss = -1/N sum over learned tokens of log p, in nats; learned are the answer and the end-of-turn token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 8


def encode(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], int]:
    """A row's ids, and how many at its end are learned."""
    asked = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    text = prompt + row["completion"] + tokenizer.eos_token
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids[: len(prompt_ids)] != prompt_ids:
        raise SystemExit(f"tokens merge across the end of the prompt: {row['prompt']!r}")
    return ids, len(ids) - len(prompt_ids)


@torch.no_grad()
def total_loss(model: Any, rows: list[tuple[list[int], int]]) -> float:
    """-sum of log p over the learned tokens of some rows, padded on the right, where causal attention never looks."""
    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
    total = 0.0
    for number, (ids, learned) in enumerate(rows):
        end = len(ids)
        log_p_NV = logits_BTV[number, end - learned - 1 : end - 1].double().log_softmax(-1)
        total -= float(log_p_NV.gather(1, ids_BT[number, end - learned : end, None]).sum())
    return total


def evaluate(folder: Path, adapter: Path | None, rows: list[dict[str, str]]) -> dict[str, Any]:
    """{"loss": nats per learned token, "learned_tokens", "rows"}."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).eval()
    encoded = sorted((encode(tokenizer, row) for row in rows), key=lambda item: len(item[0]))
    total = sum(total_loss(model, encoded[start : start + BATCH]) for start in range(0, len(encoded), BATCH))
    learned = sum(count for _, count in encoded)
    return {"loss": total / learned, "learned_tokens": learned, "rows": len(encoded)}


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    chosen = parser.parse_args()
    rows = [json.loads(line) for line in chosen.rows.read_text(encoding="utf-8").splitlines() if line.strip()]
    print(json.dumps(evaluate(chosen.model, chosen.adapter, rows)))


if __name__ == "__main__":
    main()
