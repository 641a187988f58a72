"""Ten adapters in one batch of the real vLLM, over its base alone: `python benchmarks/serve.py adapters`. Called by serve.py.

vLLM is found by GENWRIGHT_VLLM, or on the PATH. Adapters of two kinds: of every matrix, and of queries and values (the original LoRA's).
Of each kind, two servers of one model, asked in turn by ten clients at a time, the same prompts and lengths: one started as we start it
with ten adapters in the library, one without any. Tokens per second of

    adapters     ten clients, each with an adapter of its own, in one batch
    base         the same server, all ten with the base
    plain        the server that was started without adapters: what enabling them costs is in it (on a CPU vLLM then does not compile)

Counted beside it: weights that one step reads, of the base once, of the adapters once a token, because vLLM's kernel for a CPU gathers
a copy of its adapter for each token of the batch (vllm/lora/ops/torch_ops): that ratio bounds the other from above.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from genwright.serve.contracts import EngineDown, Expert
from genwright.serve.engines.vllm import Vllm, VllmSettings, found_vllm
from serve_real import PROMPTS, small_model

COUNT, RANK, TOKENS = 10, 8, 32
KINDS: dict[str, str | list[str]] = {"every matrix": "all-linear", "queries and values": ["q_proj", "v_proj"]}


class PlainVllm(Vllm):
    """Without room for adapters."""

    def command(self, listens: Path) -> list[str]:
        """The same command less its words of adapters."""
        words = super().command(listens)
        begin = words.index("--enable-lora")
        return [*words[:begin], *self.settings.options]


def adapters(chosen: argparse.Namespace) -> dict[str, Any]:
    """See the top of this file."""
    if not found_vllm():
        raise SystemExit("there is no vLLM: GENWRIGHT_VLLM=/path/to/env/bin/vllm")
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        base, _ = small_model(Path(work), "smollm2")
        found = {kind: _of_kind(base, Path(work, f"kind-{number}"), kind, chosen) for number, kind in enumerate(KINDS)}
    return {"model": base.name, "adapters": COUNT, "rank": RANK, "kinds": found}


def _of_kind(base: Path, folder: Path, kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    made = [_adapter(base, folder / f"expert-{number}", number, KINDS[kind]) for number in range(COUNT)]
    rows = uvloop.run(_measured(base, folder, made, chosen))
    told = {name: round(statistics.median(rates), 2) for name, rates in rows.items()}
    read = COUNT * _size(made[0].path) / _size(base)
    return {
        "tokens_per_second": told, "rounds": rows, "over_base": _ratio(rows, "base"), "over_plain": _ratio(rows, "plain"),
        "adapter_weights_over_base": round(read, 3),
    }  # fmt: skip


def _size(folder: Path) -> int:
    """Numbers in its weights, whatever their type."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _ratio(rows: dict[str, list[float]], other: str) -> float:
    return round(statistics.median(ours / theirs for ours, theirs in zip(rows["adapters"], rows[other])), 4)


def _adapter(base: Path, out: Path, seed: int, modules: str | list[str]) -> Expert:
    """Random on both sides: an adapter that changes what is said."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=modules, init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(out)
    return Expert(out.name, out, "1")


async def _measured(base: Path, folder: Path, made: list[Expert], chosen: argparse.Namespace) -> dict[str, list[float]]:
    options = tuple(chosen.vllm.split())
    paths = tuple(one.path for one in made)
    engines = [
        Vllm("base", VllmSettings(base, folder / "with", paths, 128, options=options, num_experts=COUNT)),
        PlainVllm("base", VllmSettings(base, folder / "plain", (), 128, options=options)),
    ]
    rows: dict[str, list[float]] = {"adapters": [], "base": [], "plain": []}
    try:
        for expert in made:
            await engines[0].load_adapter(expert.name, expert.path, expert.version)
        for engine in engines:
            await engine.start()
        sides: list[tuple[str, Vllm, list[Expert | None]]] = [
            ("adapters", engines[0], list(made)), ("base", engines[0], [None] * COUNT), ("plain", engines[1], [None] * COUNT),
        ]  # fmt: skip
        for number in range(chosen.rounds + 1):
            for name, engine, experts in sides[:: 1 if number % 2 else -1]:
                rate = await _rate(engine, experts, chosen.seconds)
                rows[name] += [rate] if number else []
    except EngineDown as error:
        raise SystemExit(str(error)) from None
    finally:
        for engine in engines:
            await engine.stop()
    return rows


async def _rate(engine: Vllm, experts: list[Expert | None], seconds: float) -> float:
    """Tokens per second; every client asks again when it was answered, until the time is up."""
    began, total = time.perf_counter(), 0

    async def client(number: int, expert: Expert | None) -> None:
        nonlocal total
        while time.perf_counter() - began < seconds:
            body = {
                "prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True,
            }  # fmt: skip
            last = [chunk async for chunk in engine.generate("completion", body, expert)][-1]
            total += last.usage.generated if last.usage else 0

    await asyncio.gather(*(client(number, expert) for number, expert in enumerate(experts)))
    return total / (time.perf_counter() - began)
