"""Traffic that was seen: profiles, lengths and their distributions, rate and burstiness; and replays of it as a load.

From a CSV of requests (timestamp, prompt tokens, generated tokens) or from the meter's records. The planner takes `as_trace`: what
was asked when, and how long it and its answer were.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genwright.base.errors import DataError
from genwright.serve.profiler import nearest, scored

QUANTILES = (25, 50, 75, 90, 95, 99)
NAMES = (
    ("timestamp", "time", "began"), ("contexttokens", "prompt", "prompt_tokens"),
    ("generatedtokens", "generated", "generated_tokens", "output_tokens"),
)  # fmt: skip
"""Of the three columns, in lower case; the first ones are those of the Azure traces."""


@dataclass(frozen=True)
class Seen:
    """One request."""

    at: float
    """Seconds, from any beginning."""
    prompt: int
    generated: int
    profile: str = ""


def read_trace(path: Path) -> list[Seen]:
    """Requests of a CSV, in order of time. Errors: DataError with the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            places = _places(path, next(reader, []))
            rows = [_row(path, number, row, places) for number, row in enumerate(reader, 2) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read.", found=str(error)) from None
    if not rows:
        raise DataError(f"{path.name} has no requests.", wanted="a row for each")
    return sorted(rows, key=lambda one: one.at)


def _places(path: Path, names: Sequence[str]) -> list[int]:
    lower = [name.strip().lower() for name in names]
    found = [next((lower.index(name) for name in wanted if name in lower), -1) for wanted in NAMES]
    if -1 in found:
        raise DataError(
            f"{path.name} is no trace of requests.", wanted="columns timestamp, prompt, generated", found=", ".join(names) or "nothing"
        )  # fmt: skip
    return found


def _row(path: Path, number: int, row: Sequence[str], places: Sequence[int]) -> Seen:
    try:
        stamp, prompt, generated = (row[place].strip() for place in places)
        return Seen(_seconds(stamp), _count(prompt), _count(generated))
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{path.name}, line {number} is no request.", wanted="a time and two whole numbers", found=str(error)
        ) from None


def _count(text: str) -> int:
    if int(text) < 0:
        raise ValueError(f"{text} tokens")
    return int(text)


def _seconds(stamp: str) -> float:
    """A number of seconds, or a date and time; UTC where it names no zone."""
    try:
        value = float(stamp)
    except ValueError:
        date = datetime.fromisoformat(stamp[:26])
        value = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise ValueError(f"the time {stamp}")
    return value


def of_records(records: Sequence[dict[str, Any]]) -> list[Seen]:
    """The meter's finished requests."""
    return [
        Seen(one["began"], one["prompt_tokens"], one["generated_tokens"], one.get("profile") or "")
        for one in records if one.get("outcome", "done") == "done" and one.get("kind") != "embedding"
    ]  # fmt: skip


def describe(seen: Sequence[Seen], records: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Everything `genwright traffic` tells."""
    told: dict[str, Any] = {
        "requests": len(seen), "seconds": seen[-1].at - seen[0].at, **rate_and_lengths(seen), "arrivals_cv": arrivals_cv(seen),
        "profiles": dict(Counter(one.profile or nearest(one.prompt, one.generated) for one in seen).most_common()),
        "fits": {
            "prompt_tokens": lognormal_fit([one.prompt for one in seen]), "output_tokens": lognormal_fit([one.generated for one in seen]),
        },
    }  # fmt: skip
    return told | ({"predictions": scored(records)} if records else {})


def rate_and_lengths(seen: Sequence[Seen]) -> dict[str, Any]:
    """{"rate_per_s", "prompt_tokens": {"p25": ...}, "output_tokens": {...}}."""
    seconds = seen[-1].at - seen[0].at
    return {
        "rate_per_s": len(seen) / seconds if seconds > 0 else 0.0,
        "prompt_tokens": quantiles([one.prompt for one in seen]), "output_tokens": quantiles([one.generated for one in seen]),
    }  # fmt: skip


def as_trace(seen: Sequence[Seen]) -> str:
    """A CSV with the Azure traces' columns, which `genwright estimate MODEL --serve FILE` and `read_trace` take: times and counts alone."""
    rows = [f"{datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M:%S.%f},{one.prompt},{one.generated}" for one in seen]
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""])


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """Nearest rank."""
    ordered = sorted(values)
    return {f"p{share}": ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] for share in QUANTILES}


def lognormal_fit(values: Sequence[int]) -> dict[str, Any]:
    """By maximum likelihood over lengths of at least 1, with the Kolmogorov-Smirnov distance to what was seen.

    `good`: the distance is below 1.36 / sqrt(n), the 5 % bound of a distribution that was not fitted; else use the quantiles.
    """
    logs = np.log(np.array([value for value in values if value > 0] or [1], np.float64))
    mean, spread = float(logs.mean()), float(logs.std())
    distance = kolmogorov(logs, mean, spread)
    return {
        "median": math.exp(mean), "sigma": spread, "ks": distance, "good": distance < 1.36 / math.sqrt(len(logs)), "requests": len(logs),
        "zero": len(values) - len(logs) if len(values) else 0,
    }  # fmt: skip


def kolmogorov(logs: npt.NDArray[np.float64], mean: float, spread: float) -> float:
    """Largest distance of the empirical distribution to a normal one; equal values count together."""
    if spread == 0:
        return 1.0
    places, counts = np.unique(logs, return_counts=True)
    after = np.cumsum(counts) / len(logs)
    normal = np.array([0.5 * math.erfc(-(place - mean) / (spread * math.sqrt(2))) for place in places])
    return float(np.maximum(np.abs(after - normal), np.abs(after - counts / len(logs) - normal)).max())


def arrivals_cv(seen: Sequence[Seen]) -> float | None:
    """Spread of the times between requests over their mean: 1 for independent callers, more for bursts."""
    gaps = np.diff([one.at for one in seen])
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else None


def replay(
    seen: Sequence[Seen], *, rate_per_s: float, seconds: float, shrink: float = 1.0, most_prompt: int = 2048, most_output: int = 512
) -> Iterator[Seen]:  # fmt: skip
    """The trace as a load: stretched in time to the asked rate, over and over until `seconds` are full; bursts stay bursts.

    Lengths are divided by `shrink` and cut at what the machine takes. `at` counts from 0.
    """
    own = rate_and_lengths(seen)["rate_per_s"]
    if not seen or own <= 0 or rate_per_s <= 0 or shrink <= 0:
        raise DataError("This trace cannot be replayed.", wanted="two requests at different times, and a rate above 0")
    stretch, begin = own / rate_per_s, seen[0].at
    length = (seen[-1].at - begin) * stretch + 1 / rate_per_s
    lap = 0
    while lap * length < seconds:
        for one in seen:
            at = lap * length + (one.at - begin) * stretch
            if at >= seconds:
                return
            prompt, output = (max(1, round(value / shrink)) for value in (one.prompt, one.generated))
            yield Seen(at, min(prompt, most_prompt), min(output, most_output), one.profile)
        lap += 1
