"""What climbing has cost so far, kept through kills, and the moment at which a rung must stop."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genwright.base.files import write_atomic

JOULES_PER_KWH = 3.6e6
NOTED_EVERY = 1.0
"""Seconds between notes of what was spent: a kill loses no more of the account."""
LEDGER = "spent.json"


class OutOfBudget(Exception):
    """A rung was stopped in the middle, because going on would have cost more than is left."""


def cost(seconds: float | None, hardware: Any) -> dict[str, float]:
    """Wall time in the units of a budget; money and energy only where the project states price and watts."""
    if seconds is None:
        return {}
    known = {"hours": seconds / 3600}
    if hardware.usd_per_hour is not None:
        known["usd"] = seconds / 3600 * hardware.usd_per_hour
    if hardware.watts is not None:
        known["kwh"] = seconds * hardware.watts / JOULES_PER_KWH
    return known


def seconds_left(left: Mapping[str, float], hardware: Any) -> float:
    """The wall time after which the first of these budgets is spent; infinite without a budget.

    1 hour at 45 W is 0.045 kWh: with {"hours": 2, "kwh": 0.045} one hour is left.
    """
    an_hour = cost(3600.0, hardware)
    return min(
        (3600 * amount / an_hour[name] for name, amount in left.items() if an_hour.get(name, 0.0) > 0), default=math.inf
    )


def spent_seconds(folder: Path) -> float:
    """Wall time that a rung has taken in all processes so far."""
    try:
        return float(json.loads((folder / LEDGER).read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


class Meter:
    """Around a rung: adds its wall time to the rung's ledger every second, so that a kill does not make it free."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.before, self.start = folder, spent_seconds(folder), time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._note_on, daemon=True)

    @property
    def seconds(self) -> float:
        """In this process and those before it."""
        return self.before + time.monotonic() - self.start

    def __enter__(self) -> Meter:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._note()

    def _note_on(self) -> None:
        while not self._over.wait(NOTED_EVERY):
            self._note()

    def _note(self) -> None:
        write_atomic(self.folder / LEDGER, json.dumps({"seconds": self.seconds}))
