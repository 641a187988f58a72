"""The one rule by which every side is timed. Standard library only: peers import it from their own environments.

A side calls `tick` after each finished optimiser step. The first WARMUP steps are not counted (first-touch memory,
primitive caches), neither their seconds nor their tokens. Loading, tokenising and saving lie outside; collating, the
optimizer, the schedule, clipping and each side's own bookkeeping lie inside.
"""

from __future__ import annotations

import resource
import time
from typing import Any

WARMUP = 1
"""Steps at the start that are not counted. The clock starts when the last of them ends."""


class StepClock:
    """Wall and processor seconds at the end of every optimiser step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def tick(self) -> None:
        """One more step is done."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def measured(self, learned: list[int], tokens: list[int], computed: list[int]) -> dict[str, Any]:
        """What one run reports, given per step: tokens learned, real tokens, and tokens computed (with padding)."""
        steps = len(self.wall)
        if steps <= WARMUP:
            raise SystemExit(f"{steps} steps are too few to time: the first {WARMUP} are not counted")
        learned, tokens, computed = learned[:steps], tokens[:steps], computed[:steps]
        seconds = self.wall[-1] - self.wall[WARMUP - 1]
        return {
            "steps": steps,
            "warmup_steps": WARMUP,
            "learned_tokens": sum(learned[WARMUP:]),
            "tokens": sum(tokens[WARMUP:]),
            "computed_tokens": sum(computed[WARMUP:]),
            "learned_tokens_with_warmup": sum(learned),
            "seconds": seconds,
            "cpu_seconds": self.cpu[-1] - self.cpu[WARMUP - 1],
            "learned_tokens_per_second": sum(learned[WARMUP:]) / seconds,
            "step_seconds": [round(after - before, 4) for before, after in zip(self.wall, self.wall[1:])],
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
