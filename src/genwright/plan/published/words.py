"""Numbers as tables write them: "2,048 tokens", "8K", "2 x 8", "4M tokens". No torch here."""

from __future__ import annotations

import re

THOUSANDS = {"k": 1024, "m": 1024**2}


def number(text: str | None, default: float = 0.0) -> float:
    """The first number of a text: "2,048 tokens" -> 2048."""
    match = re.search(r"\d[\d,]*(?:\.\d+)?", text or "")
    return float(match[0].replace(",", "")) if match else default


def length(text: str | None) -> int:
    """Tokens of a row.

    >>> length("8K"), length("2,048"), length("128k tokens"), length("")
    (8192, 2048, 131072, 0)
    """
    match = re.search(r"(\d[\d,]*(?:\.\d+)?)\s*([kKmM])?(?![a-z])", text or "")
    return int(float(match[1].replace(",", "")) * THOUSANDS.get((match[2] or "").casefold(), 1)) if match else 0


def devices(text: str | None, default: int = 1) -> int:
    """How many.

    >>> devices("2 x 8"), devices("64"), devices("4 nodes x 8"), devices("", 8)
    (16, 64, 32, 8)
    """
    match = re.search(r"(\d+)\s*(?:nodes?)?\s*[x×*]\s*(\d+)", text or "")
    return int(match[1]) * int(match[2]) if match else int(number(text, default)) or 1


def rows_of_a_step(text: str | None, tokens: int) -> int:
    """Rows of a batch, which is stated in rows or in tokens.

    >>> rows_of_a_step("1,024", 2048), rows_of_a_step("4M tokens", 4096), rows_of_a_step("0.5M", 1024), rows_of_a_step("65536 tokens", 2048)
    (1024, 1024, 512, 32)
    """
    said = (text or "").casefold()
    if re.search(r"tok|\d\s*m\b", said):
        return max(1, length(said) // max(1, tokens))
    return int(number(said))
