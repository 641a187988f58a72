"""Measure this machine, or its GPU, for a minute, so that plans price time by what was seen here.

The file is kept per device, driver and torch version in the user's cache. `genwright estimate` uses it where the device it is
asked about is this one, and says "calibrated"; elsewhere it says "datasheet".
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.cli import numbers
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="", help="which (default: cuda where torch sees one, else cpu)"
    )
    parser.add_argument(
        "--seconds", type=numbers.amount, default=60.0, metavar="S", help="at most this long for products (default: 60)"
    )
    parser.add_argument("--to", metavar="FOLDER", help="keep the file here instead of in the cache")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Measure, keep, and say what was found."""
    folder = Path(arguments.to) if arguments.to else call("genwright.models.sources:cache_folder") / "calibrations"
    found = call("genwright.plan.priced.measure:measure", arguments.device, folder=folder, seconds=arguments.seconds)
    one = found["calibration"]
    best = {name: max(rates) for name, rates in one.rates.items()}
    size, spent = max(one.streams)
    facts = {
        "path": found["path"], "machine": one.machine, "date": one.date, "best_flops_per_second": best, "bytes_per_second": size / spent,
        "launch_seconds": one.launch_seconds, "optimizer_bytes_per_second": one.optimizer_rate, "products": len(one.products),
    }  # fmt: skip
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 0


def _draw(console: Any, facts: dict[str, Any]) -> None:
    rows = [
        (f"products, {name}", f"{rate / 1e12:.3g} TFLOP/s at best")
        for name, rate in facts["best_flops_per_second"].items()
    ]
    rows += [
        ("memory", f"{facts['bytes_per_second'] / 1e9:.3g} GB/s"),
        ("one operation", f"{facts['launch_seconds'] * 1e6:.3g} microseconds of the host"),
        ("optimizer", f"{facts['optimizer_bytes_per_second'] / 1e9:.3g} GB/s"),
    ]
    console.print(table((str(facts["machine"]["device"]), "measured here"), rows))
    console.print(f"kept in {facts['path']}")
