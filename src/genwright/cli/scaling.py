"""How large a model, how much data: what a budget buys best, a law of your own runs, how small is enough.

`advise` takes a budget in petaflop/s-days, device-hours or money. `fit` and `enough` read a CSV file of runs with the columns
parameters, tokens and loss (`enough` needs no tokens).
"""

from __future__ import annotations

import csv
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, DataError
from genwright.cli import numbers
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("action", choices=("advise", "fit", "enough"), help="what to ask")
    parser.add_argument("runs", metavar="FILE", nargs="?", type=Path, help="a CSV file of runs, for fit and enough")
    parser.add_argument(
        "--petaflops-days", type=numbers.amount, metavar="N", help="the budget as work: 8.64e19 FLOP each"
    )
    parser.add_argument("--device-hours", type=numbers.amount, metavar="N", help="the budget as hours of --device")
    parser.add_argument(
        "--usd", type=numbers.amount, metavar="USD", help="the budget as money, at the price of --device"
    )
    parser.add_argument("--device", default="h100", help="what is rented (default: h100)")
    parser.add_argument(
        "--utilisation",
        type=numbers.share,
        default=0.4,
        metavar="SHARE",
        help="of its peak that is reached (default: 0.4)",
    )
    parser.add_argument(
        "--have-tokens", type=numbers.amount_or_none, default=0.0, metavar="N", help="data that are there already"
    )
    parser.add_argument(
        "--served-tokens",
        type=numbers.amount_or_none,
        default=0.0,
        metavar="N",
        help="tokens it will answer in its life",
    )
    parser.add_argument(
        "--target", type=numbers.amount, metavar="LOSS", help="for enough: the loss that is good enough"
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the answer."""
    facts = {"advise": _advise, "fit": _fit, "enough": _enough}[arguments.action](arguments)
    terminal.answer(facts, lambda console: _draw(console, facts))
    return 0


def _advise(arguments: Namespace) -> dict[str, Any]:
    flops, spread = _budget(arguments)
    more = {"have_tokens": arguments.have_tokens, "served_tokens": arguments.served_tokens}
    facts: dict[str, Any] = call("genwright.plan.scaling:advise", flops, spread=spread, **more)
    return facts


def _budget(arguments: Namespace) -> tuple[float, tuple[float, float]]:
    """FLOPs, and the range of what hours may give: a utilisation a quarter lower or higher."""
    given = [name for name in ("petaflops_days", "device_hours", "usd") if getattr(arguments, name)]
    if len(given) != 1:
        raise BadRequest(
            "One budget is needed.",
            wanted="--petaflops-days, --device-hours or --usd",
            found=", ".join(given) or "none",
            do="give one of them",
        )
    if arguments.petaflops_days:
        return arguments.petaflops_days * 8.64e19, (1.0, 1.0)
    device = call("genwright.catalogue.devices:device", arguments.device)
    peak = device.bf16_tflops or device.fp16_tflops
    if not peak or (arguments.usd and not device.usd_per_hour):
        raise BadRequest(
            f"The catalogue has no rate or no price of {device.title}.",
            wanted="a device with both",
            found=device.name,
            do="give --petaflops-days",
        )
    hours = arguments.device_hours or arguments.usd / device.usd_per_hour
    return hours * 3600 * peak * 1e12 * arguments.utilisation, (0.75, 1.25)


def _fit(arguments: Namespace) -> dict[str, Any]:
    law = call("genwright.plan.scaling:fit", _columns(arguments, ("parameters", "tokens", "loss")), draws=50)
    names = ("E", "A", "B", "alpha", "beta")
    return {
        "runs": law.source,
        **{name: getattr(law, name) for name in names},
        "errors": dict(zip(names, law.errors, strict=True)),
    }


def _enough(arguments: Namespace) -> dict[str, Any]:
    if arguments.target is None:
        raise BadRequest("Enough for what?", wanted="--target LOSS", found="none", do="say which loss is good enough")
    facts: dict[str, Any] = call(
        "genwright.plan.scaling:enough", _columns(arguments, ("parameters", "loss")), arguments.target
    )
    return facts


def _columns(arguments: Namespace, names: tuple[str, ...]) -> list[tuple[float, ...]]:
    if arguments.runs is None:
        raise BadRequest(
            "Which runs?", wanted="a CSV file", found="none", do=f"genwright scaling {arguments.action} runs.csv"
        )
    try:
        with arguments.runs.open(encoding="utf-8-sig", newline="") as stream:
            rows = [tuple(numbers.amount(row[name]) for name in names) for row in csv.DictReader(stream)]
    except (OSError, KeyError, TypeError, ValueError, ArgumentTypeError, csv.Error) as error:
        raise DataError(
            f"{arguments.runs} is not a table of runs.",
            wanted=f"columns {', '.join(names)}",
            found=str(error),
            do="add what is missing",
        ) from error
    if not rows:
        raise DataError(f"{arguments.runs} has no runs.", wanted="a row a run", found="none", do="add some")
    return rows


def _draw(console: Any, facts: dict[str, Any]) -> None:
    if "advice" not in facts:
        console.print(table(("what", "value"), [(name, _short(value)) for name, value in facts.items()], right=(1,)))
        return
    console.print(f"{facts['petaflops_days']:.4g} petaflop/s-days")
    names = ("law", "parameters", "parameters_range", "tokens", "tokens_range", "tokens_needed", "loss")
    rows = [tuple(_short(one.get(name)) for name in names) for one in facts["advice"]]
    titles = ("law", "parameters", "range", "tokens", "range", "still needed", "loss")
    console.print(table(titles, rows, right=(1, 2, 3, 4, 5, 6)))
    if any(one.get("extrapolates") for one in facts["advice"]):
        console.print("outside of the runs that the laws were fitted on: 70 M to 16 B parameters, 5 to 500 B tokens")
    if served := facts.get("with_serving"):
        answered, size, data = (_short(served[name]) for name in ("served_tokens", "parameters", "tokens"))
        console.print(f"with {answered} tokens served: {size} parameters, {data} tokens")


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
