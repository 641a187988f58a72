"""A published training as a Setup: the words of a table's row, read column by column. No torch here.

Only what describes the run is read; no result is. What a row leaves out is its framework's documented default
(`plan.published.frameworks`), and the notes say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genwright.catalogue.architectures import stated
from genwright.catalogue.device_names import Placed, place
from genwright.plan.architectures import POSITIONS, context_of
from genwright.plan.published.config_hub import config_hub, hub_model
from genwright.plan.traced.setup import Setup

FRAMEWORKS = (
    (r"qwen.*finetune|finetune\.py", "qwen-finetune"),
    (r"lit-?gpt|lightning", "litgpt"),
    (r"torchtune", "torchtune"),
    (r"torchtitan", "torchtitan"),
    (r"unsloth", "unsloth"),
    (r"llama-?factory", "llamafactory"),
    (r"axolotl", "axolotl"),
    (r"internevo|internlm", "internevo"),
    (r"megatron-?deepspeed|bigscience", "megatron-deepspeed"),
    (r"megatron|nemo", "megatron"),
    (r"fms", "fms-fsdp"),
    (r"nanogpt", "nanogpt"),
    (r"accelerate.*deepspeed|deepspeed", "deepspeed"),
    (r"accelerate|fsdp", "accelerate"),
    (r"\btrl\b", "trl"),
    (r"peft", "peft"),
    (r"transformers|hugging|trainer", "transformers"),
    (r"maxtext|jax|levanter", "megatron"),
    (r"foundry|composer|mosaic", "llm-foundry"),
    (r"gpt-?neox|metaseq|colossal", "megatron"),
    (r"genwright", "genwright"),
)
"""As papers write them -> ours; the first that is found."""
ELSEWHERE = "transformers"
OBJECTIVES = (
    (r"\bdpo\b|ipo\b", "dpo"),
    (r"orpo", "orpo"),
    (r"kto", "kto"),
    (r"seq\w* classif|classification|glue|mrpc|mnli", "classification"),
    (r"masked|mlm", "masked"),
    (r"span", "span-corruption"),
    (r"pretrain|\bclm\b(?!.*sft)|causal|wikitext", "causal"),
)
OPTIMIZERS = (("adafactor", "adafactor"), ("lion", "lion"), ("sgd", "sgd"), ("adam", "adamw"))
TARGETS = {
    "q": r"\bq(_proj)?\b|c_attn|query|qkv|all[ -]?lin|all layers|attention",
    "k": r"\bk(_proj)?\b|c_attn|\bkey|qkv|all[ -]?lin|all layers|attention",
    "v": r"\bv(_proj)?\b|c_attn|value|qkv|all[ -]?lin|all layers|attention",
    "o": r"\bo(_proj)?\b|c_proj|all[ -]?lin|all layers|attention|output",
    "gate": r"gate|\bw1\b|all[ -]?lin|all layers|mlp|ffn",
    "up": r"\bup|\bw2\b|all[ -]?lin|all layers|mlp|ffn",
    "down": r"down|c_proj|all[ -]?lin|all layers|mlp|ffn",
}
SEQUENCE_DEFAULT = {
    "fms-fsdp": 4096,
    "nanogpt": 1024,
    "torchtitan": 8192,
    "megatron": 2048,
    "megatron-deepspeed": 2048,
    "unsloth": 2048,
}
"""Tokens of a row that a framework's own configuration names; elsewhere ELSEWHERE_TOKENS."""
ELSEWHERE_TOKENS = 1024
MICRO_BATCH_DEFAULT = {"transformers": 8, "trl": 8, "nanogpt": 12, "torchtune": 2, "torchtitan": 8}
LONGEST_FIRST = "lit-gpt"
"""LitGPT by its first name: finetune/*.py gave the longest row to iteration 0 (`longest_seq_ix if iter_num == 0`)."""
WHOLE_DEFAULT = {"litgpt": 512, "nanogpt": 480}
"""Rows of a step of a framework's pre-training script."""
USUAL_DEVICE = "a100-80gb"


@dataclass(frozen=True)
class TrainingRow:
    """What a row asks."""

    setup: Setup
    placed: Placed
    notes: tuple[str, ...]
    per_micro_batch: bool = False
    """Its step is one microbatch, not one step of the optimizer."""


def training_row(row: Mapping[str, str]) -> TrainingRow:
    """Read a row. Errors: BadRequest saying which of its words nobody knows."""
    notes: list[str] = []
    said = " ".join(
        str(row.get(name) or "")
        for name in ("parallel", "strategy_norm", "notes", "optimizer", "adapter_detail", "framework")
    ).casefold()
    framework = _framework(row, notes)
    detail = row.get("adapter_detail") or ""
    found = stated(hub_model(detail) or row.get("model") or "", f"{detail} {row.get('notes') or ''}")
    notes += [found.note] if found.note else []
    placed = _device(row, notes)
    values = _adaptation(row) | _devices(row, said, placed, framework, notes) | _choices(row, said)
    values |= _sizes(row, said, values, framework, context_of(found.config), notes)
    values |= config_hub(row.get("adapter_detail") or "", values["micro_batch"], values["count"])
    config = _reaching(found.config, values["seq_len"], notes)
    if LONGEST_FIRST in (row.get("framework") or "").casefold():
        values["options"] = {"longest_first": True}
    setup = Setup(model=config, framework=framework, objective=_objective(row), **values)
    return TrainingRow(setup, placed, tuple(notes), "micro" in (row.get("step_unit") or "").casefold())


def number(text: str | None, default: float = 0.0) -> float:
    """The first number of a text: "2,048 tokens" -> 2048."""
    match = re.search(r"\d[\d,]*(?:\.\d+)?", text or "")
    return float(match[0].replace(",", "")) if match else default


def _framework(row: Mapping[str, str], notes: list[str]) -> str:
    said = f"{row.get('framework') or ''} {row.get('source_key') or ''}".casefold()
    for pattern, name in FRAMEWORKS:
        if re.search(pattern, said):
            return name
    notes.append(f"framework not known: planned as {ELSEWHERE}")
    return ELSEWHERE


def _device(row: Mapping[str, str], notes: list[str]) -> Placed:
    name = (row.get("device") or "").strip()
    if not name:
        notes.append(f"device not stated: {USUAL_DEVICE}")
        return place(USUAL_DEVICE)
    return place(name)


def _objective(row: Mapping[str, str]) -> str:
    said = f"{row.get('objective') or ''} {row.get('framework') or ''}".casefold()
    return next((name for pattern, name in OBJECTIVES if re.search(pattern, said)), "instruction")


def _adaptation(row: Mapping[str, str]) -> dict[str, Any]:
    said = f"{row.get('adaptation') or ''} {row.get('adapt_norm') or ''}".casefold()
    detail = (row.get("adapter_detail") or "").casefold()
    precision = (row.get("precision") or "").casefold()
    values: dict[str, Any] = {"adapter": "full"}
    if "llama-adapter" in said:
        values["adapter"] = "llama-adapter-v2" if re.search(r"v2|adapter.?2", said) else "llama-adapter"
    elif "dora" in said:
        values["adapter"] = "dora"
    elif re.search(r"lora|peft|adapter", said):
        values["adapter"] = "lora"
    elif re.search(r"ia3|prefix|prompt|p-tuning", said):
        values["adapter"] = next(
            name
            for word, name in (
                ("ia3", "ia3"),
                ("prefix", "prefix-tuning"),
                ("p-tuning", "p-tuning"),
                ("prompt", "prompt-tuning"),
            )
            if word in said
        )
    if values["adapter"] != "full":
        values["base"] = _base(f"{said} {precision} {detail}")
    if values["adapter"] in ("lora", "dora"):
        rank = re.search(r"\b(?:r|rank)\s*[=: ]\s*(\d+)", detail)
        values["rank"] = int(rank[1]) if rank else 0
        values["targets"] = (
            ()
            if "default" in detail
            else tuple(name for name, pattern in TARGETS.items() if re.search(pattern, detail))
        )
        values["trains_embeddings"] = bool(re.search(r"embed|lm_head", said))
    return values


def _base(said: str) -> str:
    if re.search(r"nf4-dq|double", said):
        return "nf4-double"
    if "gptq" in said or re.search(r"\bint4\b|awq", said):
        return "int4"
    if "nf4" in said:
        return "nf4"
    if re.search(r"\bint8\b|8-?bit base|llm\.int8", said):
        return "int8"
    return "nf4-double" if re.search(r"qlora|q-lora|4-?bit", said) else ""


def _choices(row: Mapping[str, str], said: str) -> dict[str, Any]:
    """Precision, optimizer, attention, recompute, and what the words mention."""
    precision = (row.get("precision") or "").casefold()
    kind = (
        "bf16"
        if "bf16" in precision or "bfloat16" in precision
        else "fp16"
        if "fp16" in precision or "float16" in precision
        else "fp32"
        if re.search("fp32|float32", precision)
        else ""
    )
    optimizer = f"{row.get('optimizer') or ''} {row.get('notes') or ''}".casefold()
    steps = said.split("(lora/qlora rows")[0]
    values: dict[str, Any] = {
        "precision": kind + "-true"
        if kind in ("bf16", "fp16") and "true" in precision
        else "bf16-true"
        if kind == "bf16" and re.search("pure|model\\.to", precision)
        else kind,
        "optimizer": _optimizer(row.get("optimizer") or "", optimizer),
        "attention": _attention(row.get("attention") or ""),
        "recompute": _recompute(row.get("activation_ckpt") or ""),
        "compile": bool(
            re.search(r"^(yes|true|1|thunder)|inductor|torch\.compile", (row.get("compile") or "").casefold())
        ),
        "offload_activations": bool(re.search(r"activation offload|offload(ing)? activation", steps)),
        "optimizer_in_backward": bool(re.search(r"fuse optimizer|optimizer.in.b(ack)?w", steps))
        and "lora" not in (row.get("adaptation") or ""),
    }
    if re.search(r"chunked (cross|ce|loss)", said):
        values["chunked_loss"] = True
    if re.search(r"cumulative: baseline", said):
        values["chunked_loss"] = "chunked" in said
    if re.search(r"unpacked|padded", said):
        values["packing"] = False
    return values


def _optimizer(said: str, more: str) -> str:
    said = said.casefold()
    paged, eight = "paged" in said, bool(re.search(r"8.?bit", said))
    if eight or paged:
        return "adamw-paged-8bit" if paged and eight else "adamw-8bit" if eight else "adamw"
    if "fused" in said:
        return "adamw-fused"
    return next((name for word, name in OPTIMIZERS if word in said), "")


def _attention(said: str) -> str:
    said = said.casefold()
    if re.search(r"flash|fa2|fa3|xformers|memory.efficient", said):
        return "flash"
    return "sdpa" if "sdpa" in said else "eager" if re.search(r"eager|math|naive", said) else ""


def _recompute(said: str) -> str:
    said = said.casefold()
    if not said:
        return ""
    if re.search(r"^(no|none|off|false|0)\b", said):
        return "none"
    return "selective" if "selective" in said else "full"


def _devices(row: Mapping[str, str], said: str, placed: Placed, framework: str, notes: list[str]) -> dict[str, Any]:
    """Strategy, count and degrees."""
    count = int(number(row.get("n_devices"), placed.count)) or 1
    degrees = {
        name: max(1, int(number(row.get(short), 1)))
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
    if strategy == "hybrid":
        values["sharding_factor"] = min(8, count)
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
        (r"hybrid|hsdp", "hybrid"),
        (r"zero-?3|zero3|full_shard", "zero3"),
        (r"zero-?2|zero2|shard_grad|sharded_ddp|fairscale", "zero2"),
        (r"zero-?1|zero1|distributed optimizer", "zero1"),
        (r"zero-?0|\bddp\b", "ddp"),
        (r"3d", "zero1" if framework.startswith("megatron") else "ddp"),
        (r"deepspeed_offload", "zero2"),
        (r"fsdp", "zero3"),
        (r"single", "single"),
    ):
        if re.search(pattern, parallel) or re.search(pattern, norm):
            return "zero3" if name == "single" and count > 1 else name
    if count == 1:
        return "single"
    if "zero3" in said or "zero 3" in said or "zero-3" in said:
        return "zero3"
    defaults = {
        "qwen-finetune": "zero2" if adapted else "zero3",
        "litgpt": "zero3",
        "torchtune": "zero3",
        "fms-fsdp": "zero3",
        "torchtitan": "zero3",
        "llm-foundry": "zero3",
        "internevo": "zero1",
        "megatron": "zero1",
        "megatron-deepspeed": "zero1",
        "deepspeed": "zero2",
    }
    chosen = defaults.get(framework, "ddp")
    notes.append(f"strategy not stated: {chosen}, as {framework} does by default")
    return chosen


def _reaching(config: dict[str, Any], tokens: int, notes: list[str]) -> dict[str, Any]:
    """A config whose positions are enough for a row that was run: who trains from a config sets them."""
    context = context_of(config)
    if not context or tokens <= context:
        return config
    notes.append(f"{tokens} tokens where the model's own config has {context} positions: planned with as many")
    return {**config, **{key: tokens for key in POSITIONS if config.get(key)}}


def _sizes(
    row: Mapping[str, str], said: str, values: dict[str, Any], framework: str, context: int, notes: list[str]
) -> dict[str, Any]:
    """Tokens of a row, rows of a microbatch, microbatches of a step."""
    tokens = int(number(row.get("seq_len")))
    if not tokens and (
        match := re.search(r"seq_len as published: (\d+)|block (\d+)|max_length[= ](\d+)|seq_len (\d+)", said)
    ):
        tokens = int(next(group for group in match.groups() if group))
    if not tokens:
        tokens = SEQUENCE_DEFAULT.get(framework, ELSEWHERE_TOKENS)
        tokens = min(tokens, context or tokens)
        notes.append(f"seq_len not stated: {tokens}")
    split = values["tensor_degree"] * values["pipeline_degree"] * values["context_degree"]
    data = max(1, values["count"] // split)
    whole, rows, times = (int(number(row.get(name))) for name in ("global_batch", "micro_batch", "grad_accum"))
    if not whole and not times and "pretrain" in said:
        whole = WHOLE_DEFAULT.get(framework, 0)
    if not rows and (match := re.search(r"micro_batch (\d+)", said)):
        rows = int(match[1])
    if not rows:
        rows = max(1, whole // (data * max(1, times))) if whole else MICRO_BATCH_DEFAULT.get(framework, 1)
        notes.append(f"micro_batch not stated: {rows}")
    if not times:
        times = max(1, round(whole / (rows * data))) if whole else 1
        if whole and times * rows * data != whole:
            notes.append(f"a batch of {whole} does not divide by {rows} x {data}: {times * rows * data} planned")
    return {"seq_len": tokens, "micro_batch": rows, "accumulate": times}
