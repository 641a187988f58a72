"""Layouts: what a step sees of a row, against hand-made loops, published lengths and the statistics of chance."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.e2e import tiny

from genwright.base.errors import DataError, RecipeError
from genwright.data.formats import Row
from genwright.data.layouts import Setting, chance_of, feed_of, layout_of
from genwright.data.layouts_corrupted import random_spans
from genwright.data.templates import FALLBACK, encode_prompt
from genwright.objectives.classify import Classification, TokenClassification
from genwright.objectives.contrast import Contrastive
from genwright.objectives.language import Causal, Instruction, Masked, SpanCorruption
from genwright.objectives.policy import GRPO
from genwright.objectives.preference import DPO, KTO
from genwright.objectives.unlearn import NPO

tokenizer = cache(tiny.tokenizer)
LONG = " ".join(tiny.texts())


def setting(objective: Any, family: str, max_tokens: int = 64, labels: tuple[str, ...] = ()) -> Setting:
    return Setting(objective, tokenizer(family), family, max_tokens, labels)


def text(words: str) -> Row:
    return Row("text", text=words, place="rows.jsonl:1")


def preference(prompt: str, chosen: str, rejected: str) -> Row:
    said = lambda words: ({"role": "assistant", "content": words},)
    return Row(
        "preference",
        messages=({"role": "user", "content": prompt},),
        chosen=said(chosen),
        rejected=said(rejected),
        place="rows.jsonl:1",
    )


def chat(prompt: str, answer: str, **own: Any) -> Row:
    return Row(
        "chat",
        messages=({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}),
        place="rows.jsonl:1",
        **own,
    )


# --- masked ---------------------------------------------------------------------------------------------------------


def test_of_the_hidden_tokens_80_percent_are_masked_10_random_10_stay() -> None:
    """Chi-square over some 6,000 hidden tokens, 99.9 % quantile at 2 degrees of freedom: 13.8. A random token may be the right one."""
    layout = layout_of(setting(Masked(), "encoder", 128))
    (row, *_) = layout.encode([text(LONG)])
    mask, ordinary = (
        tokenizer("encoder").mask_token_id,
        len(tokenizer("encoder")) - len(set(tokenizer("encoder").all_special_ids)),
    )
    seen: Counter[str] = Counter()
    for step in range(320):
        item = layout.item(row, chance_of(0, step, 0))
        for place, label in zip(item.positions, item.labels):
            now = item.input_ids[place]
            seen["mask" if now == mask else "same" if now == label else "other"] += 1
    total, lucky = sum(seen.values()), 0.1 / ordinary
    expected = {"mask": 0.8, "other": 0.1 - lucky, "same": 0.1 + lucky}
    assert sum((seen[fate] - total * share) ** 2 / (total * share) for fate, share in expected.items()) < 13.8


def test_15_percent_are_hidden_every_place_equally_often_and_the_rest_is_left() -> None:
    """Exactly round(0.15 n) a row; over the places chi-square with n - 1 degrees of freedom, five standard deviations."""
    layout = layout_of(setting(Masked(), "encoder", 128))
    (row, *_) = layout.encode([text(LONG)])
    special, counts, draws = set(tokenizer("encoder").all_special_ids), Counter(), 400
    inner = [place for place, token in enumerate(row.input_ids) if token not in special]
    for step in range(draws):
        item = layout.item(row, chance_of(3, step, 7))
        assert len(item.positions) == round(0.15 * len(inner)) and not set(item.positions) - set(inner)
        assert [row.input_ids[place] for place in item.positions] == item.labels
        assert all(
            now == was
            for place, (now, was) in enumerate(zip(item.input_ids, row.input_ids))
            if place not in item.positions
        )
        counts.update(item.positions)
    expected = draws * round(0.15 * len(inner)) / len(inner)
    chi = sum((counts[place] - expected) ** 2 / expected for place in inner)
    assert chi < len(inner) + 5 * math.sqrt(2 * len(inner))


def test_random_tokens_are_never_special() -> None:
    layout = layout_of(setting(Masked(mask_fraction=1.0), "encoder", 128))
    (row, *_) = layout.encode([text(LONG)])
    allowed = (set(range(len(tokenizer("encoder")))) - set(tokenizer("encoder").all_special_ids)) | {
        tokenizer("encoder").mask_token_id
    }
    for step in range(100):
        item = layout.item(row, chance_of(0, step, 0))
        assert {item.input_ids[place] for place in item.positions} <= allowed


def test_a_special_token_that_a_text_names_is_not_hidden() -> None:
    layout = layout_of(setting(Masked(mask_fraction=1.0), "encoder"))
    (row,) = layout.encode([text("the [SEP] house [MASK] river")])
    special = set(tokenizer("encoder").all_special_ids)
    named = [place for place, token in enumerate(row.input_ids) if token in special]
    assert len(named) == 4 and not set(layout.item(row, chance_of(0, 0, 0)).positions) & set(named)


def test_whole_words_are_hidden_whole() -> None:
    """Words told by the tokenizer's own offsets: a token that begins with a space begins a word."""
    layout = layout_of(setting(Masked(whole_words=True), "encoder", 128))
    (row, *_) = layout.encode(
        [text("unbelievable strangeness notwithstanding everybody congratulated themselves extraordinarily quickly")]
    )
    tokens = tokenizer("encoder").convert_ids_to_tokens(row.input_ids)
    word_of = np.cumsum([token.startswith("Ġ") for token in tokens])
    inner = range(1, len(tokens) - 1)
    words = {word: {place for place in inner if word_of[place] == word} for word in set(word_of[1:-1])}
    assert max(map(len, words.values())) > 1
    for step in range(60):
        hidden = set(layout.item(row, chance_of(0, step, 0)).positions)
        assert hidden == set().union(*(words[word] for word in {word_of[place] for place in hidden}))
        assert len(hidden) < round(0.15 * len(inner)) + max(map(len, words.values()))


def test_chance_is_a_function_of_seed_step_and_row() -> None:
    feed = feed_of([text(LONG)], setting(Masked(), "encoder"), 0)
    seen = lambda seed, step, row: feed.items([row], seed=seed, step=step)[0].positions
    assert seen(1, 2, 0) == seen(1, 2, 0)
    assert seen(1, 3, 0) != seen(1, 2, 0) != seen(2, 2, 0)
    draws = {tuple(chance_of(seed, step, row).random(4)) for seed in range(4) for step in range(4) for row in range(4)}
    assert len(draws) == 64
    assert feed.items([1, 0], seed=0, step=5)[1].positions == feed.items([0], seed=0, step=5)[0].positions


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    with pytest.raises(RecipeError, match="no mask token"):
        layout_of(Setting(Masked(), tokenizer("decoder"), "encoder", 64))


# --- spans ----------------------------------------------------------------------------------------------------------


def test_t5s_published_lengths() -> None:
    """568 tokens at 0.15 and 3: 85 of noise in 28 spans, source 483 + 28 + 1 = 512, target 85 + 28 + 1 = 114."""
    for seed in range(20):
        spans = random_spans(568, 0.15, 3.0, 100, np.random.default_rng(seed))
        hidden = sum(stop - start for start, stop in spans)
        assert (hidden, len(spans), 568 - hidden + len(spans) + 1, hidden + len(spans) + 1) == (85, 28, 512, 114)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 33, 100])
@pytest.mark.parametrize("noise", [0.15, 0.5, 0.9])
def test_spans_lie_apart_in_order_and_inside(length: int, noise: float) -> None:
    for seed in range(30):
        spans = random_spans(length, noise, 3.0, 20, np.random.default_rng(seed))
        edges = [edge for span in spans for edge in span]
        assert spans and edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= length
        assert all(start < stop for start, stop in spans) and len(spans) <= 20
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize("words", ["a", "ab", "abc", tiny.texts()[3], LONG])
def test_source_and_target_together_are_the_text(words: str) -> None:
    own = tokenizer("encoder-decoder")
    layout = layout_of(setting(SpanCorruption(), "encoder-decoder", 100))
    marks = {own.convert_tokens_to_ids(f"<extra_id_{number}>") for number in range(20)}
    for number, row in enumerate(layout.encode([text(words)])):
        for step in range(10):
            item = layout.item(row, chance_of(0, step, number))
            hidden: dict[int, list[int]] = {}
            for token in item.labels[:-1]:
                if token in marks:
                    mark, hidden[token] = token, []
                else:
                    hidden[mark].append(token)
            joined = [one for token in item.source_ids[:-1] for one in hidden.get(token, [token])]
            assert own.decode(joined) == own.decode(row.input_ids) and joined == row.input_ids
            assert item.source_ids[-1] == item.labels[-1] == own.eos_token_id
            assert list(item.input_ids) == [own.pad_token_id, *item.labels[:-1]]
            assert [token for token in item.source_ids if token in marks] == [
                token for token in item.labels if token in marks
            ]


def test_a_tokenizer_without_sentinels_is_refused(tokenizer_with: Any) -> None:
    with pytest.raises(RecipeError, match="no sentinel tokens"):
        layout_of(Setting(SpanCorruption(), tokenizer_with(), "encoder-decoder", 64))


# --- nothing is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective, family", [(Causal(), "decoder"), (Masked(), "encoder"), (SpanCorruption(), "encoder-decoder")]
)
@pytest.mark.parametrize("room", [16, 17, 50])
def test_long_texts_are_cut_in_pieces_and_nothing_is_lost(objective: Any, family: str, room: int) -> None:
    pieces = layout_of(setting(objective, family, room)).encode([text(LONG), text("short one")])
    own = tokenizer(family)
    special = set(own.all_special_ids) if family == "encoder" else set()
    assert all(0 < len(piece.input_ids) <= room for piece in pieces)
    joined = [token for piece in pieces for token in piece.input_ids if token not in special]
    plain = lambda words: (
        own(words, add_special_tokens=False)["input_ids"] + ([own.eos_token_id] if family == "decoder" else [])
    )
    wanted = plain(LONG)
    # A last piece of one token has nothing to be predicted from in a causal text or a span.
    wanted = wanted[:-1] if family != "encoder" and len(wanted) % room == 1 else wanted
    assert joined == wanted + plain("short one")
    if family == "decoder":
        assert all(piece.learned == [False] + [True] * (len(piece.input_ids) - 1) for piece in pieces)


# --- branches -------------------------------------------------------------------------------------------------------


def by_hand(prompt: list[int], answers: list[list[int]]) -> list[tuple[tuple[int, ...], int, int, int]]:
    """(what is before, label, sequence, position) of each learned token, from each answer written behind the prompt alone."""
    return [
        ((*prompt, *answer[:place]), answer[place], number, len(prompt) + place - 1)
        for number, answer in enumerate(answers)
        for place in range(len(answer))
    ]


def laid_out(batch: Any) -> list[tuple[tuple[int, ...], int, int, int]]:
    """The same of a batch of one branching row, following each label's path through the tokens."""
    ((document,),) = batch.lengths
    ids, places = batch.input_ids_BT[0].tolist(), batch.position_ids_BT[0].tolist()
    shared, *lengths = document
    starts = np.cumsum([shared, *lengths]).tolist()
    found = []
    for at, label, sequence in zip(batch.positions_N.tolist(), batch.labels_N.tolist(), batch.document_N.tolist()):
        own = ids[starts[sequence] : at + 1] if at >= shared else []
        assert at < shared or starts[sequence] <= at < starts[sequence + 1]
        found.append(((*ids[: min(shared, at + 1)], *own), label, sequence, places[at]))
    return found


def written(words: str) -> list[int]:
    """An answer as FALLBACK renders it: its text and EOS."""
    own = tokenizer("decoder")
    return [*own(words, add_special_tokens=False)["input_ids"], own.eos_token_id]


def asked(prompt: str) -> list[int]:
    return encode_prompt([{"role": "user", "content": prompt}], tokenizer("decoder"))


PAIR = preference("what colour is house number 4", "xanadu green", "blue")


def test_pairs_predict_what_each_answer_alone_would() -> None:
    """The prompt once, both answers and both ends; the same token in both answers' beginnings stays in both."""
    assert "assistant" in FALLBACK
    for row, answers in [
        (PAIR, ["xanadu green", "blue"]),
        (preference("is it", "green river", "green house"), ["green river", "green house"]),
    ]:
        (batch,) = feed_of([row], setting(DPO(), "decoder"), 0).batches(
            [0], seed=0, step=0, packing=True, capacity=1000
        )
        wanted = by_hand(asked(row.messages[0]["content"]), [written(words) for words in answers])
        assert laid_out(batch) == wanted
        assert batch.counts["pairs"] == 1 and batch.num_documents == 2
        assert [label for _, label, *_ in wanted].count(tokenizer("decoder").eos_token_id) == 2
        assert batch.counts["chosen_tokens"] == len(written(answers[0]))


def test_a_prompt_too_long_loses_its_beginning_only() -> None:
    full = asked(PAIR.messages[0]["content"])
    sides = [written("xanadu green"), written("blue")]
    room = max(map(len, sides)) + 5
    (row,) = layout_of(setting(DPO(), "decoder", room)).encode([PAIR])
    assert row.branches == (5, *map(len, sides)) and row.truncated == len(full) - 5
    assert row.input_ids == full[-5:] + sides[0] + sides[1]
    with pytest.raises(DataError, match="leave no room for the prompt"):
        layout_of(setting(DPO(), "decoder", max(map(len, sides)))).encode([PAIR])


def test_ktos_mismatched_answer_is_another_rows() -> None:
    rows = [preference(f"what is {number}", f"red {number}", f"blue {number}") for number in range(3)]
    feed = feed_of(rows, setting(KTO(), "decoder"), 0)
    for number in range(3):
        (batch,) = feed.batches([number], seed=0, step=0, packing=True, capacity=1000)
        answers = [f"red {number}", f"blue {number}", f"red {(number + 1) % 3}"]
        assert laid_out(batch) == by_hand(asked(f"what is {number}"), [written(words) for words in answers])
        assert batch.columns["desirable_D"].tolist() == [1.0, 0.0, -1.0] and batch.counts["judged"] == 2
    with pytest.raises(DataError, match="another row"):
        feed_of(rows[:1], setting(KTO(), "decoder"), 0)


def test_no_branch_reaches_beyond_the_context_not_even_a_borrowed_one() -> None:
    rows = [preference(LONG[:300], "red", "blue"), preference("what is it", LONG[:60], "blue")]
    for row in layout_of(setting(KTO(), "decoder", 48)).encode(rows):
        shared, *branches = row.branches
        assert shared + max(branches) <= 48 and sum(row.branches) == len(row.input_ids) == len(row.learned)


def test_what_is_to_be_forgotten_is_counted_apart() -> None:
    rows = [chat("a", "red", forget=True), chat("b", "green river"), chat("c", "blue")]
    (batch,) = feed_of(rows, setting(NPO(), "decoder"), 0).batches(
        [0, 1, 2], seed=0, step=0, packing=True, capacity=1000
    )
    counts = {name: int(count) for name, count in batch.counts.items()}
    sizes = [len(written(words)) for words in ("red", "green river", "blue")]
    assert (
        counts["forget_tokens"] == sizes[0]
        and counts["retain_tokens"] == sizes[1] + sizes[2] == counts["tokens"] - sizes[0]
    )
    assert (counts["forget_documents"], counts["retain_documents"]) == (1, 2)
    flags = batch.columns["forget_D"]
    assert sorted(flags.tolist()) == [0.0, 0.0, 1.0]
    assert int(flags[batch.document_N].sum()) == sizes[0]
    with pytest.raises(DataError, match="No row is to be forgotten"):
        feed_of(rows[1:], setting(NPO(), "decoder"), 0)


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    length = len(asked("what is it"))
    (row,) = layout_of(setting(GRPO(), "decoder", length + 1)).encode([chat("what is it", "x")])
    assert row.input_ids == asked("what is it")
    with pytest.raises(DataError, match="no room for an answer"):
        layout_of(setting(GRPO(), "decoder", length)).encode([chat("what is it", "x")])


# --- classes, tags, texts -------------------------------------------------------------------------------------------


def test_a_class_is_read_where_the_head_reads_and_an_unknown_one_is_named() -> None:
    row = Row("labelled", text="the red house", label="red", place="rows.jsonl:7")
    for family in ("decoder", "encoder"):
        layout = layout_of(setting(Classification(), family, labels=("blue", "red")))
        (encoded,) = layout.encode([row])
        item = layout.item(encoded, chance_of(0, 0, 0))
        assert item.labels == [1] and item.positions == [len(encoded.input_ids) - 1 if family == "decoder" else 0]
        with pytest.raises(DataError, match=r"rows\.jsonl:7: the label 'pink'"):
            layout.encode([replace(row, label="pink")])


def test_a_tag_stands_at_the_first_token_of_its_word() -> None:
    words = ("unbelievable", "house", "extraordinarily")
    layout = layout_of(setting(TokenClassification(), "encoder", labels=("x", "y")))
    row = Row("tagged", words=words, tags=("y", "x", "y"), place="rows.jsonl:2")
    (encoded,) = layout.encode([row])
    sizes = [len(tokenizer("encoder")(word, add_special_tokens=False)["input_ids"]) for word in words]
    item = layout.item(encoded, chance_of(0, 0, 0))
    assert list(item.positions) == [1, 1 + sizes[0], 1 + sizes[0] + sizes[1]] and list(item.labels) == [1, 0, 1]
    with pytest.raises(DataError, match="the tag 'z'"):
        layout.encode([replace(row, tags=("y", "z", "y"))])


def test_two_texts_are_two_documents_of_one_row() -> None:
    (batch,) = feed_of([chat("red", "green river")], setting(Contrastive(), "encoder"), 0).batches(
        [0], seed=0, step=0, packing=True, capacity=100
    )
    sides = [tokenizer("encoder")(words)["input_ids"] for words in ("red", "green river")]
    assert batch.lengths == (((0, *map(len, sides)),),) and batch.counts["pairs"] == 1
    assert batch.input_ids_BT[0].tolist() == sides[0] + sides[1]
    assert batch.position_ids_BT[0].tolist() == [*range(len(sides[0])), *range(len(sides[1]))]


@pytest.mark.parametrize("objective, family", [(Causal(), "encoder"), (Masked(), "decoder"), (SpanCorruption(), "decoder"), (DPO(), "encoder"),
                                               (Classification(), "encoder-decoder"), (Instruction(), "encoder")])  # fmt: skip
def test_a_family_an_objective_is_not_for_is_refused(objective: Any, family: str) -> None:
    with pytest.raises(RecipeError, match=rf"cannot be learned by this model.\n(?s:.*)found:  {family}"):
        layout_of(setting(objective, family))
