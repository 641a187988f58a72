"""What /metrics says, in Prometheus' text format (0.0.4): counters of the meter, gauges of the engines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from genwright.serve.answers import Answers
from genwright.serve.contracts import EngineMetrics
from genwright.serve.meter import TOLD

HELP = {
    "requests": "Requests that ended.", "prompt_tokens": "Prompt tokens, cached ones included.",
    "cached_tokens": "Prompt tokens that were cached.", "generated_tokens": "Generated tokens.",
    "tool_calls": "Calls of tools that answers asked for.", "joules": "Joules of requests, without the idle share.",
    "usd": "Dollars.", "seconds": "Seconds from a request's arrival to its end.",
}  # fmt: skip


def exposition(answers: Answers, engines: Sequence[tuple[str, EngineMetrics, bool]]) -> str:
    """The whole text."""
    lines: list[str] = []
    totals = answers.parts.meter.totals
    for name in TOLD:
        samples = [
            ({"expert": expert, "outcome": outcome, "engine": engine}, value[name])
            for (expert, outcome, engine), value in sorted(totals.items())
        ]
        lines += _family(f"genwright_{name}_total", "counter", HELP[name], samples)
    split = answers.parts.split
    source = {"source": split.meter.source}
    lines += _family(
        "genwright_meter_joules_total", "counter", "Joules that the power meter read.", [(source, split.total)]
    )
    lines += _family(
        "genwright_idle_joules_total", "counter", "Joules that belong to no request.", [(source, split.idle)]
    )
    lines += _family("genwright_running", "gauge", "Requests running now.", [({}, answers.running)])
    for name, text in (
        ("running", "Requests in the engine."),
        ("memory_bytes", "Resident memory."),
        ("restarts", "Restarts."),
    ):
        lines += _family(
            f"genwright_engine_{name}", "gauge", text,
            [({"engine": engine, "rank": str(rank)}, getattr(told, name)) for rank, (engine, told, _) in enumerate(engines)],
        )  # fmt: skip
    lines += _family(
        "genwright_engine_up", "gauge", "Whether the engine's process runs.",
        [({"engine": engine, "rank": str(rank)}, int(alive)) for rank, (engine, _, alive) in enumerate(engines)],
    )  # fmt: skip
    loaded = [({"adapter": adapter}, 1) for _, told, _ in engines for adapter in told.adapters]
    lines += _family("genwright_adapter_loaded", "gauge", "Experts that are loaded, by version.", loaded)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> list[str]:
    told = [
        f"{name}{_labels(labels)} {value:g}" if value < 1e6 else f"{name}{_labels(labels)} {value!r}"
        for labels, value in samples
    ]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *told]


def _labels(labels: dict[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""
