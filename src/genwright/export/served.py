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
from collections.abc import Sequence
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
from genwright.serve.parity import RECORD, TOLERANCE, verdict

Message = dict[str, Any]

PROMPTS = 8
TOKENS = 32
"""Generated for each prompt."""

TYPE_OF = {"none": "f16", "q8_0": "q8_0"}
"""integrate.quantize -> how matrices are stored."""


def write_served(
    model: Path, out: Path, conversations: Sequence[Sequence[Message]], *, quantize: str = "none", adapter: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Write out/model.gguf (and out/adapter.gguf) and out/parity.json; return the record, passed or not. Errors: ModelError."""
    told = write_model(model, out / "model.gguf", TYPE_OF[quantize])
    if adapter is not None:
        write_adapter(model, adapter, out / "adapter.gguf")
    prompts = [list(conversation) for conversation in conversations if conversation][:PROMPTS]
    prompts = prompts or [[{"role": "user", "content": "Hello"}]]
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        served = asyncio.run(_served(model, out, Path(work), prompts, adapter is not None))
    record = {
        "type": told["type"], "begin": told["begin"], "tolerance": TOLERANCE[told["type"]],
        "files": {name.name: sha256_of_file(name) for name in sorted(out.glob("*.gguf"))},
        **_read_by_the_trained(model, adapter, prompts, served),
    }  # fmt: skip
    record["passed"] = verdict(record)
    write_atomic(out / RECORD, json.dumps(record, indent=1))
    return record


async def _served(
    model: Path, out: Path, work: Path, prompts: list[list[Message]], adapted: bool
) -> list[tuple[list[int], list[int]]]:
    """(tokens of the prompt, tokens of the greedy answer) of each conversation, as the engine has them."""
    engine = LlamaCpp(model.name, LlamaSettings(out / "model.gguf", work, base=model, context=4096, parallel=1))
    expert = Expert("adapter", out / "adapter.gguf", "gate") if adapted else None
    if expert is not None:
        await engine.load_adapter(expert.name, expert.path, expert.version)
    await engine.start()
    try:
        found = []
        for messages in prompts:
            text = (await engine.ask("/apply-template", {"messages": messages}))["prompt"]
            ids = (await engine.ask("/tokenize", {"content": text, "add_special": False, "parse_special": True}))[
                "tokens"
            ]
            body = {
                "prompt": ids,
                "n_predict": TOKENS,
                "temperature": 0.0,
                "return_tokens": True,
                "cache_prompt": False,
            }
            found.append((ids, (await engine.ask("/completion", body, expert))["tokens"]))
        return found
    finally:
        await engine.stop()


@torch.no_grad()
def _read_by_the_trained(
    folder: Path, adapter: Path | None, prompts: list[list[Message]], served: list[tuple[list[int], list[int]]]
) -> dict[str, Any]:
    """What the trained model says of the served tokens."""
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        with quiet():
            model = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True).eval()
    same_prompts = all(encode_prompt(messages, tokenizer) == ids for messages, (ids, _) in zip(prompts, served))
    gaps: list[float] = []
    for ids, answer in served:
        if answer:
            logits_TV = model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].float()
            log_p_TV = logits_TV.log_softmax(-1)
            chosen_T = log_p_TV.gather(1, torch.tensor(answer)[:, None])[:, 0]
            gaps += (log_p_TV.max(-1).values - chosen_T).tolist()
    return {
        "prompts": len(prompts), "same_prompt_tokens": same_prompts, "tokens": len(gaps),
        "largest_gap": max(gaps, default=0.0), "same_share": sum(gap == 0.0 for gap in gaps) / max(1, len(gaps)),
    }  # fmt: skip


def main(words: list[str]) -> int:
    """Reads {"model", "out", "conversations", "quantize", "adapter"}; prints the record, or {"error"}."""
    told = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    try:
        record = write_served(
            Path(told["model"]), Path(told["out"]), told["conversations"], quantize=told["quantize"],
            adapter=Path(told["adapter"]) if told["adapter"] else None,
        )  # fmt: skip
    except GenwrightError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
