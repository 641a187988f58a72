"""What is asked of the server: profiles, lengths, rate and bursts, how predictions came true; and a trace for the planner.

Of what `genwright serve` metered in this project, or of a CSV with the columns timestamp, prompt, generated.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError
from genwright.cli import numbers
from genwright.cli.rooms import call, project_folder
from genwright.cli.terminal import Terminal, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("trace", metavar="CSV", nargs="?", help="a trace of requests instead of this project's meter")
    parser.add_argument(
        "--days", type=numbers.amount, default=30.0, metavar="N", help="of the meter's last N days (default: 30)"
    )
    parser.add_argument(
        "--out", metavar="CSV", help="write times and lengths, for the planner: `genwright estimate MODEL --serve CSV`"
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Tell, and write."""
    records: list[dict[str, Any]] = []
    if arguments.trace:
        seen = call("genwright.serve.traffic:read_trace", Path(arguments.trace))
    else:
        folder = project_folder(arguments) / ".genwright" / "serve"
        records = call("genwright.serve.meter:read_records", folder, time.time() - 86_400 * arguments.days, 100_000)
        seen = call("genwright.serve.traffic:of_records", records)
    if not seen:
        raise DataError("No request was finished in this time.", do="--days N looks further back")
    told = call("genwright.serve.traffic:describe", seen, records)
    if arguments.out:
        trace = call("genwright.serve.traffic:as_trace", seen)
        call("genwright.base.files:write_atomic", Path(arguments.out), trace)
    terminal.answer(told, lambda console: _draw(console, told))
    return 0


def _draw(console: Any, told: dict[str, Any]) -> None:
    bursts = (
        "" if told["arrivals_cv"] is None else f", times between them vary by {told['arrivals_cv']:.2f} of their mean"
    )
    console.print(f"{told['requests']} requests, {told['rate_per_s']:.3g} a second{bursts}")
    shares = list(told["prompt_tokens"])
    rows = [(name, *(str(told[key][share]) for share in shares), _fit(told["fits"][key]))
            for name, key in (("prompt", "prompt_tokens"), ("output", "output_tokens"))]  # fmt: skip
    console.print(table(("tokens", *shares, "lognormal"), rows, right=tuple(range(1, len(shares) + 1))))
    console.print(
        table(("profile", "requests"), [(name, str(count)) for name, count in told["profiles"].items()], right=(1,))
    )
    for name, value in told.get("predictions", {}).items():
        console.print(f"{name.replace('_', ' ')}: {value:.3g}")


def _fit(fit: dict[str, Any]) -> str:
    return f"median {fit['median']:.0f}, sigma {fit['sigma']:.2f}, KS {fit['ks']:.3f}" + (
        "" if fit["good"] else ": use the quantiles"
    )
