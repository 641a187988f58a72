"""Log-likelihoods of many answers at once: what rows share is computed once, rows are packed, logits stand where a label is.

    ll(answer | context) = sum_t log p(answer_t | context, answer_<t)          nats, float32

The tokens of all rows are laid out as trees (`models.attention`): a question's choices branch off its text, questions
branch off the examples they share. Cutting text into tokens follows lm-eval 0.4.13 (`TemplateLM._encode_pair`), so that
the numbers are its numbers.

Legend: N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from genwright.base.errors import BadRequest, DataError, RecipeError
from genwright.data.pack import pack
from genwright.models.attention import NAME, Document, documents, places_of
from genwright.models.families import family_of, logits_at
from genwright.models.generate import Sampling, context_of, end_ids, generate

Tokens = list[int]
Pair = tuple[Tokens, Tokens]
Progress = Callable[[int, int], Any]

ROUND_TOKENS, ROUND_DOCUMENT, LEAST_SHARED, SLICE = 32, 16, 8, 256
"""Sizes are rounded up to the first two; rows are laid out together from so many shared tokens on; logits normalised at a time."""


@dataclass(frozen=True)
class Likelihood:
    """Of one answer."""

    nats: float
    greedy: bool
    """Whether each of its tokens is the likeliest: the model would have written it."""


@dataclass(frozen=True)
class Tree:
    """Rows that share a beginning, laid out once: their tokens, how they branch, and where each row's tokens stand."""

    tokens: Tokens
    document: Document
    places: dict[int, list[int]]


class Scorer:
    """A decoder and its tokenizer, asked for likelihoods and continuations."""

    def __init__(self, model: Any, tokenizer: Any, *, capacity: int = 2048) -> None:
        if family_of(model.config) != "decoder":
            raise RecipeError(
                "Only a decoder has a likelihood of a text.", wanted="a decoder", found=family_of(model.config),
                do="judge it by the answers it writes",
            )  # fmt: skip
        self.model, self.tokenizer, self.capacity = model, tokenizer, capacity
        self.context = context_of(model)

    @property
    def start(self) -> int:
        """What stands before a text that has nothing before it: the beginning token, or the end token where there is none."""
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    def encode(self, text: str) -> Tokens:
        """As lm-eval does: with the tokenizer's own special tokens, but never a second beginning."""
        options = {"add_special_tokens": False} if text.startswith(self.tokenizer.decode(self.start)) else {}
        return list(self.tokenizer.encode(text, **options))

    def encode_pair(self, context: str, answer: str) -> Pair:
        """Spaces at the context's end belong to the answer; both are cut together and parted by the context's length."""
        if not context:
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            return ([self.start], list(ids)) if not ids or ids[0] != self.start else ([ids[0]], list(ids[1:]))
        bare = context.rstrip()
        answer = context[len(bare) :] + answer
        before, whole = self.encode(bare), self.encode(bare + answer)
        return before, whole[len(before) :]

    def likelihoods(self, asked: Sequence[tuple[str, str]], progress: Progress | None = None) -> list[Likelihood]:
        """Of each (context, answer). A row longer than the model's context loses its beginning."""
        return self.of_tokens([self.encode_pair(*one) for one in asked], progress)

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of each whole text, in windows of the model's context that predict each token once."""
        windows = [(number, pair) for number, text in enumerate(texts) for pair in self._windows(self.encode(text))]
        found = self.of_tokens([pair for _, pair in windows])
        totals = [0.0] * len(texts)
        for (number, _), one in zip(windows, found):
            totals[number] += one.nats
        return totals

    def _windows(self, tokens: Tokens) -> list[Pair]:
        longest, first = self.context, tokens[: self.context]
        pairs = [([self.start], first)] if first else []
        for begin in range(longest, len(tokens), longest):
            end = min(begin + longest, len(tokens))
            pairs.append((tokens[max(0, end - longest - 1) : begin], tokens[begin:end]))
        return pairs

    def continuations(self, contexts: Sequence[str], stops: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy, cut before the first stop. A context that leaves no room loses its beginning. Errors: BadRequest."""
        room = self.context - max_tokens
        if room < 1:
            raise BadRequest(
                "The longest answer leaves no room for a question.", wanted=f"fewer tokens than the model's {self.context}",
                found=f"max_tokens {max_tokens}",
            )  # fmt: skip
        prompts = [self.encode(context)[-room:] or [self.start] for context in contexts]
        answers = generate(
            self.model, self.tokenizer, prompts, Sampling(max_new_tokens=max_tokens), until=self._until(stops),
            ends=end_ids(self.model, self.tokenizer),
        )  # fmt: skip
        return [cut(str(self.tokenizer.decode(answer, skip_special_tokens=True)), stops) for answer in answers]

    def _until(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether a stop has been written; the end is looked at first, because the whole is long."""
        wanted = [stop for stop in stops if stop]
        most = max((len(stop.encode()) for stop in wanted), default=0) + 4

        def stopped(tokens: list[int]) -> bool:
            return all(
                any(stop in self.tokenizer.decode(part, skip_special_tokens=True) for stop in wanted)
                for part in (tokens[-most:], tokens)
            )

        return stopped

    @torch.no_grad()
    def of_tokens(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Likelihood]:
        """Of each (context, answer) in tokens. Errors: DataError for a context of no tokens."""
        for number, (before, _) in enumerate(pairs):
            if not before:
                raise DataError(f"Row {number + 1} has nothing before its answer.", wanted="at least one token")
        rows = [[*before, *answer][-(self.context + 1) :][:-1] for before, answer in pairs]
        trees = trees_of(rows, self.capacity)
        packs = pack([len(tree.tokens) for tree in trees], self.capacity)
        found = [Likelihood(0.0, True)] * len(pairs)
        with branching(self.model):
            for number, members in enumerate(packs):
                for row, one in self._pack([trees[member] for member in members], pairs).items():
                    found[row] = one
                if progress is not None:
                    progress(number + 1, len(packs))
        return found

    def _pack(self, trees: list[Tree], pairs: Sequence[Pair]) -> dict[int, Likelihood]:
        wanted: dict[int, list[int]] = {}
        start = 0
        for tree in trees:
            for row, places in tree.places.items():
                kept = places[max(0, len(places) - len(pairs[row][1])) :] if pairs[row][1] else []
                wanted[row] = [start + place for place in kept]
            start += len(tree.tokens)
        positions = sorted({place for places in wanted.values() for place in places})
        if not positions:
            return {row: Likelihood(0.0, True) for row in wanted}
        where = {place: index for index, place in enumerate(positions)}
        rows = [
            (where[place], token)
            for row, places in wanted.items()
            for place, token in zip(places, _last(pairs[row][1], len(places)))
        ]
        nats_N, greedy_N = self._read(trees, positions, rows)
        found, at = {}, 0
        for row, places in wanted.items():
            end = at + len(places)
            found[row] = Likelihood(float(nats_N[at:end].sum()), bool(greedy_N[at:end].all()))
            at = end
        return found

    def _read(self, trees: list[Tree], positions: list[int], rows: list[tuple[int, int]]) -> tuple[Any, Any]:
        device = self.model.device
        ids = [token for tree in trees for token in tree.tokens]
        places = [place for tree in trees for place in places_of(tree.document)]
        padding = -len(ids) % ROUND_TOKENS
        layout = documents(
            [[tree.document for tree in trees]], len(ids), device, padding=padding, round_to=ROUND_DOCUMENT
        )
        inputs = {
            "input_ids": torch.tensor([ids + [0] * padding], device=device),
            "position_ids": torch.tensor([places + [0] * padding], device=device), "documents": layout,
        }  # fmt: skip
        rounded = positions + [0] * (-len(positions) % ROUND_TOKENS)
        logits_NV = logits_at(self.model, inputs, torch.tensor(rounded, device=device))
        norm_N = torch.cat([part.float().logsumexp(-1) for part in logits_NV.split(SLICE)])
        which, tokens = (torch.tensor(side, device=device) for side in zip(*rows))
        nats = logits_NV[which, tokens].float() - norm_N[which]
        return nats.cpu(), (logits_NV.argmax(-1)[which] == tokens).cpu()


@contextmanager
def branching(model: Any) -> Iterator[None]:
    """Evaluation mode and the attention whose documents branch; afterwards the model is as it was."""
    training, attention = model.training, model.config._attn_implementation
    model.eval().set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(training)


def _last(tokens: Tokens, count: int) -> Tokens:
    return tokens[len(tokens) - count :]


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops."""
    for stop in filter(None, stops):
        text = text.split(stop)[0]
    return text


def trees_of(rows: Sequence[Tokens], capacity: int) -> list[Tree]:
    """Rows in order of their tokens, joined while they share LEAST_SHARED tokens with the one before and fit the capacity."""
    order = sorted(range(len(rows)), key=lambda row: rows[row])
    groups: list[list[int]] = []
    size = 0
    for row in order:
        shared = _shared(rows[groups[-1][-1]], rows[row]) if groups else 0
        together = bool(groups) and shared >= LEAST_SHARED and size + len(rows[row]) - shared <= capacity
        size = size + len(rows[row]) - shared if together else len(rows[row])
        groups[-1].append(row) if together else groups.append([row])
    return [tree_of([(row, rows[row]) for row in group]) for group in groups]


def tree_of(rows: list[tuple[int, Tokens]], begin: int = 0) -> Tree:
    """Rows in order of their tokens, all equal before `begin`. Worked by hand: "a b c", "a b d" -> a b c d, (2, 1, 1)."""
    end = _shared(rows[0][1], rows[-1][1])
    tokens, branches = list(rows[0][1][begin:end]), []
    places = {row: list(range(end - begin)) for row, _ in rows}
    longer = [one for one in rows if len(one[1]) > end]
    for _, group in groupby(longer, key=lambda one: one[1][end]):
        branch = tree_of(list(group), end)
        for row, inside in branch.places.items():
            places[row] += [len(tokens) + place for place in inside]
        tokens += branch.tokens
        branches.append(branch.document)
    return Tree(tokens, (end - begin, *branches) if branches else end - begin, places)


def _shared(one: Tokens, two: Tokens) -> int:
    """How many tokens two rows share at their beginning."""
    most = min(len(one), len(two))
    return next((place for place in range(most) if one[place] != two[place]), most)
