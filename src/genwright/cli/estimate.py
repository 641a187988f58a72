"""Size a model and a method without a project: memory, time, energy and money, each with a range.

MODEL is a name as people write it (llama-3.1-8b), a hub id, a folder or a config.json: no weights are needed. With --device
the plan is for that part of the catalogue; without, for this machine, from the very step that `apply` would run.
--budget lists the recipes that fit, cheapest first. --rows prices a table of published measurements, one prediction a row.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.cli import draw, estimate_search, estimate_serving, numbers
from genwright.cli.rooms import call
from genwright.cli.terminal import Terminal, heading, table


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="what to size")
    parser.add_argument("--adapter", default="lora", help="how it is adapted (default: lora)")
    parser.add_argument("--objective", default="instruction", help="what is learned (default: instruction)")
    parser.add_argument(
        "--rank",
        type=numbers.count,
        default=0,
        metavar="N",
        help="of a low-rank adapter (default: the framework's, 16)",
    )
    parser.add_argument(
        "--seq-len", type=numbers.count, default=1024, metavar="N", help="tokens of a row (default: 1024)"
    )
    parser.add_argument("--steps", type=numbers.count, default=100, metavar="N", help="optimiser steps (default: 100)")
    parser.add_argument(
        "--precision", default="auto", help="numbers to compute in: bf16, fp16, fp32, bf16-true (default: auto)"
    )
    _device_options(parser.add_argument_group("for a device of the catalogue"))
    estimate_search.options(parser.add_argument_group("for a budget"))
    estimate_serving.options(parser.add_argument_group("for serving"))
    here = parser.add_argument_group("for this machine")
    here.add_argument(
        "--batch-size",
        type=numbers.count_or_none,
        default=0,
        metavar="N",
        help="rows of a step over all devices (default here: 8)",
    )
    here.add_argument("--watts", type=numbers.amount_or_none, help="power under load, for the energy")
    here.add_argument(
        "--usd-per-hour", type=numbers.amount_or_none, metavar="USD", help="price of the machine, for the money"
    )
    rows = parser.add_argument_group("for a table")
    rows.add_argument("--rows", metavar="FILE", type=Path, help="price every row of a CSV file of measurements")
    rows.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("predictions.csv"),
        help="where its predictions go (default: predictions.csv)",
    )


def _device_options(group: Any) -> None:
    group.add_argument("--device", help="a name as people write it, such as h100 or 'A100 80GB'")
    group.add_argument("--count", type=numbers.count, default=1, metavar="N", help="devices (default: 1)")
    group.add_argument(
        "--micro-batch", type=numbers.count, default=1, metavar="N", help="rows a device works on at once (default: 1)"
    )
    group.add_argument(
        "--accumulate", type=numbers.count, default=1, metavar="N", help="microbatches of a step (default: 1)"
    )
    group.add_argument(
        "--lengths",
        metavar="P50,P95,MAX",
        type=_lengths,
        default=(),
        help="tokens of rows, where known; MAX is then --seq-len",
    )
    group.add_argument("--optimizer", default="", help="adamw, adamw-8bit, sgd, ... (default: the framework's)")
    group.add_argument(
        "--strategy",
        default="",
        help="single, ddp, zero1, zero2, zero3, hybrid; auto: the fastest that fits (default: single, zero3 on more)",
    )
    group.add_argument("--recompute", default="", help="none, full, selective (default: the framework's)")
    group.add_argument("--attention", default="", help="eager, sdpa, flash (default: the framework's)")
    group.add_argument("--base", default="", help="of a frozen base: int8, int4, nf4, nf4-double")
    group.add_argument(
        "--tensor-degree",
        type=numbers.count,
        default=1,
        metavar="N",
        help="devices that split each product (default: 1)",
    )
    group.add_argument(
        "--pipeline-degree",
        type=numbers.count,
        default=1,
        metavar="N",
        help="devices that hold different layers (default: 1)",
    )
    group.add_argument(
        "--sharding-factor",
        type=numbers.count_or_none,
        default=0,
        metavar="N",
        help="devices that hold one copy (default: all)",
    )
    group.add_argument("--compile", action="store_true", help="the model is fused by torch.compile")
    group.add_argument("--offload", action="store_true", help="weights and state wait in the host's memory")
    group.add_argument("--framework", default="genwright", help="whose step it is (default: genwright)")
    group.add_argument(
        "--calibration",
        metavar="FILE",
        type=Path,
        help="of `genwright calibrate`, made on such a device, or a folder of them (default: the cache's, if any)",
    )
    group.add_argument("--region", default="world", help="where it runs, for the carbon (default: world)")


def _lengths(text: str) -> tuple[int, ...]:
    """Three whole numbers that rise. Errors: ArgumentTypeError."""
    parts = text.split(",")
    found = tuple(int(part) for part in parts if part.strip().isdecimal())
    if len(found) != 3 or len(parts) != 3 or sorted(found) != list(found) or found[0] < 1:
        raise ArgumentTypeError(f"wanted three rising whole numbers, such as 120,480,1024, found {text!r}")
    return found


PROCESSES = 2
"""That price a table: each keeps about half a GiB."""
NAMES = ("adapter", "objective", "rank", "seq_len", "batch_size", "steps", "precision", "watts", "usd_per_hour")
"""The options that `estimate_model` takes under the same name."""
SETUP = (
    "adapter",
    "objective",
    "rank",
    "seq_len",
    "lengths",
    "precision",
    "count",
    "micro_batch",
    "accumulate",
    "optimizer",
    "strategy",
    "recompute",
    "attention",
    "base",
    "tensor_degree",
    "pipeline_degree",
    "sharding_factor",
    "compile",
    "offload",
    "framework",
)
"""The options that a Setup takes under the same name."""


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Print the estimate."""
    if arguments.rows:
        return _rows(arguments, terminal)
    if arguments.serve:
        return estimate_serving.run(arguments, terminal)
    if not arguments.model:
        raise BadRequest(
            "Nothing to size.", wanted="MODEL, or --rows FILE", do="genwright estimate llama-3.1-8b --device h100"
        )
    if arguments.budget:
        return estimate_search.run(arguments, terminal, _wanted(arguments), _cache())
    if arguments.device:
        return _on_device(arguments, terminal)
    wanted = {name: getattr(arguments, name) for name in NAMES} | {"batch_size": arguments.batch_size or 8}
    facts = call("genwright.outlook:estimate_model", arguments.model, base=Path(arguments.project), **wanted)
    terminal.answer(facts, lambda console: _draw(console, arguments, facts))
    return 0


def _rows(arguments: Namespace, terminal: Terminal) -> int:
    counts = call(
        "genwright.plan.published.rows:predict_file", arguments.rows, arguments.out, cache=_cache(), processes=PROCESSES
    )
    facts = {**counts, "out": str(arguments.out)}
    said = f"{counts['predicted']} of {counts['rows']} rows priced, {counts['refused']} refused: {arguments.out}"
    terminal.answer(facts, lambda console: console.print(said))
    return 0


def _on_device(arguments: Namespace, terminal: Terminal) -> int:
    facts = call(
        "genwright.plan.sheet:sheet",
        arguments.model,
        arguments.device,
        _wanted(arguments),
        steps=arguments.steps,
        cache=_cache(),
        region=arguments.region,
        usd_per_hour=arguments.usd_per_hour,
        calibration=arguments.calibration,
        kept=_calibrations(),
        rows=arguments.batch_size,
    )
    terminal.answer(facts, lambda console: _draw_sheet(console, facts))
    return 0


def _wanted(arguments: Namespace) -> dict[str, Any]:
    """Fields of a Setup."""
    wanted = {name: getattr(arguments, name) for name in SETUP}
    if arguments.lengths:
        wanted["seq_len"] = arguments.lengths[-1]
    return wanted | {"precision": "" if wanted["precision"] == "auto" else wanted["precision"]}


def _cache() -> Path:
    """Where traces are kept: in $GENWRIGHT_CACHE, or ~/.cache/genwright."""
    return Path(os.environ.get("GENWRIGHT_CACHE") or Path.home() / ".cache" / "genwright") / "traces"


def _calibrations() -> Path | None:
    """Where `genwright calibrate` keeps its files; None before it was ever run."""
    folder = _cache().parent / "calibrations"
    return folder if folder.is_dir() else None


def _draw(console: Any, arguments: Namespace, facts: dict[str, Any]) -> None:
    draw.planned(console, f"{facts['model']}, {arguments.adapter}, on {facts['device']}", facts["planned"])


def _draw_sheet(console: Any, facts: dict[str, Any]) -> None:
    console.print(heading(f"{facts['model']}, {facts['setup']['adapter']}, on {facts['count']} x {facts['device']}"))
    shown = [
        (name, _short(value), f"{_short(facts['low'][name])} to {_short(facts['high'][name])}")
        for name, value in facts["values"].items()
    ]
    console.print(table(("what", "planned", "range"), shown, right=(1,)))
    draw.breakdown(console, facts["breakdown"])
    phases = ", ".join(
        f"{name.removesuffix('_bytes').replace('_', ' ')} {size / 2**30:.2f} GiB"
        for name, size in facts["bytes"].items()
    )
    console.print(f"phases, host and disk: {phases}")
    if price := facts["price"]:
        spread = f"{price['lowest']:g} to {price['highest']:g}"
        console.print(f"price: {price['usd_per_hour']:g} USD a device-hour ({spread}): {price['source']}")
    console.print(facts["checkpoint"]["text"])
    console.print(f"time is {facts['basis']}")
    for note in (*(f"{name}: {why}" for name, why in facts["unknown"].items()), *facts["notes"]):
        console.print(f"note: {note}")
    console.print("It fits." if facts["fits"] else "It does not fit.")


def _short(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
