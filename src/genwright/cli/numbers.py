"""Numbers as people type them after an option: what cannot be meant is refused there, with what was wanted and found.

`float` reads "nan", `int` a number of a thousand digits, and both read "-1" where a count is asked: a plan for minus one
device would then be printed in all seriousness.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable

MOST = 10**12
"""Of anything that is counted here: rows, steps, devices, tokens of a row."""


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, least=1)


def count_or_none(text: str) -> int:
    """A whole number, where 0 has a meaning of its own."""
    return _whole(text, least=0)


def amount(text: str) -> float:
    """A number above 0: money, power, time."""
    return _real(text, "a number above 0", lambda value: value > 0)


def amount_or_none(text: str) -> float:
    """A number from 0 on."""
    return _real(text, "a number of at least 0", lambda value: value >= 0)


def share(text: str) -> float:
    """A part of a whole: above 0, at most 1."""
    return _real(text, "a number above 0, at most 1", lambda value: 0 < value <= 1)


def percentage(text: str) -> float:
    """From 0 to 100."""
    return _real(text, "a number from 0 to 100", lambda value: 0 <= value <= 100)


def _whole(text: str, *, least: int) -> int:
    wanted = f"a whole number from {least} to {MOST:,}"
    try:
        value = int(text)
    except ValueError:
        raise _wrong(wanted, text) from None
    if not least <= value <= MOST:
        raise _wrong(wanted, text)
    return value


def _real(text: str, wanted: str, meant: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _wrong(wanted, text) from None
    if not math.isfinite(value) or not meant(value):
        raise _wrong(wanted, text)
    return value


def _wrong(wanted: str, text: str) -> ArgumentTypeError:
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    return ArgumentTypeError(f"wanted {wanted}, found {shown!r}")
