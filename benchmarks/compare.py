"""From the rounds' measurements to the result: pure functions, standard library only.

A round is {side: run}: "ours" and every peer, trained one after another. Ratios are ours over theirs in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

Run = dict[str, Any]
Round = dict[str, Run]

SAME = {
    "learned_tokens_with_warmup": "learned tokens",
    "steps": "optimiser steps",
    "trained_parameters": "trained weights",
}
"""What must be equal for a comparison to be one, by key of a run."""

TOLD_ONCE = ("settings", "versions")
"""Equal in all of a side's runs."""


def ratios(rounds: list[Round], side: str, value: Callable[[Run], float]) -> list[float]:
    """Ours over theirs, round by round."""
    return [value(round_["ours"]) / value(round_[side]) for round_ in rounds]


def tokens_per_second(run: Run) -> float:
    """Learned tokens per second of wall time."""
    return float(run["learned_tokens"] / run["seconds"])


def tokens_per_cpu_second(run: Run) -> float:
    """Learned tokens per second of processor time: hardly moved by what else the machine does."""
    return float(run["learned_tokens"] / run["cpu_seconds"])


def tokens_in_median_step(run: Run) -> float:
    """Learned tokens per second, had every step taken the median's time: not moved by single stalls."""
    steps = run["steps"] - run["warmup_steps"]
    return float(run["learned_tokens"] / steps / statistics.median(run["step_seconds"]))


def held_out_loss(run: Run) -> float:
    """Nats per learned token, from the independent judge."""
    return float(run["held_out"]["loss"])


def without(run: Run) -> Run:
    """A run without what is told once."""
    return {key: value for key, value in run.items() if key not in TOLD_ONCE}


def peer_result(rounds: list[Round], side: str) -> dict[str, Any]:
    """A peer's entry: the ratio (median, lowest, highest), two steadier ones, its loss, and all its runs."""
    runs = [round_[side] for round_ in rounds]
    wall = ratios(rounds, side, tokens_per_second)
    return {
        "ratio": statistics.median(wall),
        "ratio_low": min(wall),
        "ratio_high": max(wall),
        "ratio_of_median_steps": statistics.median(ratios(rounds, side, tokens_in_median_step)),
        "ratio_of_processor_time": statistics.median(ratios(rounds, side, tokens_per_cpu_second)),
        "loss": statistics.median(map(held_out_loss, runs)),
        "learned_tokens_per_second": statistics.median(map(tokens_per_second, runs)),
        "unequal": unequal(rounds, side),
        "documents_leak": runs[0]["documents_leak"],
        "settings": runs[0]["settings"],
        "versions": runs[0]["versions"],
        "runs": [without(run) for run in runs],
    }


def unequal(rounds: list[Round], side: str) -> list[str]:
    """Where a side did not do the same work as ours, as "learned tokens: ours 1930, theirs 1950"; hopefully empty."""
    found = []
    for round_ in rounds:
        for key, name in SAME.items():
            ours, theirs = round_["ours"][key], round_[side][key]
            if ours != theirs:
                found.append(f"{name}: ours {ours}, theirs {theirs}")
    return found


def our_result(rounds: list[Round]) -> dict[str, Any]:
    """The result's own figures: loss, speed, share of the floor, and all our runs."""
    runs = [round_["ours"] for round_ in rounds]
    return {
        "loss": statistics.median(map(held_out_loss, runs)),
        "floor_share": statistics.median(run["floor_share"] for run in runs),
        "learned_tokens_per_second": statistics.median(map(tokens_per_second, runs)),
        "ours": {"settings": runs[0]["settings"], "runs": [without(run) for run in runs]},
    }


def floor_share(run: Run, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Floor FLOPs over (matmul rate x seconds). Of the rates before and after, the faster: the stricter share."""
    rate = max(before["flops_per_second"], after["flops_per_second"])
    share = run["floor_flops"]["total"] / (rate * run["seconds"])
    return {"floor_share": share, "matmul": {"flops_per_second": rate, "before": before, "after": after}}


def table(found: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [
        f"{'':18}{'learned tok/s':>14}{'ratio':>8}{'lowest':>8}{'highest':>9}{'cpu time':>10}{'loss':>9}",
        f"{'genwright':18}{found['learned_tokens_per_second']:14.1f}{'':35}{found['loss']:9.4f}",
    ]
    for side, peer in found["peers"].items():
        spread = f"{peer['ratio']:8.2f}{peer['ratio_low']:8.2f}{peer['ratio_high']:9.2f}"
        figures = f"{peer['learned_tokens_per_second']:14.1f}{spread}{peer['ratio_of_processor_time']:10.2f}"
        lines.append(f"{side:18}{figures}{peer['loss']:9.4f}   {peer['options']['precision']}")
    share, before = 100 * found["floor_share"], found["untrained_loss"]
    lines.append(f"share of the FLOP floor {share:.1f} %, held-out loss before training {before:.4f}")
    lines += [f"NOT EQUAL: {side}: {what}" for side, peer in found["peers"].items() for what in peer["unequal"]]
    return "\n".join(lines)
