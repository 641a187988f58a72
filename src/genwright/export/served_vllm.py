"""The parity gate of vLLM: its greedy answers, of the base and of each expert beside the others, read by the trained model.

vLLM takes the model's folder as it is, in a type of its own choice (bfloat16, as a rule), and renders conversations by itself: both
are what is proven. A model without a template of its own is given the one that it was trained with, as `template.jinja`.

Run as a program by `genwright serve`, before its own vLLM starts:  python -m genwright.export.served_vllm REQUEST.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.data.templates import FALLBACK, adds_bos
from genwright.export.served import (
    EXPERT_PROMPTS,
    PROMPTS,
    Message,
    Served,
    prompts_of,
    recorded,
    trained_model,
)
from genwright.models.load import load_tokenizer
from genwright.serve.contracts import EngineDown, EngineRefused, Expert
from genwright.serve.engines.vllm import Vllm, VllmSettings
from genwright.serve.parity import TEMPLATE, TOKENS

KIND = {"type": "bf16", "begin": ""}


def write_proofs(model: Path, parts: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
    """For each {"adapter", "out", "conversations"} ("adapter" empty: the base): out/parity.json. Errors: GenwrightError."""
    tokenizer = load_tokenizer(model)
    template = "" if tokenizer.chat_template else _trained_template(tokenizer)
    for part in parts:
        if template:
            Path(part["out"], TEMPLATE).write_text(template, encoding="utf-8")
    experts = [
        Expert(f"e{number}", Path(part["adapter"]), "gate") if part["adapter"] else None
        for number, part in enumerate(parts)
    ]
    prompts = [prompts_of(part["conversations"], EXPERT_PROMPTS if part["adapter"] else PROMPTS) for part in parts]
    told = asyncio.run(_all_served(model, experts, prompts, settings, parts[0]["out"] if template else ""))
    trained = trained_model(model)
    for part, expert, asked, served in zip(parts, experts, prompts, told):
        recorded(Path(part["out"]), KIND, trained, tokenizer, expert.path if expert else None, asked, served)


def _trained_template(tokenizer: Any) -> str:
    begin = str(tokenizer.bos_token) if adds_bos(tokenizer) else ""
    return f"{{% set begin = {begin!r} %}}{FALLBACK}"


async def _all_served(
    model: Path, experts: Sequence[Expert | None], prompts: Sequence[list[list[Message]]], settings: dict[str, Any], template: str
) -> list[Served]:  # fmt: skip
    adapters = tuple(expert.path for expert in experts if expert is not None)
    with tempfile.TemporaryDirectory(prefix="genwright-") as work:
        options = ("--chat-template", str(Path(template, TEMPLATE))) if template else ()
        engine = Vllm("base", VllmSettings(model, Path(work), adapters, options=options, **settings))
        for expert in filter(None, experts):
            await engine.load_adapter(expert.name, expert.path, expert.version)
        await engine.start()
        try:
            return [
                [await engine.greedy(one, expert, TOKENS) for one in some] for expert, some in zip(experts, prompts)
            ]
        finally:
            await engine.stop()


def write_proof(model: Path, part: dict[str, Any], served: Served) -> None:
    """The same for one expert, of tokens that a vLLM has said already: one that serves, and was given the expert while it did."""
    recorded(
        Path(part["out"]),
        KIND,
        trained_model(model),
        load_tokenizer(model),
        Path(part["adapter"]),
        part["conversations"],
        served,
    )


def main(words: list[str]) -> int:
    """Reads {"model", "parts", "settings"}, or {"model", "part", "served"}; prints {} or {"error"}."""
    told = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    try:
        if "served" in told:
            write_proof(Path(told["model"]), told["part"], [(prompt, answer) for prompt, answer in told["served"]])
        else:
            write_proofs(Path(told["model"]), told["parts"], told["settings"])
    except (GenwrightError, EngineDown, EngineRefused) as error:
        print(json.dumps({"error": str(error)}))
        return getattr(error, "exit_code", 1)
    print("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
