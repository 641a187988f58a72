"""How rows become what a step learns from: each objective names one of these layouts, each layout is one class.

A layout first makes tokens of the rows, once (`encode`), then lays a row out for a step (`item`), where chance may enter:
the generator it is given depends on the seed, the step and the row alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from genwright.base.errors import DataError, RecipeError
from genwright.catalogue.parts import LAYOUTS, OBJECTIVES
from genwright.data.collate import Batch, Item, collate_items, next_tokens
from genwright.data.formats import Row
from genwright.data.templates import Encoded, encode_prompt, encode_rows, source_text
from genwright.models.attention import Document

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
        return next_tokens(row) if not row.source_ids else shifted_right(row.source_ids, row.input_ids, self.setting)


def shifted_right(source_ids: Sequence[int], target_ids: Sequence[int], setting: Setting) -> Item:
    """An encoder-decoder's row: the decoder reads start, y_1 ... y_{n-1} and predicts y_1 ... y_n."""
    start = setting.tokenizer.pad_token_id if setting.start_id is None else setting.start_id
    inputs = [start, *target_ids[:-1]]
    return Item(inputs, len(inputs), range(len(inputs)), target_ids, [0] * len(inputs), source_ids=source_ids)


@dataclass(frozen=True)
class MaskedText:
    """Texts for an encoder, some tokens hidden anew each time: of those 80 % by the mask token, 10 % by a random one."""

    families: ClassVar[tuple[str, ...]] = ("encoder",)

    setting: Setting

    def __post_init__(self) -> None:
        if self.setting.tokenizer.mask_token_id is None:
            raise RecipeError(
                "The tokenizer has no mask token, which masked language modelling hides tokens with.",
                wanted="a tokenizer with a mask token, such as BERT's", found=type(self.setting.tokenizer).__name__,
                do="choose an encoder: `genwright models list`",
            )  # fmt: skip
        if self.setting.objective.whole_words and not self.setting.tokenizer.is_fast:
            raise RecipeError("Whole words can be told only by a fast tokenizer.", do="set whole_words = false")

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Pieces of at most `max_tokens`, each between the tokenizer's special tokens; `labels` number the words."""
        tokenizer, room = self.setting.tokenizer, self.setting.max_tokens - sum(map(len, self._around))
        encoded = []
        for row in rows:
            tokens = tokenizer(row.text, add_special_tokens=False, verbose=False)
            words = tokens.word_ids() if tokenizer.is_fast else list(range(len(tokens["input_ids"])))
            for start in range(0, len(tokens["input_ids"]), room):
                encoded.append(
                    self._piece(tokens["input_ids"][start : start + room], words[start : start + room], row.key)
                )
        return encoded

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text."""
        tokens = self.setting.tokenizer("a", return_special_tokens_mask=True)
        ids, special = list(tokens["input_ids"]), list(tokens["special_tokens_mask"])
        first = special.index(0)
        return ids[:first], [token for token, mark in zip(ids[first:], special[first:]) if mark]

    def _piece(self, ids: list[int], words: list[int | None], key: str) -> Encoded:
        before, after = self._around
        word_of = [
            *[IGNORED] * len(before),
            *(IGNORED if word is None else word for word in words),
            *[IGNORED] * len(after),
        ]
        whole = [*before, *ids, *after]
        learned = [word != IGNORED and token not in self._special for token, word in zip(whole, word_of)]
        return Encoded(whole, learned, 0, key, labels=tuple(word_of))

    @cached_property
    def _special(self) -> set[int]:
        """Never hidden, also where a text names them."""
        return set(self.setting.tokenizer.all_special_ids)

    @cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids that a random token is drawn from: all but the special ones."""
        return np.array([token for token in range(len(self.setting.tokenizer)) if token not in self._special])

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """At least one token is hidden, so that every row teaches something."""
        units = self._units(row)
        order = chance.permutation(len(units))
        wanted = max(1, round(self.setting.objective.mask_fraction * sum(map(len, units))))
        chosen: list[int] = []
        for unit in order:
            if len(chosen) >= wanted:
                break
            chosen += units[unit]
        chosen.sort()
        ids, fate = list(row.input_ids), chance.random(len(chosen))
        others = self._ordinary[chance.integers(len(self._ordinary), size=len(chosen))]
        for place, luck, other in zip(chosen, fate, others):
            ids[place] = (
                self.setting.tokenizer.mask_token_id if luck < 0.8 else int(other) if luck < 0.9 else ids[place]
            )
        return Item(ids, len(ids), chosen, [row.input_ids[place] for place in chosen], [0] * len(chosen))

    def _units(self, row: Encoded) -> list[list[int]]:
        """What is chosen together: tokens, or the tokens of a word."""
        places = [place for place, learned in enumerate(row.learned) if learned]
        if not self.setting.objective.whole_words:
            return [[place] for place in places]
        words: dict[int, list[int]] = {}
        for place in places:
            words.setdefault(row.labels[place], []).append(place)
        return list(words.values())


@dataclass(frozen=True)
class Spans:
    """Texts for an encoder-decoder, spans replaced by sentinels anew each time (Raffel 2019)."""

    families: ClassVar[tuple[str, ...]] = ("encoder-decoder",)

    setting: Setting

    def __post_init__(self) -> None:
        if not sentinels(self.setting.tokenizer):
            raise RecipeError(
                "The tokenizer has no sentinel tokens, which span corruption replaces spans with.",
                wanted="tokens <extra_id_0>, <extra_id_1>, ..., such as T5's", do="choose a T5, or another adapt.objective",
            )  # fmt: skip

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Pieces of at most `max_tokens`."""
        tokenizer, room = self.setting.tokenizer, self.setting.max_tokens
        encoded = []
        for row in rows:
            ids = tokenizer(row.text, add_special_tokens=False, verbose=False)["input_ids"]
            cuts = [ids[start : start + room] for start in range(0, len(ids), room)]
            encoded += [Encoded(cut, [True] * len(cut), 0, row.key) for cut in cuts if len(cut) > 1 or len(cuts) == 1]
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Source: the text with its spans replaced; target: each sentinel and what it hides, then EOS."""
        objective, end = self.setting.objective, [self.setting.tokenizer.eos_token_id]
        marks = sentinels(self.setting.tokenizer)
        spans = random_spans(len(row.input_ids), objective.noise_fraction, objective.mean_span, len(marks), chance)
        source, target, after = [], [], 0
        for mark, (start, stop) in zip(marks, spans):
            source += [*row.input_ids[after:start], mark]
            target += [mark, *row.input_ids[start:stop]]
            after = stop
        return shifted_right([*source, *row.input_ids[after:], *end], target + end, self.setting)


def sentinels(tokenizer: Any) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, ... as far as the tokenizer has them."""
    known = tokenizer.get_added_vocab()
    found: list[int] = []
    while f"<extra_id_{len(found)}>" in known:
        found.append(known[f"<extra_id_{len(found)}>"])
    return found


def random_spans(
    length: int, noise: float, mean_span: float, most: int, chance: np.random.Generator
) -> list[tuple[int, int]]:
    """(start, stop) of the hidden spans: noise and clear stretches alternate, cut at random, as in T5's own code.

    568 tokens at 0.15 and 3 hide 85 tokens in 28 spans, so source and target have 512 and 114 tokens.
    """
    hidden = min(max(round(length * noise), 1), length - 1) if length > 1 else length
    clear = length - hidden
    spans = max(1, min(round(hidden / mean_span), most, hidden, max(clear, 1)))
    noisy, plain = _cut(hidden, spans, chance), _cut(clear, spans, chance) if clear else [0] * spans
    found, at = [], 0
    for skip, size in zip(plain, noisy):
        found.append((at + skip, at + skip + size))
        at += skip + size
    return found


def _cut(total: int, parts: int, chance: np.random.Generator) -> list[int]:
    """`total` as `parts` whole numbers of at least 1, every way equally likely."""
    borders = np.sort(chance.choice(total - 1, parts - 1, replace=False) + 1) if parts > 1 else np.array([], dtype=int)
    return [int(size) for size in np.diff(np.concatenate([[0], borders, [total]]))]


@dataclass(frozen=True)
class Pairs:
    """A prompt and two answers: the prompt stands once, then the chosen answer, then the rejected one."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The prompt is cut from its beginning where the longer answer would not fit. Errors: DataError."""
        encode = lambda side: encode_rows(
            [replace(row, chosen=getattr(row, side)) for row in rows], self.setting.tokenizer, max_tokens=1 << 60
        )
        return [self._pair(row, one, other) for row, one, other in zip(rows, encode("chosen"), encode("rejected"))]

    def _pair(self, row: Row, chosen: Encoded, rejected: Encoded) -> Encoded:
        first = min(chosen.learned.index(True), rejected.learned.index(True))
        same = zip(chosen.input_ids[:first], rejected.input_ids[:first])
        shared = next((place for place, (one, other) in enumerate(same) if one != other), first)
        sides = [one.input_ids[shared:] for one in (chosen, rejected)]
        learned = [one.learned[shared:] for one in (chosen, rejected)]
        room = self.setting.max_tokens - max(map(len, sides))
        if room < 1 or not shared:
            raise DataError(
                f"{row.place}: the answers leave no room for the prompt.", wanted=f"answers of fewer than {self.setting.max_tokens} tokens",
                found=f"{max(map(len, sides))} tokens", do="shorten or remove the row, or raise adapt.max_tokens",
            )  # fmt: skip
        prompt = chosen.input_ids[max(0, shared - room) : shared]
        return Encoded(
            prompt + sides[0] + sides[1], [False] * len(prompt) + learned[0] + learned[1], max(0, shared - room), row.key,
            branches=(len(prompt), len(sides[0]), len(sides[1])),
        )  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Sequence 0 is the chosen answer, sequence 1 the rejected one."""
        start, length = row.branches[0], row.branches[1]
        return branching(row, {"pairs": 1.0, "chosen_tokens": float(sum(row.learned[start : start + length]))})


@dataclass(frozen=True)
class Judged(Pairs):
    """A wanted and an unwanted answer, and a mismatched one, the next row's, for KTO's baseline. The prompt stands once.

    A mismatched answer is cut at its end where it would not fit.
    """

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """As pairs, with a third branch. Errors: DataError for a single row, which has no other row's answer."""
        pairs = super().encode(rows)
        if len(pairs) < 2:
            raise DataError(
                "KTO's baseline needs the answer of another row.", wanted="at least two rows", found=str(len(rows))
            )
        return [self._with_mismatched(row, pairs[(number + 1) % len(pairs)]) for number, row in enumerate(pairs)]

    def _with_mismatched(self, row: Encoded, other: Encoded) -> Encoded:
        start, length = other.branches[0], min(other.branches[1], self.setting.max_tokens - row.branches[0])
        answer = slice(start, start + length)
        return replace(
            row, input_ids=row.input_ids + other.input_ids[answer], learned=row.learned + other.learned[answer],
            branches=(*row.branches, length), columns={"desirable_D": torch.tensor([1.0, 0.0, -1.0])},
        )  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Sequence 0 is wanted, 1 unwanted, 2 mismatched."""
        return branching(row, {"judged": 2.0})


@dataclass(frozen=True)
class Forget(Answers):
    """Conversations to forget, and conversations to keep: `"forget": true` in a row marks the first."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError where nothing is to be forgotten."""
        if not any(row.forget for row in rows):
            raise DataError(
                "No row is to be forgotten.", wanted='rows with "forget": true', do="mark the rows to forget"
            )
        encoded = super().encode(rows)
        return [replace(one, labels=(int(row.forget),)) for row, one in zip(rows, encoded)]

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """Counted apart, since each side is a mean of its own."""
        (forget,) = row.labels
        side, plain = "forget" if forget else "retain", next_tokens(row)
        counts = {f"{one}_{what}": 0.0 for one in ("forget", "retain") for what in ("tokens", "documents")}
        counts |= {f"{side}_tokens": float(len(plain.labels)), f"{side}_documents": 1.0}
        return replace(plain, counts=counts, columns={**row.columns, "forget_D": torch.tensor([float(forget)])})


def branching(row: Encoded, counts: dict[str, float]) -> Item:
    """A shared beginning and its branches: the beginning's last token predicts the first of each branch."""
    shared, *branches = row.branches
    positions, labels, sequences, last, start = [], [], [], [], shared
    for number, length in enumerate(branches):
        learned = [place for place in range(start, start + length) if row.learned[place]]
        positions += [shared - 1 if place == start else place - 1 for place in learned]
        labels += [row.input_ids[place] for place in learned]
        sequences += [number] * len(learned)
        start += length
        last.append(start - 1)
    document: Document = row.branches
    return Item(row.input_ids, document, positions, labels, sequences, len(branches), counts, row.columns, ends=last)


@dataclass(frozen=True)
class Classes:
    """A text and its class, read where the head reads: at the last token of a decoder, at the first of an encoder."""

    families: ClassVar[tuple[str, ...]] = ("decoder", "encoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError for a label that no training row has."""
        tokenizer, known = self.setting.tokenizer, {label: number for number, label in enumerate(self.setting.labels)}
        encoded = []
        for row in rows:
            if row.label not in known:
                raise DataError(f"{row.place}: the label '{row.label}' is in no training row.", wanted=", ".join(known))
            ids = tokenizer(row.text, truncation=True, max_length=self.setting.max_tokens)["input_ids"]
            encoded.append(Encoded(list(ids), [False] * len(ids), 0, row.key, labels=(known[row.label],)))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """One label a row."""
        place = len(row.input_ids) - 1 if self.setting.family == "decoder" else 0
        return Item(row.input_ids, len(row.input_ids), [place], list(row.labels), [0])


@dataclass(frozen=True)
class Tags:
    """Words with a tag each: the first token of a word is what its tag is read from."""

    families: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Errors: DataError for a tag that no training row has; RecipeError for a tokenizer that cannot tell words."""
        tokenizer, known = self.setting.tokenizer, {label: number for number, label in enumerate(self.setting.labels)}
        if not tokenizer.is_fast:
            raise RecipeError("Words can be told only by a fast tokenizer.", do="choose a model with a tokenizer.json")
        encoded = []
        for row in rows:
            unknown = sorted(set(row.tags) - set(known))
            if unknown:
                raise DataError(f"{row.place}: the tag '{unknown[0]}' is in no training row.", wanted=", ".join(known))
            tokens = tokenizer(
                list(row.words), is_split_into_words=True, truncation=True, max_length=self.setting.max_tokens
            )
            words = tokens.word_ids()
            first = [word is not None and word != before for word, before in zip(words, [None, *words])]
            labels = tuple(known[row.tags[word]] if new else IGNORED for word, new in zip(words, first))
            encoded.append(Encoded(list(tokens["input_ids"]), first, 0, row.key, labels=labels))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """A label for each word."""
        places = [place for place, label in enumerate(row.labels) if label != IGNORED]
        return Item(
            row.input_ids, len(row.input_ids), places, [row.labels[place] for place in places], [0] * len(places)
        )


@dataclass(frozen=True)
class Texts:
    """Two texts that belong together, as a query and its answer: two documents of one row."""

    families: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The user's last message and the answer to it."""
        tokenizer = self.setting.tokenizer
        cut: Callable[[Any], list[int]] = lambda text: list(
            tokenizer(str(text), truncation=True, max_length=self.setting.max_tokens)["input_ids"]
        )
        sides = [(cut(row.conversation[-2]["content"]), cut(row.conversation[-1]["content"]), row.key) for row in rows]
        return [
            Encoded(one + other, [False] * len(one + other), 0, key, branches=(len(one), len(other))) for one, other, key in sides
        ]  # fmt: skip

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """No labels: what is learned is which of the step's texts belong together. An empty shared beginning."""
        return Item(row.input_ids, (0, *row.branches), [], [], [], 2, {"pairs": 1.0})


@dataclass(frozen=True)
class Prompts:
    """Prompts without answers, which the model itself will answer."""

    families: ClassVar[tuple[str, ...]] = ("decoder",)

    setting: Setting

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """The conversation up to the last answer. Errors: DataError for a prompt that leaves no room for an answer."""
        encoded = []
        for row in rows:
            ids = encode_prompt([dict(message) for message in row.conversation[:-1]], self.setting.tokenizer)
            if len(ids) >= self.setting.max_tokens:
                raise DataError(
                    f"{row.place}: the prompt leaves no room for an answer.",
                    wanted=f"a prompt of fewer than {self.setting.max_tokens} tokens", found=f"{len(ids)} tokens",
                    do="shorten or remove the row, or raise adapt.max_tokens",
                )  # fmt: skip
            encoded.append(Encoded(ids, [False] * len(ids), 0, row.key))
        return encoded

    def item(self, row: Encoded, chance: np.random.Generator) -> Item:
        """A prompt becomes a group when it has been answered: then its branches are the answers."""
        return branching(row, {})
