"""A published measurement of serving as a ServingSetup: the words of a table's row. No torch here; no result is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from genwright.catalogue.architectures import stated
from genwright.catalogue.device_names import Placed, place
from genwright.plan.architectures import context_of
from genwright.plan.published.frameworks_serving import serving_of
from genwright.plan.published.row_training import USUAL_DEVICE, number
from genwright.plan.serving import ServingSetup

LENGTHS = {
    "llama.cpp": (512, 128),
    "litgpt": (8, 50),
    "exllamav2": (8, 128),
    "gpt-fast": (5, 200),
    "transformers": (8, 2048),
    "autogptq": (8, 2048),
    "ds-inference": (8, 100),
    "ds-zero": (8, 100),
    "vllm": (1024, 128),
    "vllm-eager": (1024, 128),
    "tensorrt-llm": (2048, 128),
    "sglang": (1024, 128),
}
"""(prompt, answer) tokens of each framework's own benchmark script, where a row states none."""
KINDS = ((r"\b(?:f|fp|bf)?16\b|bf16|fp16", "bf16"), (r"\b32\b|fp32", "fp32"))


@dataclass(frozen=True)
class ServingRow:
    """What a row asks."""

    setup: ServingSetup
    placed: Placed
    notes: tuple[str, ...]
    streams: int = 1
    """Devices that each answer rows of their own, where a published time a token is over the tokens of all of them."""


def serving_row(row: Mapping[str, str]) -> ServingRow:
    """Read a row. Errors: BadRequest saying which of its words nobody knows."""
    notes: list[str] = []
    said = (row.get("notes") or "").casefold()
    found = stated(row.get("model") or "", row.get("notes") or "")
    notes += [found.note] if found.note else []
    framework = _framework(row, notes)
    placed = _device(row, notes)
    precision, cache = _precision(row, notes)
    prompt, answer = _lengths(row, said, framework, context_of(found.config), notes)
    batch = int(number(row.get("batch_size"))) or int(number(_after(said, "batch_size as published")))
    if not batch:
        batch = 1
        notes.append("batch not stated: 1")
    count = int(number(row.get("n_devices"), placed.count)) or 1
    if not row.get("n_devices"):
        notes.append(f"devices not stated: {count}")
    setup = ServingSetup(
        model=found.config,
        precision=precision,
        kv_precision=cache,
        framework=framework,
        batch=batch,
        input_tokens=prompt,
        output_tokens=answer,
        count=count,
        parallel=_parallel(row),
    )
    streams = count if setup.parallel == "zero3" or (not setup.parallel and framework == "ds-zero") else 1
    if streams > 1:
        notes.append(
            f"{streams} devices answer {batch} rows each; a token's time is over all of them, as its benchmark divides"
        )
    return ServingRow(setup, placed, tuple(notes), streams)


def _framework(row: Mapping[str, str], notes: list[str]) -> str:
    said = row.get("framework") or ""
    try:
        return serving_of(said)[0]
    except Exception:
        notes.append("framework not known: planned as vllm")
        return "vllm"


def _device(row: Mapping[str, str], notes: list[str]) -> Placed:
    name = (row.get("device") or "").strip()
    if name:
        return place(name)
    notes.append(f"device not stated: {USUAL_DEVICE}")
    return place(USUAL_DEVICE)


def _precision(row: Mapping[str, str], notes: list[str]) -> tuple[str, str]:
    """(weights, cache): "bf16 + int8 KV cache" -> ("bf16", "int8"); a model's name may say it too."""
    said = (row.get("precision") or "").strip()
    weights, _, more = said.partition("+")
    cache = "int8" if "int8" in more.casefold() else "fp8" if "fp8" in more.casefold() else ""
    if weights.strip():
        return weights.strip(), cache
    name = (row.get("model") or "").casefold()
    found = re.search(r"\b([48])-?bits?\b|\bint([48])\b|(gptq|awq|gguf)", name)
    chosen = "bf16" if not found else f"int{found[1] or found[2] or 4}"
    notes.append(f"precision not stated: {chosen}")
    return chosen, cache


def _lengths(row: Mapping[str, str], said: str, framework: str, context: int, notes: list[str]) -> tuple[int, int]:
    usual = LENGTHS.get(framework, (512, 128))
    prompt, answer = int(number(row.get("input_tokens"))), int(number(row.get("output_tokens")))
    drawn = re.search(r"random (\d+)-(\d+)", said)
    middle = (int(drawn[1]) + int(drawn[2])) // 2 if drawn else 0
    if not prompt:
        few = "few tokens" in said
        prompt = middle or (8 if few else usual[0])
        notes.append(f"prompt not stated: {prompt} tokens")
    if not answer:
        answer = middle or usual[1]
        notes.append(f"answer not stated: {answer} tokens")
    stated = row.get("input_tokens") and row.get("output_tokens")
    if context and prompt + answer > context and not stated:
        answer = max(1, min(answer, context - 1))
        prompt = max(1, min(prompt, context - answer))
        notes.append(f"shortened to the model's {context} tokens")
    return prompt, answer


def _after(said: str, word: str) -> str:
    return said.partition(word)[2]


def _parallel(row: Mapping[str, str]) -> str:
    said = (row.get("parallel") or "").casefold()
    if "zero" in said:
        return "zero3"
    if re.search(r"\btp\d*|tensor", said):
        return "tensor"
    return "layers" if re.search(r"pp|pipeline|sequential|layer", said) else ""
