"""How surprised two models are by held-out text of two kinds, by plain `transformers` in float32: an independent judge.

    python judge.py --before model --after ADAPTED --bound 0.1

bits per byte = -sum of log2 p over a text's tokens but its first, over its UTF-8 bytes; texts are cut at the context. The exit
code is 1 unless the domain's bits fell and the general text's rose by no more than --bound. Perplexity per byte is 2 to the bits.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from make_model import handed_over
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
KINDS = ("domain", "general")


@torch.no_grad()
def bits_per_byte(folder: Path, texts: list[str]) -> float:
    """Over all texts together, piece by piece of the model's context, an end-of-text token after each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    context = int(model.config.max_position_embeddings)
    bits = 0.0
    for text in texts:
        ids = [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        bits += sum(bits_of(model, ids[start : start + context]) for start in range(0, len(ids), context))
    return bits / sum(len(text.encode()) for text in texts)


def bits_of(model: Any, ids: list[int]) -> float:
    """-log2 p of all tokens but the first."""
    if len(ids) < 2:
        return 0.0
    log_p_TV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].log_softmax(-1)
    return -float(log_p_TV.gather(1, torch.tensor(ids[1:])[:, None]).sum()) / math.log(2)


def table(before: dict[str, float], after: dict[str, float], bound: float) -> str:
    """The four numbers and their changes, for a person."""
    lines = [f"{'bits per byte':>14}{'before':>9}{'after':>9}{'change':>9}"]
    lines += [f"{kind:>14}{before[kind]:9.3f}{after[kind]:9.3f}{after[kind] - before[kind]:+9.3f}" for kind in KINDS]
    return "\n".join([*lines, f"bound on the rise of general: {bound:+.3f}"])


def main() -> int:
    """Print the table; 0 where the domain was learned and the rest kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, default=HERE / "model")
    parser.add_argument("--after", type=Path, help="default: what this project handed over")
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--bound", type=float, default=0.1, help="bits per byte that the general text may rise by")
    options = parser.parse_args()
    texts = {}
    for kind in KINDS:
        lines = (options.data / f"{kind}-test.jsonl").read_text(encoding="utf-8").splitlines()
        texts[kind] = [json.loads(line)["text"] for line in lines]
    before = {kind: bits_per_byte(options.before, texts[kind]) for kind in KINDS}
    after = {kind: bits_per_byte(options.after or handed_over(HERE), texts[kind]) for kind in KINDS}
    print(table(before, after, options.bound))
    learned, kept = after["domain"] < before["domain"], after["general"] <= before["general"] + options.bound
    return 0 if learned and kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
