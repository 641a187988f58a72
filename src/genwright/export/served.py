"""What is served is what was trained: the GGUF of a result, and the proof, made before anything listens.

    gap_t = max_v log p(v | prompt, served tokens before t) - log p(served token t | ...)       p: the trained model

Greedy answers of the engine are read by the trained model in `transformers` (float32). A gap of 0 is the very token that
it would have chosen; a small one is a near tie that rounding turned. Prompts are conversations of the project's own
validation rows, rendered and cut into tokens by both sides; they must be the same tokens.

Run as a program by `genwright serve`, which holds no torch:  python -m genwright.export.served REQUEST.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genwright.base.errors import GenwrightError
from genwright.base.files import sha256_of_file, write_atomic
from genwright.data.templates import encode_prompt
from genwright.export.gguf import write_adapter, write_model
from genwright.models.load import load_model, load_tokenizer, quiet
from genwright.serve.contracts import Expert
from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings
from genwright.serve.parity import RECORD, TEMPLATE, TOKENS, TOLERANCE, verdict

Message = dict[str, Any]

PROMPTS = 8
EXPERT_PROMPTS = 4
"""Of each expert beside others."""

Served = list[tuple[list[int], list[int]]]
"""(tokens of the prompt, tokens of the greedy answer), one for each conversation."""

TYPE_OF = {"none": "f16", "q8_0": "q8_0"}
"""integrate.quantize -> how matrices are stored."""


def write_served(
    model: Path, out: Path, conversations: Sequence[Sequence[Message]], *, quantize: str = "none", adapter: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Write out/model.gguf (and out/adapter.gguf) and out/parity.json; return the record, passed or not. Errors: ModelError."""
    told = write_model(model, out / "model.gguf", TYPE_OF[quantize])
    if adapter is not None:
        write_adapter(model, adapter, out / "adapter.gguf")
    asked = [(out / "adapter.gguf" if adapter is not None else None, prompts_of(conversations, PROMPTS))]
    served = _all_served(model, out / "model.gguf", asked)
    return recorded(out, told, trained_model(model), load_tokenizer(model), adapter, asked[0][1], served[0])


def write_experts(model: Path, gguf: Path, kind: Mapping[str, Any], experts: Sequence[Mapping[str, Any]]) -> None:
    """For each {"adapter", "out", "conversations"}: out/adapter.gguf over a base's GGUF that was proven, and its own out/parity.json.

    One engine holds all of them and the base is loaded once, so that each answers beside the others, as it will. Errors: ModelError.
    """
    outs = [Path(one["out"]) for one in experts]
    for one, out in zip(experts, outs):
        write_adapter(model, Path(one["adapter"]), out / "adapter.gguf")
    asked = [
        (out / "adapter.gguf", prompts_of(one["conversations"], EXPERT_PROMPTS)) for one, out in zip(experts, outs)
    ]
    trained, tokenizer = trained_model(model), load_tokenizer(model)
    for one, out, (_, prompts), served in zip(experts, outs, asked, _all_served(model, gguf, asked)):
        recorded(out, kind, trained, tokenizer, Path(one["adapter"]), prompts, served)


def prompts_of(conversations: Sequence[Sequence[Message]], most: int) -> list[list[Message]]:
    """What is asked: the first `most` conversations that are not empty, or a greeting."""
    prompts = [list(conversation) for conversation in conversations if conversation][:most]
    return prompts or [[{"role": "user", "content": "Hello"}]]


def trained_model(model: Path) -> Any:
    """In float32."""
    return load_model(model, dtype=torch.float32)


def recorded(
    out: Path, kind: Mapping[str, Any], trained: Any, tokenizer: Any, adapter: Path | None, prompts: list[list[Message]], served: Served
) -> dict[str, Any]:  # fmt: skip
    """Read what was served, write out/parity.json, and return it, passed or not."""
    record = {
        "type": kind["type"], "begin": kind["begin"], "tolerance": TOLERANCE[kind["type"]],
        "files": {name.name: sha256_of_file(name) for name in sorted([*out.glob("*.gguf"), *out.glob(TEMPLATE)])},
        **_read_by_the_trained(trained, tokenizer, adapter, prompts, served),
    }  # fmt: skip
    record["passed"] = verdict(record)
    write_atomic(out / RECORD, json.dumps(record, indent=1))
    return record


def _all_served(model: Path, gguf: Path, asked: Sequence[tuple[Path | None, list[list[Message]]]]) -> list[Served]:
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        return asyncio.run(_served(model, gguf, Path(work), asked))


async def _served(
    model: Path, gguf: Path, work: Path, asked: Sequence[tuple[Path | None, list[list[Message]]]]
) -> list[Served]:
    """(tokens of the prompt, tokens of the greedy answer) of each conversation of each adapter, as the engine has them."""
    engine = LlamaCpp(model.name, LlamaSettings(gguf, work, base=model, context=4096, parallel=1))
    experts = [
        Expert(f"adapter-{number}", path, "gate") if path is not None else None
        for number, (path, _) in enumerate(asked)
    ]
    for expert in experts:
        if expert is not None:
            await engine.load_adapter(expert.name, expert.path, expert.version)
    await engine.start()
    try:
        return [
            [await _greedy(engine, messages, expert) for messages in prompts]
            for expert, (_, prompts) in zip(experts, asked)
        ]
    finally:
        await engine.stop()


async def _greedy(engine: LlamaCpp, messages: list[Message], expert: Expert | None) -> tuple[list[int], list[int]]:
    text = (await engine.ask("/apply-template", {"messages": messages}))["prompt"]
    cut = await engine.ask("/tokenize", {"content": text, "add_special": False, "parse_special": True})
    body = {
        "prompt": cut["tokens"], "n_predict": TOKENS, "temperature": 0.0, "return_tokens": True, "cache_prompt": False,
    }  # fmt: skip
    return cut["tokens"], (await engine.ask("/completion", body, expert))["tokens"]


@torch.no_grad()
def _read_by_the_trained(
    model: Any, tokenizer: Any, adapter: Path | None, prompts: list[list[Message]], served: Served
) -> dict[str, Any]:
    """What the trained model, with the adapter while it reads, says of the served tokens."""
    reading = model
    if adapter is not None:
        from peft import PeftModel

        with quiet():
            reading = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True).eval()
    same_prompts = all(encode_prompt(messages, tokenizer) == ids for messages, (ids, _) in zip(prompts, served))
    gaps: list[float] = []
    for ids, answer in served:
        if answer:
            logits_TV = reading(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].float()
            log_p_TV = logits_TV.log_softmax(-1)
            chosen_T = log_p_TV.gather(1, torch.tensor(answer)[:, None])[:, 0]
            gaps += (log_p_TV.max(-1).values - chosen_T).tolist()
    if adapter is not None:
        reading.unload()
    return {
        "prompts": len(prompts), "same_prompt_tokens": same_prompts, "tokens": len(gaps),
        "largest_gap": max(gaps, default=0.0), "same_share": sum(gap == 0.0 for gap in gaps) / max(1, len(gaps)),
    }  # fmt: skip


def main(words: list[str]) -> int:
    """Reads {"model", "out", "conversations", "quantize", "adapter"}, or {"model", "gguf", "kind", "experts"}; prints {} or {"error"}."""
    told = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    try:
        if "experts" in told:
            write_experts(Path(told["model"]), Path(told["gguf"]), told["kind"], told["experts"])
        else:
            write_served(
                Path(told["model"]), Path(told["out"]), told["conversations"], quantize=told["quantize"],
                adapter=Path(told["adapter"]) if told["adapter"] else None,
            )  # fmt: skip
    except GenwrightError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    print("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
