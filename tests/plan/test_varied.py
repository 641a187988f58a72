"""Rows of many lengths: a length between two traced ones is as if it had been traced, and what they leave behind is held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from genwright.catalogue.devices import devices
from genwright.plan.architectures import config_of
from genwright.plan.priced import varied
from genwright.plan.priced.allocator import Allocator
from genwright.plan.published.frameworks import filled
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.trace_setup import trace_pieces
from genwright.plan.training import estimate_training

TINY = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": False}  # fmt: skip
ROWS = Setup(
    model=TINY, framework="swift", precision="bf16", recompute="none", seq_len=1024, accumulate=4, packing=False
)


@pytest.fixture(scope="module")
def pieces() -> dict[int, Any]:
    setup, profile, _ = filled(ROWS)
    return {
        tokens: trace_pieces(replace(setup, seq_len=tokens), profile, config_of(TINY)) for tokens in (512, 768, 1024)
    }


def test_a_length_between_two_that_were_traced_is_as_if_it_had_been_traced(pieces: dict[int, Any]) -> None:
    guessed = varied.between(pieces[512], pieces[1024], 0.5)
    real = pieces[768]
    assert [one.bytes for part in guessed.segments for one in part.changes] == [
        one.bytes for part in real.segments for one in part.changes
    ]


def test_equal_rows_hold_what_one_of_them_does(pieces: dict[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varied, "drawn", lambda setup: [1024] * varied.MICROBATCHES)
    setup, profile, _ = filled(ROWS)
    events = list(varied.stream_of(pieces[512], pieces[1024], (512, 1024), setup, profile))
    whole = varied.reserved_bytes(events)
    first_steps = estimate_training(replace(ROWS, packing=True), devices()["a100-80gb"])
    assert whole == pytest.approx(first_steps.quantities["reserved_peak_bytes"].value, rel=0.02)


def test_rows_of_many_lengths_hold_more_than_their_longest_and_give_back_where_there_is_no_room(
    pieces: dict[int, Any],
) -> None:
    setup, profile, _ = filled(ROWS)
    events = list(varied.stream_of(pieces[512], pieces[1024], (512, 1024), setup, profile))
    free = varied.reserved_bytes(events)
    live = Allocator().replay(events).peak_active
    assert free > 1.1 * live
    assert live <= varied.reserved_bytes(events, capacity=1.05 * live) <= 1.05 * live < free


def test_only_rows_that_are_not_packed_vary_and_no_live_byte_does() -> None:
    even, uneven = (
        estimate_training(replace(ROWS, packing=packing), devices()["a100-80gb"]) for packing in (True, False)
    )
    assert uneven.quantities["active_peak_bytes"] == even.quantities["active_peak_bytes"]
    assert uneven.quantities["reserved_peak_bytes"].value > even.quantities["reserved_peak_bytes"].value
    assert uneven.quantities["reserved_peak_bytes"].low == pytest.approx(even.quantities["reserved_peak_bytes"].low)


def test_lengths_keep_to_the_quantiles_that_are_known_and_a_batch_is_as_long_as_its_longest() -> None:
    known = replace(ROWS, seq_len=1000, lengths=(100, 400, 1000))
    found = sorted(varied.drawn(known, 2000))
    assert found[1000] == pytest.approx(100, abs=10)
    assert found[1900] == pytest.approx(400, abs=40)
    assert found[-1] <= 1000
    single, four = (sum(varied.drawn(replace(ROWS, micro_batch=rows), 500)) / 500 / 1024 for rows in (1, 4))
    assert single == pytest.approx((1 + 1 / 16) / 2, abs=0.03)  # mean of what is even between a sixteenth and the whole
    assert four == pytest.approx(1 / 16 + 15 / 16 * 4 / 5, abs=0.03)  # the largest of four: 4 / 5 of the way


def test_two_that_took_different_courses_are_not_mixed(pieces: dict[int, Any]) -> None:
    other = replace(pieces[512], segments=pieces[512].segments[:-1])
    with pytest.raises(ValueError, match="zip"):
        varied.between(other, pieces[1024], 0.5)
