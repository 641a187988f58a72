"""`genwright estimate MODEL --budget 20usd --device A,B`: the recipes that fit, cheapest first, and what would mend the others."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal, heading, table

SHOWN = 12
"""Rows of a table for people; --json has all."""


def options(group: Any) -> None:
    """The options of this way to estimate."""
    group.add_argument(
        "--budget",
        metavar="AMOUNT",
        help="list the recipes within 20usd, 10h or 5kwh (or several: 20usd,10h), on each --device A,B up to --count (default there: 8)",
    )
    group.add_argument("--plot", metavar="FILE", type=Path, help="write time against money as an SVG")


def run(arguments: Namespace, terminal: Terminal, wanted: dict[str, Any], cache: Path) -> int:
    """Print the recipes. Errors: BadRequest without a model or a device."""
    if not arguments.model or not arguments.device:
        raise BadRequest(
            "A budget is spent on a model and devices.", wanted="MODEL and --device",
            do="genwright estimate llama-3.1-8b --budget 20usd --device h100,a100",
        )  # fmt: skip
    most = arguments.count if arguments.count > 1 else 8
    facts = call(
        "genwright.plan.sheet:recipes",
        arguments.model,
        [name.strip() for name in arguments.device.split(",") if name.strip()],
        wanted,
        rows=arguments.batch_size or max(8, most),
        steps=arguments.steps,
        most=most,
        budget=arguments.budget,
        cache=cache,
        region=arguments.region,
        usd_per_hour=arguments.usd_per_hour,
    )
    if arguments.plot:
        write_atomic(arguments.plot, call("genwright.web.pareto:pareto", facts["fitting"], facts["pareto"]))
        facts["plot"] = str(arguments.plot)
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 0 if any(one["within_budget"] for one in facts["fitting"]) else 3


def _draw(console: Any, facts: dict[str, Any]) -> None:
    console.print(heading(f"{facts['model']}: {facts['steps']} steps of {facts['rows']} rows"))
    rows = [
        (
            f"{one['count']} x {one['device']}",
            one["recipe"],
            _short(one["usd"]),
            _short(one["hours"]),
            _short(one["kwh"]),
            f"{one['device_gib']:.1f} of {one['limit_gib']:.1f}",
            "" if one["within_budget"] else "no price known" if one["usd"] is None else "over the budget",
        )
        for one in facts["fitting"][:SHOWN]
    ]
    console.print(table(("devices", "recipe", "USD", "hours", "kWh", "GiB", ""), rows, right=(2, 3, 4, 5)))
    if len(facts["fitting"]) > SHOWN:
        console.print(f"and {len(facts['fitting']) - SHOWN} more")
    for one in facts["failing"][:SHOWN]:
        mended = (
            f"{one['mended_by']} would fit ({one['mended_gib']:.1f} GiB)"
            if one["mended_by"]
            else "no single change mends it"
        )
        console.print(
            f"does not fit: {one['count']} x {one['device']}, {one['recipe']}: {one['device_gib']:.1f} of {one['limit_gib']:.1f} GiB, "
            f"broken by {one['broken_by']} ({one['broken_by_gib']:.1f} GiB); {mended}"
        )
    for note in (*facts["skipped"], *facts["notes"]):
        console.print(f"note: {note}")
    if "plot" in facts:
        console.print(f"Time against money: {facts['plot']}")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}" if abs(value) < 1e3 else f"{value:,.0f}"
