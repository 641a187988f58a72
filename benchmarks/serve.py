"""The gateway measured: overhead, throughput, start-up, LiteLLM beside it, and a soak. Each in turn, in one run.

    python benchmarks/serve.py overhead [--seconds 20] [--rounds 3] [--parts router,guard]
    python benchmarks/serve.py litellm --python benchmarks/peers/litellm/.venv/bin/python
    python benchmarks/serve.py throughput | startup | soak [--minutes 30] [--data TRACE.csv]
    GENWRIGHT_VLLM=/path/to/env/bin/vllm python benchmarks/serve.py adapters

Overhead is a percentile of the time through the gateway less the same percentile straight to the engine, at 50 requests a
second (Poisson, open loop), the gateway alone on one core, engine and client on another. --smoke is short and keeps nothing.
Results: benchmarks/results/serve_<what>.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from genwright.serve.engines.processes import cpu_seconds
from machine import versions, write_result
from serve_parts import (
    EXPERTS,
    PROMPT,
    Load,
    body_of,
    engine_command,
    free_port,
    gateway_command,
    open_loop,
    percentile,
    process,
)

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("genwright", "aiohttp", "starlette", "uvicorn", "uvloop", "httptools", "xllamacpp", "onnxruntime")
GATEWAY_CORE, OTHER_CORE = 0, 1
RATE, TOKENS = 50.0, 16


def measured(port: int, bodies: Sequence[bytes], seconds: float, seed: int) -> Load:
    """One load, from a loop of its own."""
    return uvloop.run(open_loop(port, RATE, seconds, bodies, seed))


def in_turn(
    ports: dict[str, int], bodies: dict[str, Sequence[bytes]], seconds: float, rounds: int
) -> dict[str, list[Load]]:
    """Each side in each round, with the same arrivals; three seconds of warm-up before, which is not counted."""
    for name, port in ports.items():
        measured(port, bodies[name], 3.0, 99)
    return _rounds(ports, bodies, seconds, rounds)


def _rounds(
    ports: dict[str, int], bodies: dict[str, Sequence[bytes]], seconds: float, rounds: int
) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {name: [] for name in ports}
    for number in range(rounds):
        for name, port in ports.items():
            found[name].append(measured(port, bodies[name], seconds, number))
    return found


def added(loads: dict[str, list[Load]], name: str, bare: str = "engine") -> dict[str, Any]:
    """Milliseconds that `name` adds, the median over rounds of the difference of percentiles; and of first bytes."""
    told: dict[str, Any] = {
        "failed": sum(load.failed for load in loads[name]),
        "requests": sum(len(load.seconds) for load in loads[name]),
    }
    for percent in (50, 99):
        for kind in ("seconds", "first"):
            rows = [
                1e3 * (percentile(getattr(one, kind), percent) - percentile(getattr(base, kind), percent))
                for one, base in zip(loads[name], loads[bare])
            ]
            told[f"{'' if kind == 'seconds' else 'first_byte_'}p{percent}_ms"] = round(statistics.median(rows), 3)
            told[f"{'' if kind == 'seconds' else 'first_byte_'}p{percent}_ms_rounds"] = [round(row, 3) for row in rows]
    return told


def overhead(chosen: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds that the gateway adds, whole and streamed, an expert named (or chosen, with a router among the parts)."""
    parts = [one for one in chosen.parts.split(",") if one]
    engine, gateway = free_port(), free_port()
    found: dict[str, Any] = {"rate": RATE, "tokens": TOKENS, "parts": parts, "experts": EXPERTS}
    with (
        process(engine_command(engine, TOKENS), engine, OTHER_CORE),
        process(gateway_command(gateway, engine, parts), gateway, GATEWAY_CORE) as running,
    ):
        for kind in ("whole", "stream"):
            names = ["auto"] if "router" in parts else [f"expert-{number}" for number in range(EXPERTS)]
            bodies = [
                body_of(name, kind == "stream", f"{PROMPT} And {number}?")
                for number in range(2000)
                for name in names[number % len(names) :][:1]
            ]  # no text twice: the router and the guard remember what they have read
            sides = {"engine": bodies, "gateway": bodies}
            before = cpu_seconds(running.pid)
            loads = in_turn({"engine": engine, "gateway": gateway}, sides, chosen.seconds, chosen.rounds)
            found[kind] = added(loads, "gateway")
            requests = found[kind]["requests"] + 3 * RATE
            found[kind]["gateway_cpu_ms"] = round(1e3 * (cpu_seconds(running.pid) - before) / requests, 3)
    return found


def litellm(chosen: argparse.Namespace) -> dict[str, Any]:
    """The same engine and load behind a LiteLLM proxy and behind ours, in turn, each alone on the gateway's core."""
    engine, ours, theirs = free_port(), free_port(), free_port()
    driver = Path(__file__).parent / "peers" / "litellm" / "run.py"
    command = [chosen.python, str(driver), "--engine", f"http://127.0.0.1:{engine}", "--port", str(theirs)]
    found: dict[str, Any] = {"rate": RATE, "tokens": TOKENS}
    with (
        process(engine_command(engine, TOKENS), engine, OTHER_CORE),
        process(gateway_command(ours, engine), ours, GATEWAY_CORE),
        process(command, theirs, GATEWAY_CORE, "/health/liveliness", 180.0),
    ):
        found["versions"] = json.loads(
            subprocess.run([chosen.python, str(driver), "--versions"], capture_output=True, check=True).stdout
        )
        for kind in ("whole", "stream"):
            bodies = {"engine": "fake", "ours": "expert-0", "litellm": "fake"}
            asked = {name: [body_of(model, kind == "stream")] for name, model in bodies.items()}
            loads = in_turn({"engine": engine, "ours": ours, "litellm": theirs}, asked, chosen.seconds, chosen.rounds)
            told = {name: added(loads, name) for name in ("ours", "litellm")}
            told["ratio_p50"] = round(told["ours"]["p50_ms"] / told["litellm"]["p50_ms"], 4)
            told["ratio_p99"] = round(told["ours"]["p99_ms"] / told["litellm"]["p99_ms"], 4)
            found[kind] = told
    return found


PROJECT = """[project]
name = "bench"
[scope]
task = "chat"
[data]
train = "rows.jsonl"
[serve]
engine = "remote"
url = "http://127.0.0.1:{port}"
"""


def startup(chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of `genwright serve` to its first answer at /health, and whether torch was loaded."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "genwright.toml").write_text(PROJECT.format(port=free_port()))
        for _ in range(chosen.rounds):
            port, began = free_port(), time.perf_counter()
            command = [sys.executable, "-m", "genwright", "serve", "--project", folder, "--port", str(port)]
            with process(command, port, None) as running:
                seconds.append(time.perf_counter() - began)
                maps = Path(f"/proc/{running.pid}/maps").read_text()
    return {
        "seconds": [round(one, 3) for one in seconds],
        "median": round(statistics.median(seconds), 3),
        "torch_loaded": "libtorch" in maps,
    }


def main() -> None:
    """Measure, print, keep."""
    from serve_adapters import adapters
    from serve_real import soak, throughput

    kinds: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "overhead": overhead, "litellm": litellm, "startup": startup, "throughput": throughput, "soak": soak,
        "adapters": adapters,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(kinds))
    parser.add_argument("--seconds", type=float, default=20.0, help="of one load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="", help="router,guard: put these into the gateway")
    parser.add_argument(
        "--python",
        default=str(Path(__file__).parent / "peers/litellm/.venv/bin/python"),
        help="of LiteLLM's environment",
    )
    parser.add_argument("--vllm", default="", help="adapters: more options of vLLM, such as '--dtype bfloat16'")
    parser.add_argument("--minutes", type=float, default=7.0, help="of the soak")
    parser.add_argument(
        "--data",
        type=Path,
        default=None,
        help="a trace: CSV of TIMESTAMP,ContextTokens,GeneratedTokens (default: one made here)",
    )
    parser.add_argument("--smoke", action="store_true", help="seconds only; keeps nothing")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.seconds, chosen.rounds, chosen.minutes = 6.0, 1, min(chosen.minutes, 0.5)
    result = kinds[chosen.what](chosen)
    print(json.dumps(result, indent=1))
    if not chosen.smoke:
        name = f"serve_{chosen.what}" + (f"_{chosen.parts.replace(',', '_')}" if chosen.parts else "")
        write_result(RESULTS / f"{name}.json", **{"versions": versions(PACKAGES), **result})


if __name__ == "__main__":
    main()
