"""LitGPT's published fine-tuning configurations, where a measurement names one of them: what they state beside the row. No torch here.

Lightning-AI/litgpt, config_hub/finetune/*/{full,lora,qlora}.yaml. Rank, which products are adapted, rows of a step, and how many devices
`full.yaml` uses: adapters use one, whatever the machine has.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

EVERYTHING = ("q", "k", "v", "o", "gate", "up", "down", "head")
ATTENDED = ("q", "v")


class Hub(NamedTuple):
    """What a model's files state."""

    rank: int = 32
    targets: tuple[str, ...] = ATTENDED
    adapter_rows: int = 8
    """Of a step, over all devices."""
    full_rows: int = 64
    full_devices: int = 1


USUAL = Hub()
HUB = {
    "gemma": Hub(8, EVERYTHING, adapter_rows=6, full_rows=16, full_devices=4),
    "phi-2": Hub(8, EVERYTHING, full_rows=8, full_devices=2),
    "phi-3": Hub(8, EVERYTHING, full_rows=8),
    "tiny-llama": Hub(32, EVERYTHING, full_rows=32),
    "stablelm": Hub(full_rows=8, full_devices=2),
    "llama-2": Hub(full_devices=4),
    "llama-3-": Hub(full_devices=4),
}
"""By how a folder's name begins; else USUAL."""


MODELS = {"gemma2-2b": "gemma-2-2b", "gemma2b": "gemma-2-2b"}
"""Where the table of results names another model than the folder's file trains."""


def hub_model(text: str) -> str:
    """The model that a named configuration trains, where a table says another; else empty."""
    found = re.search(r"config_hub/finetune/([^/ ]+)/", text)
    return MODELS.get(found[1], "") if found else ""


def config_hub(text: str, micro_batch: int, devices: int = 1) -> dict[str, Any]:
    """Fields of a Setup that the named configuration states, for a machine of `devices`; nothing where none is named.

    >>> config_hub("see config_hub/finetune/phi-2/qlora.yaml", micro_batch=4)["rank"]
    8
    """
    found = re.search(r"config_hub/finetune/([^/ ]+)/(full|lora|qlora)\.yaml", text)
    if not found:
        return {}
    model, kind = found.groups()
    hub = next((hub for begins, hub in HUB.items() if model.startswith(begins)), USUAL)
    if kind != "full":
        return {"accumulate": max(1, hub.adapter_rows // micro_batch), "rank": hub.rank, "targets": hub.targets}
    count = min(devices, hub.full_devices)
    return {
        "accumulate": max(1, hub.full_rows // (micro_batch * count)),
        "count": count,
        "strategy": "zero3" if count > 1 else "single",
    }
