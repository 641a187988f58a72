"""How a published training is split over its devices, read from a table's words. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genwright.catalogue.device_names import Placed
from genwright.plan.published.words import devices, number

WORDS = (
    (r"hybrid|hsdp", "hybrid"),
    (r"zero[- ]?3|full_shard|gemini|zero-?infinity", "zero3"),
    (r"zero[- ]?2|shard_grad|sharded_ddp|fairscale|zero-?offload", "zero2"),
    (r"zero[- ]?1|distributed optimizer|distopt", "zero1"),
    (r"zero[- ]?0|\bddp\b|\bdata parallel", "ddp"),
    (r"deepspeed_offload", "zero2"),
    (r"fsdp", "zero3"),
)
"""As tables write a strategy -> ours; the first that is found."""
DEFAULTS = {
    "qwen-finetune": "zero3",
    "litgpt": "zero3",
    "torchtune": "zero3",
    "fms-fsdp": "zero3",
    "torchtitan": "zero3",
    "maxtext": "zero3",
    "llm-foundry": "zero3",
    "internevo": "zero1",
    "megatron": "zero1",
    "megatron-deepspeed": "zero1",
    "deepspeed": "zero2",
    "colossalai": "zero2",
    "xtuner": "zero2",
    "gpt-neox": "zero1",
    "nanotron": "zero1",
    "verl": "zero3",
}
"""Where a table says nothing: what each framework does by default."""


def split_over(row: Mapping[str, str], said: str, placed: Placed, framework: str, notes: list[str]) -> dict[str, Any]:
    """Strategy, count and degrees."""
    count = devices(row.get("n_devices"), placed.count)
    degrees = {
        name: max(1, int(number(row.get(short) or _degree(row, short), 1)))
        for name, short in (
            ("tensor_degree", "tp"),
            ("pipeline_degree", "pp"),
            ("context_degree", "cp"),
            ("expert_degree", "ep"),
        )
    }
    adapted = (row.get("adapt_norm") or row.get("adaptation") or "full") != "full"
    if "devices per config" in said:
        count = 1 if adapted else count
    values: dict[str, Any] = {"count": count, **degrees}
    values |= _offload(said)
    offloads = values.get("offload") or values.get("offload_optimizer")
    strategy = _strategy(row, said, framework, adapted, count, notes)
    if count == 1:
        strategy = strategy if offloads and strategy in ("zero2", "zero3") else "zero2" if offloads else "single"
    values["strategy"] = strategy
    if slices := re.search(r"\b(\d+)x v\d[a-z]*-(\d+)", said):
        values["strategy"] = strategy = "hybrid" if strategy == "zero3" and int(slices[1]) > 1 else strategy
    if strategy == "hybrid":
        values["sharding_factor"] = min(int(slices[2]) if slices else 8, count)
    if strategy in ("zero1", "zero2") and (
        match := re.search(r"zero-?1 over (\d+)|zero1=(\d+)|zero1 size (\d+)", said)
    ):
        values["sharding_factor"] = int(next(group for group in match.groups() if group))
    split = degrees["tensor_degree"] * degrees["pipeline_degree"] * degrees["context_degree"]
    if count % split:
        notes.append(f"{count} devices do not split into {split}: planned on {max(split, count // split * split)}")
        values["count"] = max(split, count // split * split)
    factor = values.get("sharding_factor", 0)
    if factor and (values["count"] // split) % factor:
        values["sharding_factor"] = 0
    return values


def _degree(row: Mapping[str, str], short: str) -> str:
    """Of "TP8 PP4" or "TP=8": where a column of its own is blank."""
    found = re.search(rf"\b{short}\s*[=:-]?\s*(\d+)", (row.get("parallel") or "").casefold())
    return found[1] if found else ""


def virtual_stages(row: Mapping[str, str], stages: int) -> dict[str, Any]:
    """Parts of a stage's layers that an interleaved pipeline visits in turn (arXiv 2104.04473, section 2.2): as stated, else two."""
    said = " ".join(str(row.get(name) or "") for name in ("parallel", "strategy_norm", "notes")).casefold()
    found = re.search(r"\bvp{1,2}\s*[=:-]?\s*(\d+)|(interleav)", said) if stages > 1 else None
    parts = int(found[1] or 2) if found else 1
    return {"virtual_stages": parts} if parts > 1 else {}


def _offload(said: str) -> dict[str, Any]:
    if not re.search(r"offload", re.sub(r"activation offload\w*|no offload", "", said)):
        return {}
    if (
        re.search(r"zero-?2|zero2_offload|optimizer offload|ds_config_1gpu|deepspeed_offload", said)
        and "opt+param" not in said
    ):
        return {"offload_optimizer": True}
    return {"offload": True}


def _strategy(row: Mapping[str, str], said: str, framework: str, adapted: bool, count: int, notes: list[str]) -> str:
    norm, parallel = (row.get("strategy_norm") or "").casefold(), (row.get("parallel") or "").casefold()
    if "+ fsdp" in parallel and "zero" in parallel:
        return "zero3"
    for pattern, name in (
        *WORDS,
        (r"3d", "zero1" if framework.startswith("megatron") else "ddp"),
        (r"single", "single"),
    ):
        if re.search(pattern, parallel) or re.search(pattern, norm):
            return "zero3" if name == "single" and count > 1 else name
    if count == 1:
        return "single"
    if found := next((name for pattern, name in WORDS if re.search(pattern, said)), ""):
        return found
    chosen = "zero2" if adapted and framework == "qwen-finetune" else DEFAULTS.get(framework, "ddp")
    notes.append(f"strategy not stated: {chosen}, as {framework} does by default")
    return chosen
