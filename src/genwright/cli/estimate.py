"""Size a model and a method without a project: memory, time, energy and money, each with a range.

MODEL is a name of the catalogue, which needs no weights, or a model source that is on the disk. The plan is for this
machine, from the very step that `apply` would run.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.cli import draw
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("model", metavar="MODEL", help="what to size")
    parser.add_argument("--adapter", default="lora", help="how it is adapted (default: lora)")
    parser.add_argument("--objective", default="instruction", help="what is learned (default: instruction)")
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="rank of LoRA (default: 16)")
    parser.add_argument("--seq-len", type=int, default=1024, metavar="N", help="tokens of a row (default: 1024)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows of a step (default: 8)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="optimiser steps (default: 100)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="numbers to compute in"
    )
    parser.add_argument("--watts", type=float, help="power under load, for the energy")
    parser.add_argument("--usd-per-hour", type=float, metavar="USD", help="price of the machine, for the money")


NAMES = ("adapter", "objective", "rank", "seq_len", "batch_size", "steps", "precision", "watts", "usd_per_hour")
"""The options that `estimate_model` takes under the same name."""


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the estimate."""
    wanted = {name: getattr(arguments, name) for name in NAMES}
    facts = call("genwright.outlook:estimate_model", arguments.model, base=Path(arguments.project), **wanted)
    terminal.answer(facts, lambda console: _draw(console, arguments, facts))
    return 0


def _draw(console: Any, arguments: Namespace, facts: dict[str, Any]) -> None:
    draw.planned(console, f"{facts['model']}, {arguments.adapter}, on {facts['device']}", facts["planned"])
