"""The server put together from a project: engines by machine and plan, meter, keys, and whatever parts there are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.base.errors import BadRequest, GenwrightError, MissingExtra, ModelError
from genwright.catalogue.devices import devices
from genwright.serve.answers import Answers, Parts, Prices
from genwright.serve.contracts import Engine, EngineDown, Expert, Guard, Profile, Profiler, Request, Router
from genwright.serve.energy import Elsewhere, Estimated, PowerMeter, Split, meter_of_this_machine
from genwright.serve.engines.http import HttpEngine
from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings
from genwright.serve.engines.vllm import Vllm, VllmSettings, found_vllm, lint
from genwright.serve.experts import INDEX, ExpertLibrary, digest_of_base
from genwright.serve.gate import Gate, VllmGate
from genwright.serve.gateway import Gateway, application
from genwright.serve.keys import Keys, Limits
from genwright.serve.live import Holders, Learner, LiveLibrary, LiveRouter
from genwright.serve.made import Made, made_by
from genwright.serve.meter import Meter, read_records
from genwright.serve.pool import Pool

if TYPE_CHECKING:
    from genwright.serve.embed import Embedder

WATTS_PER_CORE = 10.0
IDLE_FRACTION = 0.3
"""Of a machine whose power nobody told and nothing counts: what the estimate assumes. `hardware.watts` says it better."""

WINDOW_SECONDS = 1.0

MOST_IN_A_BATCH = 32
"""Different adapters that vLLM is started with room for; more wait for each other."""


@dataclass
class House:
    """A server that can be run."""

    app: Any
    answers: Answers
    pool: Pool
    library: LiveLibrary


def build(spec: Any, base: Path, *, say: Callable[[str], Any] = print) -> House:
    """Everything but the listening. Errors: BadRequest where there is nothing to serve, GenwrightError at the parity gate."""
    work = base / ".genwright" / "serve"
    kind, guard = chosen_engine(spec), _guard(spec, base)
    made = None if kind == "remote" and spec.serve.url else made_by(spec, base, say, llamacpp=kind == "llamacpp")
    model = made.name if made is not None else spec.project.name
    library = _library(spec, base, work, kind, made, say)
    pool = library.pool
    limits = _limits(work)
    meter, keys = Meter(work), Keys(work / "keys.json")
    split = _split(spec, pool, meter)
    answers = Answers(
        Parts(
            pool, meter, split, model, context_of(spec, made), spec.serve.parallel, router=LiveRouter(library, _router, say),
            library=library, holders=library.holders, guard=guard, profiler=LateProfiler(),
            prices=_prices(spec), examples=made.examples if made is not None else None,
        ),
        limits,
    )  # fmt: skip
    lifespan = _lifespan(pool, answers, library, say)
    app = application(Gateway(answers, keys), cors=tuple(spec.serve.cors), lifespan=lifespan, live=library)
    return House(app, answers, pool, library)


class LateProfiler:
    """The profiler, loaded with the first request or just after the start, whichever comes first: it counts with numpy."""

    @cached_property
    def made(self) -> Profiler:
        """It."""
        from genwright.serve.profiler import HistoryProfiler

        return HistoryProfiler()

    def classify(self, request: Request, history: Sequence[Mapping[str, Any]]) -> Profile:
        """See contracts.Profiler."""
        return self.made.classify(request, history)


def chosen_engine(
    spec: Any, has_gpu: Callable[[], bool] | None = None, has_vllm: Callable[[], bool] | None = None
) -> str:
    """ "auto": an address means remote; vLLM where a GPU and the program are; else llama.cpp, which needs neither."""
    wanted = str(spec.serve.engine)
    if wanted != "auto":
        if wanted == "remote" and not spec.serve.url:
            raise BadRequest("A remote engine needs an address.", do='set serve.url = "http://..."')
        return wanted
    if spec.serve.url:
        return "remote"
    gpu = has_gpu() if has_gpu is not None else shutil.which("nvidia-smi") is not None
    vllm = has_vllm() if has_vllm is not None else bool(found_vllm())
    return "vllm" if gpu and vllm and spec.integrate.engine != "llamacpp" else "llamacpp"


def engines_of(
    spec: Any, base: Path, work: Path, kind: str, made: Made | None, experts: Sequence[Expert] = (), template: Path | None = None
) -> list[Engine]:  # fmt: skip
    """The one that answers, and the one that stands by. `experts`: known at start, so that vLLM has rank and room for them;
    `template`: of conversations, where vLLM must be told.
    """
    headers = _headers(spec, base)
    engines: list[Engine] = []
    if kind == "remote":
        engines.append(HttpEngine(spec.serve.remote_model or spec.project.name, spec.serve.url, headers))
    elif made is not None and kind == "vllm":
        adapters = tuple(
            dict.fromkeys([*([made.adapter] if made.adapter is not None else []), *(one.path for one in experts)])
        )
        fitting = tuple(filter(_fits_vllm, adapters))
        options = ("--chat-template", str(template)) if template is not None else ()
        settings = VllmSettings(
            made.model, work, fitting, options=options, address=spec.serve.url, **_room(spec, made, experts)
        )
        engines.append(Vllm(made.name, settings))
    elif made is not None:
        if find_spec("xllamacpp") is None:
            raise MissingExtra("xllamacpp", "serve", "The engine llamacpp")
        gguf, begin = made.files / "model.gguf", made.record["begin"]
        llama = LlamaSettings(gguf, work, made.model, begin, context_of(spec, made), spec.serve.parallel)
        engines.append(LlamaCpp(made.name, llama))
    if spec.serve.fallback:
        engines.append(HttpEngine(spec.serve.remote_model or spec.project.name, spec.serve.fallback, headers))
    return engines


def _room(spec: Any, made: Made, experts: Sequence[Expert]) -> dict[str, Any]:
    """What vLLM is started with room for, when it serves and when it is proven."""
    return {
        "context": context_of(spec, made), "num_experts": min(MOST_IN_A_BATCH, max(VllmSettings.num_experts, len(experts)))
    }  # fmt: skip


def context_of(spec: Any, made: Made | None) -> int:
    """What the project asks for, and no more than the model has."""
    if made is None:
        return int(spec.serve.context)
    told = json.loads((made.model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    return min(int(spec.serve.context), int(told or spec.serve.context))


def library_folder(spec: Any, base: Path) -> Path:
    """Where a project's experts are."""
    return Path(base / spec.serve.library)


def _library(spec: Any, base: Path, work: Path, kind: str, made: Made | None, say: Callable[[str], Any]) -> LiveLibrary:
    """What the project's library has, past its gate, before an engine that has room for it. Errors: as `build`."""
    source = _source(spec, base, kind, made)
    experts = source.experts() if source is not None else ()
    own = _own(spec, base, made, kind)
    gate, proof, template = None, None, None
    if kind == "vllm" and made is not None and not spec.serve.url:
        known = [one for one in (*experts, *([own] if own is not None else [])) if _fits_vllm(one.path)]
        proof = VllmGate(made.model, made.digest, made.conversations, work, _room(spec, made, experts), say)
        template = proof.prove(known)
    if kind == "llamacpp" and made is not None and source is not None:
        gate = Gate(made.model, made.files / "model.gguf", made.record, work, say)
        gate.keep_only(experts)
        gate.prove(experts)
        for expert in experts:
            gate.checked(expert)
    engines = engines_of(spec, base, work, kind, made, experts, template)
    prove = partial(proof.proven, engine=engines[0]) if proof is not None and isinstance(engines[0], Vllm) else None
    pool = Pool(engines)
    own_name = spec.project.name if made is not None and made.adapter is not None else ""
    return LiveLibrary(
        source, pool, Holders(), own, own_name=own_name, prepare=gate.prepared if gate is not None else None,
        prove=prove,
    )  # fmt: skip


def _source(spec: Any, base: Path, kind: str, made: Made | None) -> ExpertLibrary | None:
    """The library on disk. Errors: BadRequest for experts of a base that is not served: what is merged is another model."""
    folder = library_folder(spec, base)
    if kind == "remote" or made is None:
        return None
    found = ExpertLibrary(folder)
    if not found.experts() and not made.is_base:
        return None
    if not made.is_base or (found.base_digest and found.base_digest != digest_of_base(made.model)):
        raise BadRequest(
            f"{folder} has experts, and the result that is served is not their base.",
            do="set integrate.merge = false, or serve.library to another folder",
        )
    return found


def _own(spec: Any, base: Path, made: Made | None, kind: str) -> Expert | None:
    """The adapter that the project made, where no library was made with it: what was applied by an older version."""
    if made is None or made.adapter is None or (library_folder(spec, base) / INDEX).exists():
        return None
    served = made.files / "adapter.gguf"
    path = served if kind == "llamacpp" and served.exists() else made.adapter
    return Expert(spec.project.name, path, made.digest[:12])


def _fits_vllm(adapter: Path) -> bool:
    """What it rejects is told when it is loaded; it need not keep the others from starting."""
    try:
        return bool(lint(adapter))
    except ModelError:
        return False


def _guard(spec: Any, base: Path) -> Guard | None:
    """Before anything is answered. Errors: BadRequest, SpecError, ModelError."""
    if not spec.serve.guard:
        if spec.serve.policy:
            raise BadRequest("serve.policy has no guard to tell.", do="set serve.guard too")
        return None
    from genwright.serve.guard import read_guard
    from genwright.serve.policy import read_policy

    policy = read_policy(base / spec.serve.policy) if spec.serve.policy else None
    return read_guard(base / spec.serve.guard, policy)


@cache
def _embedder() -> Embedder:
    from genwright.serve.embed import packaged_embedder

    return packaged_embedder()


def _router() -> tuple[Router, Learner]:
    """The router by meaning and words, with its encoder: seconds to make, so it is made when there are experts."""
    from genwright.serve.expert_profile import profile_here
    from genwright.serve.router import CentroidRouter

    router = CentroidRouter(_embedder())
    here = lambda expert: profile_here(expert.path, _embedder())
    found = lambda experts: [replace(one, name=expert.name) for expert in experts if (one := here(expert)) is not None]
    return router, lambda experts: router.learn(found(experts))


def _split(spec: Any, pool: Pool, meter: Meter) -> Split:
    cores = os.cpu_count() or 1
    watts = float(spec.hardware.watts or WATTS_PER_CORE * cores)
    estimate: Callable[[], PowerMeter] = lambda: Estimated(watts, IDLE_FRACTION * watts, cores, pool.first.cpu_seconds)
    counter = Elsewhere() if pool.first.name == "remote" else meter_of_this_machine(estimate)
    told = lambda seconds, joules, idle: meter.add_energy(time.time(), seconds, joules, idle, counter.source)
    return Split(counter, IDLE_FRACTION * watts, told=told)


def _prices(spec: Any) -> Prices:
    serve, hour = spec.serve, spec.hardware.usd_per_hour
    if hour is None and spec.hardware.device in devices():
        hour = devices()[spec.hardware.device].usd_per_hour
    return Prices(
        serve.usd_per_million_prompt, serve.usd_per_million_cached, serve.usd_per_million_generated, float(hour or 0.0)
    )


def _headers(spec: Any, base: Path) -> dict[str, str]:
    if not spec.serve.key_file:
        return {}
    try:
        return {"Authorization": f"Bearer {(base / spec.serve.key_file).read_text(encoding='utf-8').strip()}"}
    except OSError as error:
        raise BadRequest(f"serve.key_file cannot be read: {error.strerror}.", found=spec.serve.key_file) from None


def _limits(work: Path) -> Limits:
    """What keys used before this start counts on."""
    limits = Limits()
    since = limits.clock() - 30 * 86_400
    with contextlib.suppress(BadRequest):
        for row in read_records(work, since, limit=100_000):
            if row["key"]:
                limits.spent(row["key"], row["prompt_tokens"] + row["generated_tokens"], row["usd"], at=row["began"])
    return limits


def _lifespan(pool: Pool, answers: Answers, library: LiveLibrary, say: Callable[[str], Any]) -> Any:
    """Engines start after the port is open: /health answers at once, /ready when they are."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(pool, library, say))
        windows = asyncio.create_task(_windows(answers.parts.split))
        try:
            yield
        finally:
            for task in (starting, windows):
                task.cancel()
            await asyncio.gather(starting, windows, return_exceptions=True)
            await library.stop()
            await pool.stop()
            answers.parts.split.window()
            answers.close()
            answers.parts.meter.close()

    return lifespan


async def _start(pool: Pool, library: LiveLibrary, say: Callable[[str], Any]) -> None:
    """Experts first: the engine then starts once, with all of them. What fails is said, and tried again by those who watch."""
    await asyncio.to_thread(import_module, "aiohttp")
    for step in (library.refresh, pool.start):
        try:
            await step()
        except (GenwrightError, EngineDown) as error:
            say(str(error))
    await library.watch()


async def _windows(split: Split) -> None:
    while True:
        await asyncio.sleep(WINDOW_SECONDS)
        split.window()
