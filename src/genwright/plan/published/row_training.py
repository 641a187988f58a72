"""A published training as a Setup: the words of a table's row, read column by column. No torch here.

Only what describes the run is read; no result is. What a row leaves out is its framework's documented default
(`plan.published.frameworks`), and the notes say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from genwright.base.errors import UnknownName
from genwright.catalogue.architectures import Architecture, stated
from genwright.catalogue.device_names import MEMORY, Placed, place
from genwright.plan.architectures import POSITIONS, context_of
from genwright.plan.published.config_hub import config_hub, hub_model
from genwright.plan.published.frameworks import lacks_bf16, profile_of
from genwright.plan.published.row_method import adaptation, choices, eight_bits, objective
from genwright.plan.published.row_split import split_over, virtual_stages
from genwright.plan.published.words import length, number, rows_of_a_step
from genwright.plan.traced.setup import Setup

__all__ = ["USUAL_DEVICE", "TrainingRow", "number", "training_row"]

FRAMEWORKS = (
    (r"qwen.*finetune|finetune\.py", "qwen-finetune"),
    (r"lit-?gpt|lightning", "litgpt"),
    (r"torchtune", "torchtune"),
    (r"torchtitan", "torchtitan"),
    (r"unsloth", "unsloth"),
    (r"llama-?factory", "llamafactory"),
    (r"ms-?swift|\bswift\b", "swift"),
    (r"axolotl", "axolotl"),
    (r"internevo|internlm", "internevo"),
    (r"xtuner", "xtuner"),
    (r"gpt-?neox", "gpt-neox"),
    (r"colossal|gemini", "colossalai"),
    (r"openrlhf|deepspeed-?chat", "deepspeed"),
    (r"\bverl\b", "verl"),
    (r"foundry|composer|mosaic", "llm-foundry"),
    (r"megatron-?deepspeed|bigscience", "megatron-deepspeed"),
    (r"nanotron", "nanotron"),
    (r"megatron|nemo", "megatron"),
    (r"fms", "fms-fsdp"),
    (r"nanogpt|llm\.c", "nanogpt"),
    (r"maxtext|levanter|jax|easylm", "maxtext"),
    (r"metaseq", "megatron"),
    (r"accelerate.*deepspeed|deepspeed|zero-?(offload|infinity)", "deepspeed"),
    (r"accelerate|fsdp|fairscale", "accelerate"),
    (r"\btrl\b", "trl"),
    (r"peft|alpaca-lora|qlora|dora|galore|lomo|lmflow", "peft"),
    (r"transformers|hugging|trainer", "transformers"),
    (r"genwright", "genwright"),
)
"""As papers write them -> ours; the first that is found."""
ELSEWHERE = "transformers"
SEQUENCE_DEFAULT = {
    "fms-fsdp": 4096,
    "nanogpt": 1024,
    "torchtitan": 8192,
    "megatron": 2048,
    "maxtext": 2048,
    "megatron-deepspeed": 2048,
    "unsloth": 2048,
}
"""Tokens of a row that a framework's own configuration names; elsewhere ELSEWHERE_TOKENS."""
ELSEWHERE_TOKENS = 1024
SHORT_TASKS = (
    (r"seq\w* classif|classification|glue|mrpc|mnli", 128),
    (r"seq-?2-?seq|translat|wmt", 128),
    (r"masked|mlm", 512),
)
"""Tokens by task: run_glue.py's `max_seq_length`; MAX_LEN of transformers' scripts for WMT (examples/legacy/seq2seq); BERT's."""
PUBLISHED_LENGTH = r"seq_len as published: (\d+)|block_size[= ]\d+ \(likely truncated (\d+)|block (\d+)|max_length[= ](\d+)|seq_len (\d+)"
"""What a note says of it; a number that its source cut off is taken as its editor completes it."""
UNSTATED_TOKENS = 16384
"""Of a microbatch where only the whole batch is stated: what a device takes at once in most published runs."""
MICRO_BATCH_DEFAULT = {"transformers": 8, "trl": 8, "nanogpt": 12, "torchtune": 2, "torchtitan": 8, "maxtext": 12}
"""Rows of a framework's own configuration, as far as they are of a usual size: nobody gave 12 rows of 8,192 to one device."""
LONGEST_FIRST = "lit-gpt"
"""LitGPT by its first name: finetune/*.py gave the longest row to iteration 0 (`longest_seq_ix if iter_num == 0`)."""
WHOLE_DEFAULT = {"litgpt": 512, "nanogpt": 480}
"""Rows of a step of a framework's pre-training script."""
USUAL_DEVICE = "a100-80gb"
FUSED_SINCE = ((2022, 5, ("flash", "sdpa")), (2023, 3, ("sdpa",)))
"""(year, month, attentions that nobody had before): FlashAttention (arXiv 2205.14135); torch 2.0's scaled_dot_product_attention."""
FUSED_TORCH = {"nanogpt": "sdpa"}
"""Frameworks whose one kernel is torch's own, whatever it is traced as."""
BY_MEMORY = ("t4", "rtx-4090", "v100-32gb", "a100-40gb", "rtx-a6000", "a100-80gb")
"""Stand-ins for a device of which only the memory is known."""


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
    values = adaptation(row, notes) | split_over(row, said, placed, framework, notes) | choices(row, said)
    values |= _on_device(values, placed, framework, notes) | _of_its_day(row, values, framework, notes)
    values |= _single_precision(values, found.parameters, placed, framework, notes)
    values |= _sizes(row, said, values, framework, context_of(found.config), notes)
    if not row.get("micro_batch") and framework in FILLED:
        values["micro_batch"] = min(values["micro_batch"], _rows_with_room(values, found, placed))
    values |= config_hub(row.get("adapter_detail") or "", values["micro_batch"], values["count"])
    config = _reaching(found.config, values["seq_len"], notes)
    options: dict[str, Any] = (
        {"longest_first": True} if LONGEST_FIRST in (row.get("framework") or "").casefold() else {}
    )
    options |= eight_bits(row) | virtual_stages(row, values["pipeline_degree"])
    values |= {"options": options} if options else {}
    setup = Setup(model=config, framework=framework, objective=objective(row), **values)
    return TrainingRow(setup, placed, tuple(notes), "micro" in (row.get("step_unit") or "").casefold())


def _framework(row: Mapping[str, str], notes: list[str]) -> str:
    said = f"{row.get('framework') or ''} {row.get('source_key') or ''}".casefold()
    for pattern, name in FRAMEWORKS:
        if re.search(pattern, said):
            return name
    notes.append(f"framework not {'known' if row.get('framework') else 'stated'}: planned as {ELSEWHERE}")
    return ELSEWHERE


def _device(row: Mapping[str, str], notes: list[str]) -> Placed:
    name = (row.get("device") or "").strip()
    if slice_of := re.search(r"slice (v\d[a-z]*-\d+)", row.get("notes") or ""):
        name = slice_of[1]
    if not name:
        notes.append(f"device not stated: {USUAL_DEVICE}")
        return place(USUAL_DEVICE)
    try:
        return place(name)
    except UnknownName:
        memory = MEMORY.search(name.casefold())
        if not memory:
            raise
    usual = min(BY_MEMORY, key=lambda one: abs((place(one).device.memory_gb or 0) - float(memory[1])))
    notes.append(f"device {name!r} not known: planned as {usual} with {memory[1]} GB; its times say little")
    found = place(usual)
    return replace(found, device=replace(found.device, memory_gb=float(memory[1])))


QUANTIZED_RECOMPUTE = ("transformers", "accelerate", "trl", "deepspeed")
"""Libraries whose quantised bases go through PEFT's `prepare_model_for_kbit_training`: it recomputes layers unless told not to."""


def _on_device(values: dict[str, Any], placed: Placed, framework: str, notes: list[str]) -> dict[str, Any]:
    """What this device, or few bits, change: a row that was run in bf16 where there is none ran in 16 bits all the same."""
    found: dict[str, Any] = {}
    if values["precision"].startswith("bf16") and lacks_bf16(placed.device):
        found["precision"] = values["precision"].replace("bf16", "fp16")
        notes.append(f"{placed.device.title} has no bfloat16: {found['precision']} planned")
    if values.get("base") and not values["recompute"] and framework in QUANTIZED_RECOMPUTE:
        found["recompute"] = "full"
        notes.append("recompute = full: PEFT's default beside a quantised base (prepare_model_for_kbit_training)")
    return found


IN_SINGLE = ("transformers", "accelerate", "peft")
"""Libraries that load and train in float32 unless told otherwise (transformers: training_args.py, `bf16` and `fp16` False;
modeling_utils.py, `torch_dtype` None, until version 5)."""


def _single_precision(
    values: dict[str, Any], parameters: int, placed: Placed, framework: str, notes: list[str]
) -> dict[str, Any]:
    """Float32 where nothing else is said, if the weights alone leave room for a run: else somebody asked for 16 bits."""
    if values["precision"] or values.get("base") or framework not in IN_SINGLE:
        return {}
    held = 4.0 * parameters / (values["count"] if values["strategy"] in ("zero3", "hybrid") else 1)
    if held > 0.8 * (placed.device.memory_gb or 0.0) * 2**30 and not values.get("offload"):
        return {}
    notes.append(f"precision = fp32: {framework}'s default")
    return {"precision": "fp32"}


def _of_its_day(row: Mapping[str, str], values: dict[str, Any], framework: str, notes: list[str]) -> dict[str, Any]:
    """What a default could not yet be when the row was published: attention in one kernel."""
    day = re.search(r"(20\d\d)-(\d\d)", row.get("source_date") or "")
    usual = FUSED_TORCH.get(framework) or profile_of(framework).attention
    if values["attention"] or not day:
        return {}
    published = (int(day[1]), int(day[2]))
    if not any(usual in names and published < (year, month) for year, month, names in FUSED_SINCE):
        return {}
    notes.append(f"attention = eager: published in {day[0]}, before {usual} attention was")
    return {"attention": "eager"}


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
    tokens = _tokens(row, said, framework, context, notes)
    split = values["tensor_degree"] * values["pipeline_degree"] * values["context_degree"]
    data = max(1, values["count"] // split)
    whole = rows_of_a_step(row.get("global_batch"), tokens)
    rows, times = (int(number(row.get(name))) for name in ("micro_batch", "grad_accum"))
    if not whole and not times and "pretrain" in said:
        whole = WHOLE_DEFAULT.get(framework, 0)
    if not rows and (match := re.search(r"micro_batch (\d+)", said)):
        rows = int(match[1])
    if not rows:
        rows = (
            1 if values["pipeline_degree"] > 1
            else _unstated_rows(whole, times, data, tokens, framework, bool(row.get("framework")))
        )  # fmt: skip
        notes.append(f"micro_batch not stated: {rows}")
    if not times:
        times = max(1, round(whole / (rows * data))) if whole else 1
        if whole and times * rows * data != whole:
            notes.append(f"a batch of {whole} does not divide by {rows} x {data}: {times * rows * data} planned")
    varied = (row.get("seq_len_kind") or "").casefold() == "cap"
    return {"seq_len": tokens, "micro_batch": rows, "accumulate": times} | ({"packing": False} if varied else {})


def _tokens(row: Mapping[str, str], said: str, framework: str, context: int, notes: list[str]) -> int:
    """Of a row: as stated, as a note has it, else the framework's script for the task."""
    tokens = length(row.get("seq_len"))
    if not tokens and (match := re.search(PUBLISHED_LENGTH, said)):
        tokens = int(next(group for group in match.groups() if group))
    if not tokens:
        what = (row.get("objective") or "").casefold()
        usual = next((found for pattern, found in SHORT_TASKS if re.search(pattern, what)), ELSEWHERE_TOKENS)
        tokens = SEQUENCE_DEFAULT.get(framework, usual)
        tokens = min(tokens, context or tokens)
        notes.append(f"seq_len not stated: {tokens}")
    return tokens


FILLED = ("maxtext",)
"""Frameworks whose own microbatch is lowered until it fits: a recipe's batch is what its slice holds."""
ROOM = 0.8


def _rows_with_room(values: dict[str, Any], found: Architecture, placed: Placed) -> int:
    """Rows that stand beside 16 bytes a weight over all devices and two gathered layers with their gradients.

    A token is each layer's input in 16 bits, one layer's work (34 bytes a width: Korthikanti 2022, arXiv 2205.05198) and its logits.
    """
    config = found.config.get("text_config") or found.config
    width = int(config.get("hidden_size") or config.get("n_embd") or 0)
    layers = max(1, int(config.get("num_hidden_layers") or config.get("n_layer") or 1))
    held = 16.0 * found.parameters / values["count"] + 16.0 * found.parameters / layers
    each = values["seq_len"] * (2.0 * width * layers + 34.0 * width + 14.0 * int(config.get("vocab_size") or 0))
    free = ROOM * (placed.device.memory_gb or 0.0) * 2**30 - held
    return max(1, int(free // each)) if each else 1


def _unstated_rows(whole: int, times: int, data: int, tokens: int, framework: str, named: bool) -> int:
    """A microbatch: what the batch leaves a device where that is of a usual size, else its largest divisor that is."""
    if not whole:
        usual = MICRO_BATCH_DEFAULT.get(framework, 1) if named else 1
        return min(usual, max(1, UNSTATED_TOKENS // tokens))
    share = max(1, whole // (data * max(1, times)))
    if times or share * tokens <= UNSTATED_TOKENS:
        return share
    return next(rows for rows in range(max(1, UNSTATED_TOKENS // tokens), 0, -1) if share % rows == 0)
