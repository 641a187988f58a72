"""The parity gate of vLLM: a stand-in that generates with `transformers` passes, one that forgets the adapter does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.serve.test_llamacpp import adapter, write_tiny

from genwright.base.errors import Corrupt, GenwrightError
from genwright.data.templates import encode_prompt
from genwright.export import served_vllm
from genwright.models.load import load_tokenizer
from genwright.serve import gate
from genwright.serve.contracts import Expert
from genwright.serve.engines.vllm import VllmSettings

ASKED = [[{"role": "user", "content": "the red house number 3"}], [{"role": "user", "content": "near the river " * 60}]]
FORGETS: list[str] = []
"""Experts that the stand-in answers as the base."""


class StandIn:
    """What vLLM answers, computed by `transformers` and `peft`."""

    starts: list[tuple[str, ...]] = []

    def __init__(self, model: str, settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.settings, self.tokenizer = settings, load_tokenizer(settings.model)
        self.models = {"base": AutoModelForCausalLM.from_pretrained(settings.model)}

    async def load_adapter(self, name: str, path: Path, version: str) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.settings.model)
        self.models[name] = base if str(path) in FORGETS else PeftModel.from_pretrained(base, path)

    async def start(self) -> None:
        self.starts.append(tuple(self.settings.options))

    async def stop(self) -> None:
        pass

    def served(self, expert: Expert | None) -> str:
        return expert.name if expert is not None else "base"

    async def greedy(
        self, messages: list[dict[str, Any]], expert: Expert | None, most: int
    ) -> tuple[list[int], list[int]]:
        prompt = encode_prompt(messages, self.tokenizer)
        ids, room = torch.tensor([prompt]), max(0, self.settings.context - len(prompt))
        with torch.no_grad():
            for _ in range(min(most, room)):
                ids = torch.cat([ids, self.models[self.served(expert)](input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        return prompt, ids[0, len(prompt) :].tolist()


@pytest.fixture
def made(tmp_path: Path, monkeypatch) -> gate.VllmGate:
    """A gate before the stand-in, in this process."""
    write_tiny(tmp_path / "model", "decoder", seed=3)
    monkeypatch.setattr(served_vllm, "Vllm", StandIn)
    monkeypatch.setattr(gate, "run_exporter", lambda request, do, program: served_vllm.main([str(request)]))
    monkeypatch.setattr(gate, "version_here", lambda: "vllm-1")
    StandIn.starts.clear()
    FORGETS.clear()
    settings = {"context": 64, "num_experts": 4}
    return gate.VllmGate(tmp_path / "model", "digest", ASKED, tmp_path / "work", settings, lambda text: None)


def test_what_answers_as_the_trained_one_passes_once_and_what_does_not_is_refused(
    made: gate.VllmGate, tmp_path: Path
) -> None:
    a, b = (Expert(name, adapter(tmp_path / "model", tmp_path / name, seed), "1") for seed, name in enumerate("ab", 1))
    template = made.prove([a])
    record = json.loads((made.folder(a) / "parity.json").read_text())
    assert record["passed"] and record["same_prompt_tokens"] and record["largest_gap"] < 1e-3 and record["tokens"] == 32
    base = json.loads((made.folder(None) / "parity.json").read_text())
    assert base["prompts"] == 2 and base["tokens"] == 32, "a prompt that fills the context has no answer"
    tokenizer = load_tokenizer(tmp_path / "model")
    assert template is not None and not tokenizer.chat_template, "the stand-in's model has none of its own"
    tokenizer.chat_template = template.read_text()
    assert encode_prompt(ASKED[0], tokenizer) == encode_prompt(ASKED[0], load_tokenizer(tmp_path / "model"))
    made.prove([a])
    assert len(StandIn.starts) == 1 and StandIn.starts[0][0] == "--chat-template", "what was proven is not proven again"
    FORGETS.append(str(b.path))
    with pytest.raises(GenwrightError, match=r"'b' \(version 1\) does not answer as the trained one did"):
        made.prove([a, b])
    assert len(StandIn.starts) == 2 and made.prove([a]) == template and not made.folder(b).exists()
    (made.folder(None) / "template.jinja").write_text("other")
    with pytest.raises(Corrupt, match="is not the file that passed"):
        made.prove([a])


def test_an_expert_that_comes_while_vllm_serves_is_asked_there(made: gate.VllmGate, tmp_path: Path) -> None:
    """By a live library: one that passes is seen, one that does not is refused, dropped by the engine, and told."""
    from genwright.serve.live import Holders, LiveLibrary
    from genwright.serve.pool import Pool

    experts = {
        name: Expert(name, adapter(tmp_path / "model", tmp_path / name, seed), "1") for seed, name in enumerate("ab", 1)
    }
    wanted, dropped = [experts["a"]], []
    made.prove([])

    class Source:
        def experts(self) -> list[Expert]:
            return wanted

    class Engine(StandIn):
        async def unload(self, name: str, version: str) -> None:
            dropped.append(name)

    async def run() -> LiveLibrary:
        engine = Engine("base", VllmSettings(tmp_path / "model", tmp_path, context=64))
        live = LiveLibrary(Source(), Pool([engine]), Holders(), prove=lambda one: made.proven(one, engine))
        await live.refresh()
        assert [one.name for one in live.experts()] == ["a"] and made.folder(experts["a"]).exists()
        wanted.append(experts["b"])
        FORGETS.append(str(experts["b"].path))
        await live.refresh()
        return live

    live = asyncio.run(run())
    assert [one.name for one in live.experts()] == ["a"] and dropped == ["b"]
    assert "does not answer as the trained one did" in live.refused["b@1"]
