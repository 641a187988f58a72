"""How often to save: often enough that a failure costs little, seldom enough that nobody notices. No torch here."""

from __future__ import annotations

import math

DEFAULT_MTBF_SECONDS = 4 * 3600.0
"""Mean time between interruptions that we assume where none is stated: a laptop that is closed twice a working day."""


def interval_seconds(save_seconds: float, mtbf_seconds: float = DEFAULT_MTBF_SECONDS) -> float:
    """Tau = sqrt(2 delta M) - delta for delta < M / 2, else M   (Young 1974; Daly 2006).

    >>> round(interval_seconds(2.0, 3600.0))
    118
    """
    if save_seconds >= mtbf_seconds / 2:
        return mtbf_seconds
    return math.sqrt(2 * save_seconds * mtbf_seconds) - save_seconds
