"""LitGPT's published fine-tuning configurations, where a measurement names one of them: what they state beside the row. No torch here.

Lightning-AI/litgpt, config_hub/finetune/*/{full,lora,qlora}.yaml: lora_r 32 (phi-2: 8); lora.yaml adapts queries and values, qlora.yaml and
phi-2's lora.yaml every linear layer and the head; a step is 8 rows for adapters, 32 (tiny-llama, 64 for llama-3.2) for full training.
"""

from __future__ import annotations

import re
from typing import Any

EVERYTHING = ("q", "k", "v", "o", "gate", "up", "down", "head")
ADAPTER_ROWS, FULL_ROWS = 8, 32


def config_hub(text: str, micro_batch: int, devices: int = 1) -> dict[str, Any]:
    """Fields of a Setup that the named configuration states; nothing where none is named.

    >>> config_hub("see config_hub/finetune/tiny-llama/qlora.yaml", micro_batch=8)["rank"]
    32
    """
    found = re.search(r"config_hub/finetune/([^/ ]+)/(full|lora|qlora)\\.yaml".replace("\\\\", "\\"), text)
    if not found:
        return {}
    model, kind = found.groups()
    whole = FULL_ROWS * (2 if "llama-3.2" in model else 1) if kind == "full" else ADAPTER_ROWS
    values: dict[str, Any] = {"accumulate": max(1, whole // (micro_batch * devices))}
    if kind != "full":
        every = kind == "qlora" or model == "phi-2"
        values |= {"rank": 8 if model == "phi-2" else 32, "targets": EVERYTHING if every else ("q", "v")}
    return values
