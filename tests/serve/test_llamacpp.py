"""The real llama.cpp with a model and adapters that the test makes: the oracle is `transformers` and `peft`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.e2e.tiny import tokenizer
from tests.e2e.tiny import write_model as write_tiny

from genwright.base.errors import Corrupt, GenwrightError, ModelError
from genwright.export.gguf import write_adapter, write_model
from genwright.export.served import write_served
from genwright.serve.contracts import EngineDown, EngineRefused, Expert
from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings
from genwright.serve.parity import check_record

PROMPT = "the red house number 3 stands"


def adapter(base: Path, out: Path, seed: int, **settings) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 32, "target_modules": "all-linear", "init_lora_weights": False, **settings}
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """model/, model.gguf and the adapters a (plain) and b (rsLoRA, ranks and alphas of its own)."""
    folder = tmp_path_factory.mktemp("made")
    write_tiny(folder / "model", "decoder", seed=3)
    write_model(folder / "model", folder / "model.gguf", "f32")
    adapter(folder / "model", folder / "a", 1)
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 7, "down_proj": 5}}
    adapter(folder / "model", folder / "b", 2, use_rslora=True, **patterns)
    return folder


def gaps(folder: Path, tokens: list[int], name: str = "") -> float:
    """The most by which a served token is less likely, to the model in `transformers` and `peft`, than its own choice."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    model = PeftModel.from_pretrained(model, folder / name) if name else model
    prompt = tokenizer("decoder")(PROMPT)["input_ids"]
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    log_p_TV = logits_TV.log_softmax(-1)
    return float((log_p_TV.max(-1).values - log_p_TV.gather(1, torch.tensor(tokens)[:, None])[:, 0]).max())


def trained(folder: Path, name: str = "") -> list[int]:
    """Ten greedy tokens of the model in `transformers`, with the adapter in `peft`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    model = PeftModel.from_pretrained(model, folder / name) if name else model
    ids = torch.tensor([tokenizer("decoder")(PROMPT)["input_ids"]])
    with torch.no_grad():
        for _ in range(10):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0, -10:].tolist()


def settings(made: Path, work: Path) -> LlamaSettings:
    return LlamaSettings(made / "model.gguf", work, made / "model", context=128, parallel=2, threads=1)


async def greedy(engine: LlamaCpp, expert: Expert | None = None) -> list[int]:
    body = {"prompt": PROMPT, "n_predict": 10, "temperature": 0.0, "return_tokens": True, "ignore_eos": False}
    return (await engine.ask("/completion", body, expert))["tokens"]


def test_the_engine_generates_what_transformers_does_with_any_adapter(made: Path, tmp_path: Path) -> None:
    """Experts in turn, twice over: a cached prefix of one must not serve another. With keys and values in float32 nothing is left to rounding."""
    experts = {name: Expert(name, made / name, "v1") for name in "ab"}

    async def ask() -> list[list[int]]:
        engine = LlamaCpp("tiny", replace(settings(made, tmp_path), exact=True))
        for expert in experts.values():
            await engine.load_adapter(expert.name, expert.path, expert.version)
        await engine.start()
        try:
            return [await greedy(engine, experts.get(name)) for name in ("", "a", "b", "b", "a", "")]
        finally:
            await engine.stop()

    want = {name: trained(made, name) for name in ("", "a", "b")}
    assert len({tuple(tokens) for tokens in want.values()}) == 3
    told = asyncio.run(ask())
    for name, tokens in zip(("", "a", "b", "b", "a", ""), told):
        assert tokens == want[name][: len(tokens)] and gaps(made, tokens, name) < 1e-5, name
        assert all(gaps(made, tokens, other) > 0.05 for other in want if other != name)  # and the wrong adapter is seen


@pytest.mark.parametrize(("deaths", "taken"), [(1, True), (2, False)])
def test_a_process_that_dies_while_it_takes_an_adapter_is_tried_once_more(
    tmp_path: Path, deaths: int, taken: bool
) -> None:
    """One death is an accident, and the adapter is not refused for it; two are the adapter's."""
    engine, tries = LlamaCpp("tiny", LlamaSettings(tmp_path / "model.gguf", tmp_path)), []

    async def change(served: str) -> None:
        tries.append(served)
        if len(tries) <= deaths:
            raise EngineDown("killed")

    engine._change = change
    if taken:
        asyncio.run(engine.load_adapter("a", tmp_path / "a.gguf", "1"))
    else:
        with pytest.raises(EngineRefused, match="does not start with a@1: killed"):
            asyncio.run(engine.load_adapter("a", tmp_path / "a.gguf", "1"))
    assert tries == ["a@1"] * 2 and list(engine._adapters) == ["a@1"] * taken


def test_adapters_change_while_a_request_runs_and_a_dead_process_is_started_again(made: Path, tmp_path: Path) -> None:
    async def live() -> tuple[int, bool, list[int]]:
        engine = LlamaCpp("tiny", settings(made, tmp_path))
        await engine.start()
        assert await engine.ready()
        pieces, stream = (
            0,
            engine.generate(
                "completion", {"prompt": PROMPT, "max_tokens": 60, "stream": True, "ignore_eos": True}, None
            ),
        )
        async for chunk in stream:
            pieces, generated = pieces + 1, chunk.usage.generated if chunk.usage else 0
            if pieces == 1:
                await engine.load_adapter("a", made / "a", "v1")
        assert (await engine.metrics()).adapters == ("a@v1",) and (await engine.metrics()).memory_bytes > 0
        os.kill(engine.pid or 0, signal.SIGKILL)
        while engine.alive:
            await asyncio.sleep(0.01)
        dead = await engine.ready()
        await engine.start()
        tokens = await greedy(engine, Expert("a", made / "a", "v1"))
        await engine.stop()
        return generated, dead, tokens

    generated, dead, tokens = asyncio.run(live())
    assert generated == 60 and not dead and gaps(made, tokens, "a") < 0.001


def test_vectors_of_texts_are_the_last_hidden_state_whatever_is_cached(made: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    texts = [PROMPT, "the red", "green river", "the red house"]

    async def embed() -> tuple[dict, list[int]]:
        engine = LlamaCpp("tiny", replace(settings(made, tmp_path), exact=True))
        await engine.start()
        try:
            told = await engine.embed({"input": texts, "model": "tiny"})
            return told, await greedy(engine)
        finally:
            await engine.stop()

    told, tokens = asyncio.run(embed())
    assert tokens == trained(made)[: len(tokens)], "and it generates all the same"
    model = AutoModelForCausalLM.from_pretrained(made / "model")
    for text, row in zip(texts, told["data"]):
        with torch.no_grad():
            hidden_TD = model.model(torch.tensor([tokenizer("decoder")(text)["input_ids"]])).last_hidden_state[0]
        want_D = torch.nn.functional.normalize(hidden_TD[-1], dim=0)
        torch.testing.assert_close(torch.tensor(row["embedding"]), want_D, atol=1e-5, rtol=0)
    assert told["usage"]["prompt_tokens"] == sum(len(tokenizer("decoder")(text)["input_ids"]) for text in texts)


def test_the_gate_passes_what_is_the_same_and_refuses_what_is_not(made: Path, tmp_path: Path) -> None:
    asked = [[{"role": "user", "content": "what colour is house number 3"}]]
    out = tmp_path / "out"
    out.mkdir()
    record = write_served(made / "model", out, asked, adapter=made / "a")
    assert record["passed"] and record["same_prompt_tokens"] and record["tokens"] > 0 and check_record(out) == record
    (out / "parity.json").write_text(json.dumps({**record, "largest_gap": 3.0}))
    with pytest.raises(GenwrightError, match="does not answer as the trained one did"):
        check_record(out)
    (out / "parity.json").write_text(json.dumps(record))
    write_model(made / "model", out / "model.gguf", "f32")
    with pytest.raises(Corrupt, match="not the file that passed"):
        check_record(out)
    (out / "parity.json").unlink()
    with pytest.raises(Corrupt, match="no record"):
        check_record(out)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}, "modules_to_save"),
    ],
)
def test_an_adapter_that_llama_cpp_would_not_apply_is_refused(made: Path, tmp_path: Path, settings, words) -> None:
    adapter(made / "model", tmp_path / "x", 5, **settings)
    with pytest.raises(ModelError, match=words):
        write_adapter(made / "model", tmp_path / "x", tmp_path / "x.gguf")


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny(tmp_path / "t5", "encoder-decoder")
    with pytest.raises(ModelError, match="'t5' model"):
        write_model(tmp_path / "t5", tmp_path / "x.gguf")


def test_eight_bits_are_smaller_and_near(made: Path, tmp_path: Path) -> None:
    import gguf

    half = write_model(made / "model", tmp_path / "h.gguf", "f16")["bytes"]
    assert write_model(made / "model", tmp_path / "q.gguf", "q8_0")["bytes"] < 0.9 * half
    kinds = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0" and kinds["blk.0.attn_norm.weight"] == "F32"
