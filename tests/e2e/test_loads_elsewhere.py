"""What we make loads without us: the adapter in plain `peft`, the merged model in plain `transformers`, equal logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4
"""Of a logit, in float32: merging adds the product of two thin matrices to weights once, instead of to every output."""


def test_adapter_and_merged_model_agree_in_other_hands(project: Path, genwright_here: Callable) -> None:
    done = genwright_here(project, "apply", "--json")
    assert done.code == 0, done.told
    made = {stage: Path(folder) for stage, folder in done.json["artifacts"].items()}
    base = AutoModelForCausalLM.from_pretrained(project / "model", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(made["integrate"] / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(made["integrate"] / "model")
    tokens = torch.tensor([tokenizer.encode("close(self) Close the file and release its lock.")])
    with torch.no_grad():
        before = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, made["adapt"] / "lora" / "adapter")(tokens).logits
        after = merged(tokens).logits
    assert (adapted - before).abs().max() > 100 * TOLERANCE, "the adapter changes what the model says"
    assert (adapted - after).abs().max() < TOLERANCE
    parity = done.json["summaries"]["integrate"]["parity"]
    assert parity["max_logit_difference"] <= parity["tolerance"]
