"""What the allocator holds once rows of many lengths have gone through it: a stream of microbatches, each of a length drawn. No torch here.

A block that one length left behind is too small for a longer one and split for a shorter one, so what is reserved grows beyond the
longest row's own peak. A microbatch of any length is read between two traced ones: storages of a causal model grow evenly with
the tokens, so each is b1 + (b2 - b1) (t - t1) / (t2 - t1) bytes at t tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from genwright.plan.priced.allocator import Allocator, NoRoom
from genwright.plan.published.profile import Profile
from genwright.plan.traced.compose import Step
from genwright.plan.traced.pieces import Pieces
from genwright.plan.traced.record import Allocation
from genwright.plan.traced.setup import Setup

MICROBATCHES = 16
"""Of a stream: by then most of what will be reserved is."""
SHORTEST = 16
"""Share of the longest row below which none is drawn: 1 / SHORTEST."""
SEED = 0


def drawn(setup: Setup, number: int = MICROBATCHES) -> list[int]:
    """Lengths of microbatches: of each the longest of its rows, which are even between nothing and the cap where nobody knows them.

    >>> drawn(Setup(model="", seq_len=1024), 3)
    [928, 458, 840]
    """
    dice = random.Random(SEED)
    shortest = max(1, setup.seq_len // SHORTEST)
    return [max(_row(setup, dice, shortest) for _ in range(setup.micro_batch)) for _ in range(number)]


def _row(setup: Setup, dice: random.Random, shortest: int) -> int:
    """One row's length: even within the quantiles that are known (0, median, 95th percentile, longest), else below the cap."""
    if not setup.lengths:
        return dice.randint(shortest, setup.seq_len)
    at, ends = dice.random(), (0.0, 0.5, 0.95, 1.0)
    sizes = (shortest, *setup.lengths)
    index = next(number for number, end in enumerate(ends[1:]) if at <= end)
    share = (at - ends[index]) / (ends[index + 1] - ends[index])
    return max(1, round(sizes[index] + share * (sizes[index + 1] - sizes[index])))


def between(shorter: Pieces, longer: Pieces, at: float) -> Pieces:
    """A microbatch `at` of the way from one to the other. Errors: ValueError where they are not of one course."""
    segments = [
        first._replace(
            changes=[
                one._replace(bytes=max(1, round(one.bytes + (other.bytes - one.bytes) * at)) if one.bytes else 0)
                for one, other in zip(first.changes, second.changes, strict=True)
            ]
        )
        for first, second in zip(shorter.segments, longer.segments, strict=True)
    ]
    return replace(longer, segments=segments)


def stream_of(
    shorter: Pieces, longer: Pieces, lengths: tuple[int, int], setup: Setup, profile: Profile
) -> Iterator[Allocation]:
    """Allocations of a run whose microbatches are as `drawn`; `lengths` are the tokens of the two that were traced."""
    step, states = Step(longer, setup, profile), list[int]()
    every = min(setup.accumulate, MICROBATCHES // 4)  # state is born early enough to be there
    step.build()
    for number, tokens in enumerate(drawn(setup)):
        step.use(between(shorter, longer, (tokens - lengths[0]) / (lengths[1] - lengths[0])))
        step.microbatch(first=number % every == 0)
        if (number + 1) % every == 0:
            states = step.optimizer_step(states)
    yield from step.stream.out


def reserved_bytes(events: Iterable[Allocation], *, expandable: bool = False, capacity: float = float("inf")) -> int:
    """The most that is held: at most `capacity`, where free segments are given back on the way or nothing helps."""
    memory = Allocator(capacity=capacity, expandable=expandable)
    try:
        return memory.replay(events).peak_reserved
    except NoRoom:
        return int(capacity)
