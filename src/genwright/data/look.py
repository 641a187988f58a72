"""What a model would see of the rows, before anything is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genwright.base.errors import DataError
from genwright.data.formats import Row
from genwright.data.pack import fill, pack
from genwright.data.templates import Encoded, encode_rows, ending_tokens

SMALL_SHARE = 0.05
"""Below this share of learned tokens most of the work is spent on prompts: worth a word."""


@dataclass(frozen=True)
class Look:
    """Lengths are in tokens, after truncation where not said otherwise; shares are fractions."""

    format: str
    rows: int
    sample: list[tuple[str, bool]]
    """The first row as the model reads it: runs of text, and whether they are learned."""
    learned_share: float
    longest_tokens: int
    """Before truncation."""
    lengths: dict[str, int]
    """p50, p95 and max, before truncation."""
    truncated_rows: int
    truncated_tokens: int
    packing_fill: float
    """How full packs of `capacity` tokens are, if all rows are packed together."""
    double_bos: int
    """Rows that begin with two BOS tokens."""
    missing_eos: int
    """Rows whose last learned token is no end-of-turn: it would not learn to stop. Truncated rows are not counted."""
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"sample": [list(piece) for piece in self.sample]}


def look(rows: Sequence[Row], tokenizer: Any, *, max_tokens: int, capacity: int, format: str = "") -> Look:
    """Encode every row and count. format: what the file was recognised as; else the rows' kinds are said.

    Errors: DataError for no rows, or as `encode_rows`.
    """
    if not rows:
        raise DataError("There are no rows to look at.", wanted="at least one row")
    encoded = encode_rows(rows, tokenizer, max_tokens=max_tokens)
    kept = [len(row.input_ids) for row in encoded]
    whole = sorted(length + row.truncated for length, row in zip(kept, encoded))
    seen = Look(
        format=format or ", ".join(sorted({row.kind for row in rows})),
        rows=len(rows),
        sample=pieces(encoded[0], tokenizer),
        learned_share=sum(sum(row.learned) for row in encoded) / sum(kept),
        longest_tokens=whole[-1],
        lengths={"p50": quantile(whole, 0.5), "p95": quantile(whole, 0.95), "max": whole[-1]},
        truncated_rows=sum(row.truncated > 0 for row in encoded),
        truncated_tokens=sum(row.truncated for row in encoded),
        packing_fill=fill(pack(kept, capacity), kept, capacity),
        double_bos=sum(has_double_bos(row, tokenizer) for row in encoded),
        missing_eos=_missing_ends(encoded, tokenizer),
        warnings=[],
    )
    seen.warnings.extend(in_words(seen, max_tokens))
    return seen


def pieces(row: Encoded, tokenizer: Any) -> list[tuple[str, bool]]:
    """A row as text, cut wherever learned turns to not learned or back. The pieces together are the decoded row."""
    cuts = [
        0,
        *(place for place in range(1, len(row.learned)) if row.learned[place] != row.learned[place - 1]),
        len(row.learned),
    ]
    texts = [tokenizer.decode(row.input_ids[:cut], clean_up_tokenization_spaces=False) for cut in cuts]
    return [(after[len(before) :], row.learned[cut]) for before, after, cut in zip(texts, texts[1:], cuts)]


def quantile(ordered: Sequence[int], fraction: float) -> int:
    """The smallest value with at least this fraction of the values at or below it."""
    return ordered[max(0, -int(-fraction * len(ordered) // 1) - 1)]


def has_double_bos(row: Encoded, tokenizer: Any) -> bool:
    """Whether a row begins with two BOS tokens: the rows' own text has one besides the template's."""
    return tokenizer.bos_token_id is not None and row.input_ids[:2] == [tokenizer.bos_token_id] * 2


def _missing_ends(encoded: Sequence[Encoded], tokenizer: Any) -> int:
    endings = ending_tokens(tokenizer)
    lasts = (
        row.input_ids[max(place for place, learned in enumerate(row.learned) if learned)]
        for row in encoded
        if not row.truncated
    )
    return sum(last not in endings for last in lasts)


def in_words(seen: Look, max_tokens: int) -> list[str]:
    """What a person should know before training on these rows."""
    told = {
        f"{seen.truncated_rows} rows are longer than {max_tokens} tokens and lose {seen.truncated_tokens} tokens "
        "at their ends, the end-of-turn among them: raise adapt.max_tokens or shorten them.": seen.truncated_rows,
        f"{seen.double_bos} rows begin with two BOS tokens: take the BOS out of the rows' texts.": seen.double_bos,
        f"{seen.missing_eos} rows do not end with an end-of-turn token, so the model would not learn to stop: "
        "the chat template or the tokenizer has none.": seen.missing_eos,
        f"Only {100 * seen.learned_share:.1f} % of the tokens are learned; the rest is prompt.": seen.learned_share
        < SMALL_SHARE,
        "Of preference rows the chosen answers are shown.": "preference" in seen.format or "chosen" in seen.format,
    }
    return [text for text, holds in told.items() if holds]
