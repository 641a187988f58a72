"""How rows become what a step learns from: each objective names one of these layouts, each layout is one class.

A layout first makes tokens of the rows, once (`encode`), then lays a row out for a step (`item`), where chance may enter:
the generator it is given depends on the seed, the step and the row alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from genwright.base.errors import RecipeError
from genwright.catalogue.parts import LAYOUTS, OBJECTIVES
from genwright.data.collate import Batch, Item, collate_items, next_tokens
from genwright.data.formats import Row
from genwright.data.templates import Encoded, encode_rows, source_text

IGNORED = -100
"""A label that is not learned."""


@dataclass(frozen=True)
class Setting:
    """What a layout may ask: the objective's constants, the model's tokenizer and family, the labels of the data."""

    objective: Any
    tokenizer: Any
    family: str
    max_tokens: int
    labels: tuple[str, ...] = ()
    start_id: int | None = None
    """What an encoder-decoder's decoder begins with; none stated: the padding token, as T5 has it."""


class Layout(Protocol):
    """Built over a Setting; wrong settings are a RecipeError there, before anything is loaded."""

    families: ClassVar[tuple[str, ...]]
    """The families of models that can learn from it."""

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Rows as tokens. Errors: DataError."""
        ...

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """One row as one step sees it."""
        ...


@dataclass(frozen=True)
class Feed:
    """Encoded rows, and how a step takes from them."""

    encoded: Sequence[Encoded]
    layout: Layout
    pad_id: int
    device: str = "cpu"
    """Where its microbatches go."""
    packs: bool = True
    """Whether rows may be laid end to end for this model; an encoder-decoder and a pooled head want rows of their own."""

    def __len__(self) -> int:
        return len(self.encoded)

    def items(self, numbers: Sequence[int], *, seed: int, step: int) -> list[Item]:
        """The given rows as step `step` sees them."""
        return [self.layout.item(self.encoded[row], chance_of(seed, step, row)) for row in numbers]

    def batches(self, numbers: Sequence[int], *, seed: int, step: int, packing: bool, capacity: int) -> list[Batch]:
        """The microbatches of a step over these rows: a pure function of its arguments."""
        items = self.items(numbers, seed=seed, step=step)
        batches = collate_items(items, packing=packing and self.packs, capacity=capacity, pad_id=self.pad_id)
        return batches if self.device == "cpu" else [batch.to(self.device) for batch in batches]


def feed_of(rows: Sequence[Row], setting: Setting, pad_id: int) -> Feed:
    """Rows ready for an objective. Errors: RecipeError when the model or tokenizer cannot learn from them; DataError."""
    layout = layout_of(setting)
    pooled = setting.objective.head in ("classes", "score") and setting.family != "decoder"
    return Feed(layout.encode(rows), layout, pad_id, packs=setting.family != "encoder-decoder" and not pooled)


def plain_feed(encoded: Sequence[Encoded], pad_id: int = 0) -> Feed:
    """Rows that are tokens already, for next-token learning."""
    return Feed(encoded, Plain(Setting(None, None, "decoder", 0)), pad_id)


def families_that_learn(objective: str, wanted: Sequence[str]) -> list[str]:
    """Of the families wanted, those that can learn an objective ("": whatever their task names); all that can, if none."""
    if not objective:
        return list(wanted)
    able = LAYOUTS[OBJECTIVES[objective].layout].families
    return [family for family in wanted if family in able] or list(able)


def layout_of(setting: Setting) -> Layout:
    """The objective's layout. Errors: RecipeError for a family it is not for."""
    made = LAYOUTS[setting.objective.layout]
    if setting.family not in made.families:
        raise RecipeError(
            f"The objective {type(setting.objective).__name__} cannot be learned by this model.",
            wanted=f"a model of family {' or '.join(made.families)}", found=setting.family,
            do="choose another adapt.objective, or another model",
        )  # fmt: skip
    layout: Layout = made(setting)
    return layout


def chance_of(seed: int, step: int, row: int) -> np.random.Generator:
    """Philox keyed with seed and step, and advanced to the row: chance that needs no state to resume."""
    return np.random.Generator(
        np.random.Philox(key=np.array([seed % 2**64, step], dtype=np.uint64), counter=[0, 0, 0, row])
    )


@dataclass(frozen=True)
class Plain:
    """Texts and conversations for a decoder: learned tokens are predicted from those before them."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """By the chat template; see `templates.encode_rows`."""
        return encode_rows(rows, self.setting.tokenizer, max_tokens=self.setting.max_tokens)

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Chance plays no part."""
        return next_tokens(row)


@dataclass(frozen=True)
class Text(Plain):
    """Running text for a decoder. A text longer than the context is cut into pieces, each learned: nothing is lost."""

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Pieces of at most `max_tokens` tokens."""
        whole = encode_rows(rows, self.setting.tokenizer, max_tokens=1 << 60)
        return [piece for row in whole for piece in pieces_of(row, self.setting.max_tokens)]


def pieces_of(row: Encoded, max_tokens: int) -> list[Encoded]:
    """A row as rows of at most so many tokens; a last piece of one token, which could learn nothing, is left out."""
    starts = range(0, len(row.input_ids), max_tokens)
    cuts = [row.input_ids[start : start + max_tokens] for start in starts]
    return [
        replace(row, input_ids=ids, learned=[False] + [True] * (len(ids) - 1), row_key=f"{row.row_key}:{number}" if number else row.row_key)
        for number, ids in enumerate(cuts)
        if len(ids) > 1 or len(cuts) == 1
    ]  # fmt: skip


@dataclass(frozen=True)
class Answers(Plain):
    """Conversations: a decoder reads them whole; an encoder-decoder reads the prompt and writes the last answer."""

    families: ClassVar[tuple[str, ...]] = ("decoder", "encoder-decoder")

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError for an answer that does not fit."""
        if self.setting.family == "decoder":
            return super().encode(rows)
        return [self._source_and_target(row) for row in rows]

    def _source_and_target(self, row: Row) -> Encoded:
        messages, tokenizer = row.conversation, self.setting.tokenizer
        whole = (
            tokenizer(source_text(messages[:-1]))["input_ids"],
            tokenizer(text_target=str(messages[-1]["content"]))["input_ids"],
        )
        source, target = (list(side[: self.setting.max_tokens]) for side in whole)
        cut = sum(map(len, whole)) - len(source) - len(target)
        return Encoded(target, [True] * len(target), cut, row.key, source_ids=source)

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Of an encoder-decoder the target is shifted right behind the start token."""
        if not row.source_ids:
            return next_tokens(row)
        return replace(shifted_right(row.source_ids, row.input_ids, self.setting), columns=row.columns)


def shifted_right(source_ids: Sequence[int], target_ids: Sequence[int], setting: Setting) -> Item:
    """An encoder-decoder's row: the decoder reads start, y_1 ... y_{n-1} and predicts y_1 ... y_n."""
    start = setting.tokenizer.pad_token_id if setting.start_id is None else setting.start_id
    inputs = [start, *target_ids[:-1]]
    return Item(inputs, len(inputs), range(len(inputs)), target_ids, [0] * len(inputs), source_ids=source_ids)
