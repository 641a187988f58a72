"""`genwright estimate MODEL --serve PROFILE`: what serving an application takes, on which batch, at what cost."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

from genwright.base.errors import BadRequest
from genwright.cli import numbers
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal, heading, table

COLUMNS = {
    "batch": "batch", "first_token_ms": "first token, ms", "token_ms": "token, ms", "tokens_per_s": "tokens/s",
    "requests_per_s": "requests/s", "j_per_1k_tokens": "J per 1,000", "usd_per_1k_tokens": "USD per 1,000",
}  # fmt: skip


def options(group: Any) -> None:
    """The options of this way to estimate."""
    group.add_argument(
        "--serve",
        metavar="PROFILE",
        help="serve it, for a profile of the catalogue, a CSV file of requests, or `fixed` with the lengths below",
    )
    group.add_argument(
        "--input-tokens", type=numbers.count, default=512, metavar="N", help="of each prompt, for fixed (default: 512)"
    )
    group.add_argument(
        "--output-tokens", type=numbers.count, default=128, metavar="N", help="of each answer, for fixed (default: 128)"
    )
    group.add_argument(
        "--batch",
        type=numbers.count_or_none,
        default=0,
        metavar="N",
        help="rows that are answered together (default: the best)",
    )
    group.add_argument("--engine", default="vllm", help="what serves it: vllm, llama.cpp, ... (default: vllm)")
    group.add_argument("--kv-precision", default="", help="of the cache: fp8, int8 (default: 16 bits)")
    group.add_argument(
        "--per-second", type=numbers.amount_or_none, default=0.0, metavar="N", help="requests that come in a second"
    )
    group.add_argument(
        "--first-token-ms", type=numbers.amount, default=math.inf, metavar="MS", help="limit of the first token"
    )
    group.add_argument(
        "--token-ms", type=numbers.amount, default=math.inf, metavar="MS", help="limit of each further one"
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the page. Errors: BadRequest without a model or a device."""
    if not arguments.model or not arguments.device:
        raise BadRequest(
            "Serving is estimated for a model on a device.", wanted="MODEL and --device",
            do="genwright estimate llama-3.1-8b --serve chatbot --device h100",
        )  # fmt: skip
    precision = "bf16" if arguments.precision == "auto" else arguments.precision
    wanted = {
        "precision": precision, "kv_precision": arguments.kv_precision, "framework": arguments.engine, "count": arguments.count,
    }  # fmt: skip
    facts = call(
        "genwright.plan.serving_sheet:serving_sheet",
        arguments.model,
        arguments.device,
        wanted,
        traffic=arguments.serve,
        per_second=arguments.per_second,
        first_token_ms=arguments.first_token_ms,
        token_ms=arguments.token_ms,
        usd_per_hour=arguments.usd_per_hour,
        fixed=(arguments.input_tokens, arguments.output_tokens),
        batch=arguments.batch,
        states_precision=arguments.precision != "auto",
    )
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 0


def _draw(console: Any, facts: dict[str, Any]) -> None:
    traffic = facts["traffic"]
    console.print(heading(f"{facts['model']} for {traffic['name']} on {facts['count']} x {facts['device']}"))
    console.print(f"requests of {traffic['mean'][0]:.0f} tokens, answers of {traffic['mean'][1]:.0f}, on average")
    shown = [tuple(_short(row[name]) for name in COLUMNS) for row in facts["curve"]]
    console.print(table(tuple(COLUMNS.values()), shown, right=tuple(range(len(COLUMNS)))))
    held = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in facts["breakdown"].items())
    console.print(f"memory of a device at that batch: {held}")
    if facts["chosen"]:
        console.print(f"Most requests a second within the limits: a batch of {facts['chosen']['batch']}.")
    if needed := facts["needed"]:
        price = "" if needed["usd_per_hour"] is None else f", {needed['usd_per_hour']:.2f} USD an hour"
        console.print(f"{needed['per_second']:.2f} requests a second: {needed['devices']} devices{price}.")
    for note in (*(f"{name}: {why}" for name, why in facts["unknown"].items()), *facts["notes"]):
        console.print(f"note: {note}")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
