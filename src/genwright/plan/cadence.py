"""How often to save: often enough that a failure costs little, seldom enough that nobody notices. No torch here.

a job of n machines fails n times as often as one:  M = M_node / n
loss per day at an interval t:                      86400 (delta / t + t / 2M)      saving, and work done again
"""

from __future__ import annotations

import math
from typing import Any

DEFAULT_MTBF_SECONDS = 4 * 3600.0
"""Mean time between interruptions that we assume where none is stated: a laptop that is closed twice a working day."""
NODE_MTBF_SECONDS = 5e4 * 3600 / 8
"""Of a machine of eight accelerators: Llama 3's 419 interruptions of 16,384 devices in 54 days (arXiv 2407.21783, section
3.3.4) are one in 50,700 device-hours."""
DISK_BYTES_PER_SECOND = 1e9
"""That one machine writes, where not stated."""
DAY = 86400.0


def interval_seconds(save_seconds: float, mtbf_seconds: float = DEFAULT_MTBF_SECONDS) -> float:
    """Tau = sqrt(2 delta M) - delta for delta < M / 2, else M   (Young 1974; Daly 2006).

    >>> round(interval_seconds(2.0, 3600.0))
    118
    """
    if save_seconds >= mtbf_seconds / 2:
        return mtbf_seconds
    return math.sqrt(2 * save_seconds * mtbf_seconds) - save_seconds


def young(save_seconds: float, mtbf_seconds: float) -> float:
    """Tau = sqrt(2 delta M): Young 1974."""
    return math.sqrt(2 * save_seconds * mtbf_seconds)


def daly(save_seconds: float, mtbf_seconds: float) -> float:
    """Tau = sqrt(2 delta M) (1 + sqrt(delta / 2M) / 3 + (delta / 2M) / 9) - delta for delta < 2M, else M: Daly 2006.

    >>> round(daly(30.0, 36000.0))
    1445
    """
    if save_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    part = save_seconds / (2 * mtbf_seconds)
    return math.sqrt(2 * save_seconds * mtbf_seconds) * (1 + math.sqrt(part) / 3 + part / 9) - save_seconds


def loss_per_day(interval: float, save_seconds: float, mtbf_seconds: float) -> float:
    """Seconds of a day that go to saving and to work done again: 86400 (delta / t + t / 2M), a day at most."""
    return min(DAY, DAY * (save_seconds / interval + interval / (2 * mtbf_seconds)))


def cadence(save_seconds: float, nodes: int, node_mtbf_seconds: float = NODE_MTBF_SECONDS) -> dict[str, Any]:
    """The interval of a whole job by both, and what a day loses at half of it, at it and at twice it."""
    mtbf = node_mtbf_seconds / max(1, nodes)
    best = daly(save_seconds, mtbf)
    lost = {
        name: loss_per_day(best * factor, save_seconds, mtbf)
        for name, factor in (("half", 0.5), ("at", 1.0), ("twice", 2.0))
    }
    return {
        "save_seconds": save_seconds,
        "job_mtbf_seconds": mtbf,
        "node_mtbf_seconds": node_mtbf_seconds,
        "young_seconds": young(save_seconds, mtbf),
        "daly_seconds": best,
        "lost_seconds_per_day": lost,
    }


def in_words(found: dict[str, Any]) -> str:
    """One line of what `cadence` found."""
    lost = found["lost_seconds_per_day"]
    return (
        f"checkpoints: {found['save_seconds']:.3g} s each and a failure every {found['job_mtbf_seconds'] / 3600:.3g} h: save every "
        f"{found['daly_seconds'] / 60:.3g} min (Daly; Young {found['young_seconds'] / 60:.3g}), "
        f"which loses {lost['at'] / 60:.3g} min a day; {lost['half'] / 60:.3g} at half of it, {lost['twice'] / 60:.3g} at twice"
    )
