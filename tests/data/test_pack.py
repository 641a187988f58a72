"""Packs: nothing lost, nothing too full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genwright.data.pack import fill, pack

LENGTHS = st.lists(st.integers(1, 60), max_size=60)


def plain_first_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """The definition, without the tree."""
    packs: list[list[int]] = []
    for row, length in enumerate(lengths):
        fits = [one for one in packs if sum(lengths[other] for other in one) + length <= capacity]
        if not fits:
            packs.append([])
        (fits[0] if fits else packs[-1]).append(row)
    return packs


@given(LENGTHS, st.integers(1, 50))
def test_every_row_once_and_no_pack_too_full(lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity)
    assert sorted(row for one in packs for row in one) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in one) <= capacity or len(one) == 1 for one in packs)


@given(LENGTHS, st.integers(1, 50))
def test_is_first_fit(lengths: list[int], capacity: int) -> None:
    assert pack(lengths, capacity) == plain_first_fit(lengths, capacity)


def test_worked_by_hand() -> None:
    """6 and 4 fill a pack of 10; 5 opens the next, 5 joins it; 1 opens a third."""
    packs = pack([6, 5, 4, 5, 1], 10)
    assert packs == [[0, 2], [1, 3], [4]]
    assert fill(packs, [6, 5, 4, 5, 1], 10) == 21 / 30


def test_a_long_row_is_a_full_pack_of_its_own() -> None:
    assert pack([3, 25, 3], 10) == [[0, 2], [1]]
    assert fill([[1]], [3, 25, 3], 10) == 1.0


def test_no_rows() -> None:
    assert pack([], 10) == [] and fill([], [], 10) == 0.0
