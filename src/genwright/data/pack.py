"""Rows into packs: first fit, in order. The same lengths always give the same packs, on every machine."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Row numbers per pack: each row goes into the first pack with room for it (at most 1.7 times the optimum).

    lengths and capacity in tokens. A row longer than the capacity gets a pack of its own. O(n log n): a tree over the
    packs keeps the most room below each node.
    """
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * leaves)
    packs: list[list[int]] = []
    for row, length in enumerate(lengths):
        which = _first_with_room(room, leaves, min(length, capacity))
        if which == len(packs):
            packs.append([])
        packs[which].append(row)
        _take(room, leaves + which, min(length, capacity))
    return packs


def fill(packs: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """The fraction of the packs' room that holds tokens; a pack of one long row counts as full."""
    room = sum(max(capacity, sum(lengths[row] for row in one)) for one in packs)
    return sum(lengths[row] for one in packs for row in one) / room if room else 0.0


def _first_with_room(room: list[int], leaves: int, length: int) -> int:
    node = 1
    while node < leaves:
        node *= 2
        if room[node] < length:
            node += 1
    return node - leaves


def _take(room: list[int], node: int, length: int) -> None:
    room[node] -= length
    while node > 1:
        node //= 2
        room[node] = max(room[2 * node], room[2 * node + 1])
