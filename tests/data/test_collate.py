"""Batches: tokens and learned tokens are conserved however the rows are laid out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genwright.base.errors import DataError
from genwright.data.collate import Batch, collate
from genwright.data.templates import Encoded

PAD = 3


@st.composite
def encoded_rows(draw: st.DrawFn) -> list[Encoded]:
    """Rows of few different tokens, padding's id among them; at least one learned."""
    rows = []
    for number in range(draw(st.integers(1, 8))):
        ids = draw(st.lists(st.integers(0, 5), min_size=2, max_size=20))
        learned = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        rows.append(Encoded(ids, learned if any(learned[1:]) else [False] * (len(ids) - 1) + [True], 0, str(number)))
    return rows


LAYOUTS = {"rows": encoded_rows(), "capacity": st.integers(1, 50), "packing": st.booleans()}


def predictions(batches: list[Batch]) -> Counter[tuple[tuple[int, ...], int]]:
    """(the document's tokens up to the position that predicts, the label), read back from the tensors alone."""
    seen: Counter[tuple[tuple[int, ...], int]] = Counter()
    for batch in batches:
        flat, places = batch.input_ids_BT.flatten().tolist(), batch.position_ids_BT.flatten().tolist()
        for at, label in zip(batch.positions_N.tolist(), batch.labels_N.tolist()):
            seen[tuple(flat[at - places[at] : at + 1]), label] += 1
    return seen


def wanted(rows: list[Encoded]) -> Counter[tuple[tuple[int, ...], int]]:
    return Counter(
        (tuple(row.input_ids[:at]), row.input_ids[at])
        for row in rows
        for at in range(1, len(row.input_ids))
        if row.learned[at]
    )


@given(**LAYOUTS)
def test_each_learned_token_is_predicted_from_its_own_document(
    rows: list[Encoded], capacity: int, packing: bool
) -> None:
    assert predictions(collate(rows, packing=packing, capacity=capacity, pad_id=PAD)) == wanted(rows)


@given(**LAYOUTS)
def test_tokens_and_counts_are_conserved(rows: list[Encoded], capacity: int, packing: bool) -> None:
    batches = collate(rows, packing=packing, capacity=capacity, pad_id=PAD)
    assert sum(batch.tokens for batch in batches) == sum(len(row.input_ids) for row in rows)
    learned = sum(sum(row.learned[1:]) for row in rows)
    assert sum(batch.learned_tokens for batch in batches) == learned
    for batch in batches:
        count = batch.counts["tokens"]
        assert count.shape == () and count.dtype == torch.float32 and count.item() == learned
        assert batch.learned_tokens == batch.labels_N.numel() == batch.positions_N.numel() == batch.document_N.numel()
        assert batch.tokens == sum(map(sum, batch.lengths))


@given(**LAYOUTS)
def test_capacity_is_kept_where_possible(rows: list[Encoded], capacity: int, packing: bool) -> None:
    for batch in collate(rows, packing=packing, capacity=capacity, pad_id=PAD):
        assert batch.input_ids_BT.numel() <= capacity or sum(map(len, batch.lengths)) == 1
        assert len(batch.lengths) == len(batch.input_ids_BT)
        if packing:
            assert batch.input_ids_BT.shape == (1, batch.tokens), "a pack has no padding"


@given(**LAYOUTS)
def test_labels_know_their_document(rows: list[Encoded], capacity: int, packing: bool) -> None:
    for batch in collate(rows, packing=packing, capacity=capacity, pad_id=PAD):
        width, owners = batch.input_ids_BT.shape[1], {}
        number = 0
        for row, sizes in enumerate(batch.lengths):
            at = row * width
            for size in sizes:
                owners |= dict.fromkeys(range(at, at + size), number)
                at, number = at + size, number + 1
        assert [owners[at] for at in batch.positions_N.tolist()] == batch.document_N.tolist()


def test_end_of_turn_with_the_id_of_padding_is_learned() -> None:
    rows = [
        Encoded([5, 1, PAD], [False, True, True], 0, "a"),
        Encoded([5, 1, 2, PAD], [False, False, True, True], 0, "b"),
    ]
    for packing in (True, False):
        labels = [
            token
            for batch in collate(rows, packing=packing, capacity=99, pad_id=PAD)
            for token in batch.labels_N.tolist()
        ]
        assert sorted(labels) == [1, 2, PAD, PAD]


def test_worked_by_hand() -> None:
    rows = [Encoded([5, 1, 2], [True, True, False], 0, "a"), Encoded([4, 0], [False, True], 0, "b")]
    (packed,) = collate(rows, packing=True, capacity=8, pad_id=PAD)
    assert packed.input_ids_BT.tolist() == [[5, 1, 2, 4, 0]]
    assert packed.position_ids_BT.tolist() == [[0, 1, 2, 0, 1]]
    assert packed.lengths == ((3, 2),)
    assert (
        packed.positions_N.tolist() == [0, 3]
        and packed.labels_N.tolist() == [1, 0]
        and packed.document_N.tolist() == [0, 1]
    )
    (padded,) = collate(rows, packing=False, capacity=8, pad_id=PAD)
    assert padded.input_ids_BT.tolist() == [[5, 1, 2], [4, 0, PAD]]
    assert padded.lengths == ((3,), (2,)) and padded.positions_N.tolist() == [0, 3]


def test_moves_to_a_device_whole() -> None:
    (batch,) = collate([Encoded([1, 2], [False, True], 0, "a")], packing=True, capacity=8, pad_id=0)
    moved = batch.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)] + [*moved.counts.values()]
    assert len(tensors) == 7 and all(tensor.is_meta for tensor in tensors)
    assert moved.lengths == batch.lengths and moved.tokens == 2


def test_a_step_without_learned_tokens_is_refused() -> None:
    """The first token of a document never counts, whatever it says."""
    with pytest.raises(DataError, match=r"no learned tokens.*\n.*\n.*2 rows, 3 tokens, 0 of them learned"):
        collate(
            [Encoded([1, 2], [True, False], 0, "a"), Encoded([1], [True], 0, "b")], packing=True, capacity=8, pad_id=0
        )
