"""CUDA's caching allocator, replayed: which segments a stream of allocations makes it hold. No torch here.

Rules of c10/cuda/CUDACachingAllocator.cpp: sizes are rounded up to 512 bytes; at most 1 MiB comes from the small pool, in segments of
2 MiB; more from the large pool, in segments of 20 MiB below 10 MiB and of a multiple of 2 MiB above. The smallest free block that is
large enough serves; the rest is split off where it is at least 512 bytes (small) or more than 1 MiB (large). Neighbours that are free
become one. Each stream has pools of its own. When the device has no room, segments that are wholly free are returned and the
request is tried again. Expandable segments: one growing range a pool and stream, in pages of 2 MiB (small) or 20 MiB (large).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SMALLEST = 512
SMALL_REQUEST = 2**20
SMALL_SEGMENT = 2 * 2**20
MEDIUM_REQUEST = 10 * 2**20
MEDIUM_SEGMENT = 20 * 2**20
ROUNDING = 2 * 2**20


class NoRoom(Exception):
    """The device cannot hold what was asked for."""


@dataclass(eq=False)
class Block:
    """A stretch of a segment."""

    start: int
    size: int
    segment: Segment
    stream: int
    small: bool
    free: bool = False
    before: Block | None = None
    after: Block | None = None


@dataclass(eq=False)
class Segment:
    """What was asked of the device at once."""

    number: int
    size: int


@dataclass
class Allocator:
    """Replays; `active`, `reserved` and their peaks are bytes."""

    capacity: float = float("inf")
    """Of the device, for segments."""
    expandable: bool = False
    active: int = 0
    """Of blocks in use, rounded as the allocator rounds them."""
    allocated: int = 0
    """The same as asked for, rounded to 512 bytes."""
    reserved: int = 0
    peak_active: int = 0
    peak_reserved: int = 0
    reserved_at_peak: int = 0
    """Reserved when `active` was highest."""
    retries: int = 0
    """How often free segments had to be returned."""
    _blocks: dict[int, Block] = field(default_factory=dict)
    _pools: dict[tuple[int, bool], list[tuple[int, int, int, Block]]] = field(default_factory=dict)
    _segments: int = 0
    _ranges: dict[tuple[int, bool], Block] = field(default_factory=dict)

    def replay(self, events: Iterable[Any]) -> Allocator:
        """A stream of `record.Allocation`. Errors: NoRoom."""
        for event in events:
            if event.bytes:
                self.take(event.storage, event.bytes, event.stream)
            else:
                self.give(event.storage)
        return self

    def take(self, storage: int, size: int, stream: int = 0) -> Block:
        """A block for a storage. Errors: NoRoom."""
        size = rounded(size)
        small = size <= SMALL_REQUEST
        block = self._best(size, stream, small) or self._new(size, stream, small)
        if self._splits(block.size - size, small):
            self._split(block, size)
        block.free = False
        self._blocks[storage] = block
        self.active += block.size
        if self.active > self.peak_active:
            self.peak_active, self.reserved_at_peak = self.active, self.reserved
        return block

    def give(self, storage: int) -> None:
        """The storage's block is free, and one with its free neighbours. What is not held is ignored."""
        block = self._blocks.pop(storage, None)
        if block is None:
            return
        self.active -= block.size
        block.free = True
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.free:
                self._forget(neighbour)
                block = _merged(block, neighbour)
        self._remember(block)

    def return_free_segments(self) -> int:
        """As `empty_cache`: bytes given back to the device."""
        before = self.reserved
        for pool in self._pools.values():
            whole = [entry for entry in pool if entry[3].before is None and entry[3].after is None]
            for entry in whole:
                pool.remove(entry)
                self.reserved -= entry[3].size
                if self.expandable:
                    self._ranges.pop((entry[3].stream, entry[3].small), None)
        return before - self.reserved

    def blocks(self) -> list[Block]:
        """Those in use."""
        return list(self._blocks.values())

    def _best(self, size: int, stream: int, small: bool) -> Block | None:
        pool = self._pools.get((stream, small), [])
        at = bisect_left(pool, (size, -1, -1))
        return pool.pop(at)[3] if at < len(pool) else None

    def _new(self, size: int, stream: int, small: bool) -> Block:
        if self.expandable:
            return self._grown(size, stream, small)
        length = segment_size(size)
        self._hold(length)
        self._segments += 1
        return Block(0, length, Segment(self._segments, length), stream, small)

    def _hold(self, length: int) -> None:
        if self.reserved + length > self.capacity:
            self.retries += 1
            self.return_free_segments()
            if self.reserved + length > self.capacity:
                raise NoRoom
        self.reserved += length
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _grown(self, size: int, stream: int, small: bool) -> Block:
        """The pool's range, longer by whole pages; a free end is used first."""
        page = SMALL_SEGMENT if small else MEDIUM_SEGMENT
        end = self._ranges.get((stream, small))
        spare = end.size if end is not None and end.free else 0
        length = -(-(size - spare) // page) * page
        self._hold(length)
        if end is None:
            self._segments += 1
            block = Block(0, length, Segment(self._segments, length), stream, small)
        else:
            end.segment.size += length
            block = Block(end.start + end.size, length, end.segment, stream, small, before=end)
            end.after = block
            if end.free:
                self._forget(end)
                block = _merged(block, end)
        self._ranges[(stream, small)] = block
        return block

    def _splits(self, rest: int, small: bool) -> bool:
        return rest >= SMALLEST if small or self.expandable else rest > SMALL_REQUEST

    def _split(self, block: Block, size: int) -> None:
        rest = Block(
            block.start + size, block.size - size, block.segment, block.stream, block.small, True, block, block.after
        )
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        key = (block.stream, block.small)
        if self._ranges.get(key) is block:
            self._ranges[key] = rest
        self._remember(rest)

    def _remember(self, block: Block) -> None:
        insort(
            self._pools.setdefault((block.stream, block.small), []),
            (block.size, block.segment.number, block.start, block),
        )
        key = (block.stream, block.small)
        if self.expandable and block.after is None:
            self._ranges[key] = block

    def _forget(self, block: Block) -> None:
        pool = self._pools[(block.stream, block.small)]
        pool.pop(bisect_left(pool, (block.size, block.segment.number, block.start)))


def rounded(size: int) -> int:
    """Up to a multiple of 512 bytes, at least one."""
    return max(SMALLEST, -(-size // SMALLEST) * SMALLEST)


def segment_size(size: int) -> int:
    """What is asked of the device for a block of this (rounded) size."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    if size < MEDIUM_REQUEST:
        return MEDIUM_SEGMENT
    return -(-size // ROUNDING) * ROUNDING


def _merged(block: Block, neighbour: Block) -> Block:
    """One block where two free ones stood side by side."""
    first, second = (neighbour, block) if neighbour.start < block.start else (block, neighbour)
    first.size += second.size
    first.after = second.after
    if second.after is not None:
        second.after.before = first
    first.free = True
    return first


def live_peak(events: Iterable[Any]) -> tuple[int, dict[str, int], str, dict[str, int]]:
    """Highest live bytes as asked for; by part, and in which phase; and the highest of each phase."""
    held: dict[int, tuple[int, str]] = {}
    parts: dict[str, int] = {}
    live, peak, at, phase = 0, 0, {}, ""
    phases: dict[str, int] = {}
    for storage, size, part, now, _ in events:
        if size:
            held[storage] = (size, part)
            live += size
            parts[part] = parts.get(part, 0) + size
            if live > phases.get(now, 0):
                phases[now] = live
            if live > peak:
                peak, at, phase = live, dict(parts), now
        elif storage in held:
            size, part = held.pop(storage)
            live -= size
            parts[part] -= size
    return peak, at, phase, phases
