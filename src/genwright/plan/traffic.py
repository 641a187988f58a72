"""Serving for an application: its lengths and rates, the batch that is worth it, what a thousand tokens cost. No torch here.

A device answers a batch in rounds: it reads prompts and writes tokens in turn, so a request of (input, output) tokens takes
prefill + output * token seconds of a batch's time. The rate a machine keeps up is batch / that; a queue grows as the asked
rate comes near it, so `devices_for` fills machines only to a share.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError
from genwright.catalogue.device_names import Placed
from genwright.catalogue.profiles import Profile
from genwright.plan.priced.energy import serving_joules
from genwright.plan.serving import Server, ServingSetup, decode_seconds, max_batch, prefill_seconds, server

FILLED = 0.7
"""Share of the rate it keeps up that a machine is planned for."""
SHARES = (50, 90, 99)
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""Of a trace, in order: when, tokens of the prompt, tokens of the answer."""


@dataclass(frozen=True)
class Traffic:
    """Lengths of requests in tokens, and how many come in a second."""

    inputs: tuple[int, ...]
    """p50, p90, p99 of prompts."""
    outputs: tuple[int, ...]
    """The same of answers."""
    mean: tuple[float, float]
    """Of prompts and of answers."""
    per_second: float = 0.0
    """0: not stated."""


@dataclass(frozen=True)
class Point:
    """One batch size."""

    batch: int
    first_token_seconds: float
    """Of a typical prompt, read alone while the others wait."""
    token_seconds: float
    """Of each further token of every row."""
    tokens_per_second: float
    """Written, prompts' time counted."""
    requests_per_second: float
    """That a machine keeps up."""
    joules_per_token: float | None
    usd_per_1k_tokens: float | None


def of_profile(profile: Profile, per_second: float = 0.0) -> Traffic:
    """A catalogue's profile: its percentiles where measured, else its typical lengths at every share."""
    inputs = _shares(profile.input_percentiles, profile.input_tokens)
    outputs = _shares(profile.output_percentiles, profile.output_tokens)
    return Traffic(inputs, outputs, (_mean(inputs), _mean(outputs)), per_second)


def _shares(table: dict[str, int] | None, typical: int) -> tuple[int, ...]:
    return tuple((table or {}).get(f"p{share}", typical) for share in SHARES)


def of_trace(path: Path) -> Traffic:
    """A CSV of requests with TIMESTAMP, ContextTokens, GeneratedTokens, as the Azure traces are. Errors: DataError naming the row."""
    rows = _requests(path)
    inputs, outputs = sorted(read for _, read, _ in rows), sorted(written for _, _, written in rows)
    at = lambda values: tuple(
        values[min(len(values) - 1, math.ceil(share / 100 * len(values)) - 1)] for share in SHARES
    )
    seconds = max(when for when, *_ in rows) - min(when for when, *_ in rows)
    return Traffic(
        at(inputs),
        at(outputs),
        (sum(inputs) / len(rows), sum(outputs) / len(rows)),
        len(rows) / seconds if seconds > 0 else 0.0,
    )


def _requests(path: Path) -> list[tuple[float, int, int]]:
    """(second, prompt tokens, answer tokens) of each row. Errors: DataError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read.", wanted="a profile's name, or a CSV file of requests", found=str(error),
            do="correct the name; `genwright estimate MODEL --serve chatbot` needs no file",
        ) from error  # fmt: skip
    if not rows or any(name not in rows[0] for name in COLUMNS):
        raise DataError(
            f"{path.name} is no trace of requests.",
            wanted=", ".join(COLUMNS),
            found=", ".join(rows[0]) if rows else "no rows",
            do="name the columns so",
        )
    return [_request(path, line, row) for line, row in enumerate(rows, start=2)]


def _request(path: Path, line: int, row: dict[str, Any]) -> tuple[float, int, int]:
    stamp, read, written = (row[name] for name in COLUMNS)
    try:
        found = _clock(stamp), int(read), int(written)
    except (TypeError, ValueError, AttributeError):
        found = (0.0, 0, 0)
    if found[1] < 1 or found[2] < 0:
        raise DataError(
            f"{path.name}, line {line} is no request.",
            wanted="a time such as 2023-11-16 18:15:46, a whole number from 1, and one from 0",
            found=f"{stamp}, {read}, {written}",
            do="correct or remove the row",
        )
    return found


def curve(
    setup: ServingSetup, device: str | Placed, traffic: Traffic, *, usd_per_hour: float | None = None
) -> list[Point]:
    """Throughput against batch: 1, 2, 4, ... up to what fits at the 90th percentile of lengths."""
    typical = replace(setup, input_tokens=max(1, round(traffic.mean[0])), output_tokens=max(1, round(traffic.mean[1])))
    longest = server(replace(setup, input_tokens=traffic.inputs[1], output_tokens=traffic.outputs[1]), device)
    price = usd_per_hour if usd_per_hour is not None else longest.placed.device.usd_per_hour
    return [_point(server(replace(typical, batch=batch), device), price) for batch in _batches(max_batch(longest))]


def best(points: Sequence[Point], *, first_token: float = math.inf, token: float = math.inf) -> Point | None:
    """The most requests a second within both limits; None where no batch keeps them."""
    inside = [point for point in points if point.first_token_seconds <= first_token and point.token_seconds <= token]
    return max(inside, key=lambda point: point.requests_per_second, default=None)


def devices_for(point: Point, traffic: Traffic, each: int) -> int:
    """Devices, `each` to a machine, that carry the traffic at `FILLED` of what they can."""
    return each * max(1, math.ceil(traffic.per_second / (FILLED * point.requests_per_second)))


def _point(one: Server, price: float | None) -> Point:
    setup = one.setup
    alone = server(replace(setup, batch=1), one.placed)
    first, token = prefill_seconds(alone), decode_seconds(one)
    spent = first * setup.batch + token * setup.output_tokens
    written = setup.batch * setup.output_tokens / spent
    joules = serving_joules(one, first * setup.batch, token)
    usd = None if price is None else 1000 / written * setup.count * price / 3600
    return Point(setup.batch, first, token, written, setup.batch / spent, joules, usd)


def _batches(most: int) -> Iterator[int]:
    batch = 1
    while batch <= min(most, 1024):
        yield batch
        batch *= 2


def _mean(values: Sequence[int]) -> float:
    """Of a long-tailed distribution known by p50, p90, p99: a half, four tenths, a tenth of the mass near each."""
    return 0.6 * values[0] + 0.3 * values[1] + 0.1 * values[2]


def _clock(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp.strip()[:26]).timestamp()
