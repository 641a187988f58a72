"""The catalogue of devices: speed, memory, power and price, each with its source. A blank is not known."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from genwright.cli.rooms import call
from genwright.cli.sheet import sheet
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="everything about one device")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """List the devices, or show one."""
    if arguments.name:
        one = asdict(call("genwright.catalogue.devices:device", arguments.name))
        terminal.answer(one, lambda console: sheet(console, one))
        return 0
    every = list(call("genwright.catalogue.devices:devices").values())
    terminal.answer([asdict(device) for device in every], lambda console: _draw(console, every))
    return 0


def _draw(console: Any, every: list[Any]) -> None:
    rows = [
        (
            one.name,
            one.vendor,
            *(_blank(value) for value in (one.memory_gb, one.bf16_tflops, one.watts, one.usd_per_hour)),
        )
        for one in every
    ]
    console.print(table(("device", "vendor", "memory GB", "bf16 TFLOP/s", "watts", "USD/h"), rows, right=(2, 3, 4, 5)))


def _blank(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
