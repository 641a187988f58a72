"""The caching allocator against sequences worked by hand from its rules, and against what must always hold."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genwright.plan.priced.allocator import Allocator, NoRoom, live_peak, rounded, segment_size
from genwright.plan.traced.record import Allocation

MIB = 2**20


@pytest.mark.parametrize(("size", "block", "segment"), [
    (1, 512, 2 * MIB), (513, 1024, 2 * MIB), (MIB, MIB, 2 * MIB), (MIB + 1, MIB + 512, 20 * MIB),
    (10 * MIB - 512, 10 * MIB - 512, 20 * MIB), (10 * MIB, 10 * MIB, 10 * MIB), (11 * MIB + 1, 11 * MIB + 512, 12 * MIB),
])  # fmt: skip
def test_sizes_are_rounded_and_segments_chosen_as_the_rules_say(size, block, segment):
    assert rounded(size) == block
    assert segment_size(block) == segment


def test_small_blocks_share_a_segment_and_large_ones_split_only_what_is_worth_it():
    allocator = Allocator()
    for number in range(4):
        allocator.take(number, 512 * 1024)  # four halves of a MiB fill one small segment
    assert allocator.reserved == 2 * MIB
    allocator.take(4, 512)
    assert allocator.reserved == 4 * MIB
    allocator.take(5, 5 * MIB)
    allocator.take(6, 5 * MIB)
    allocator.take(
        7, 9 * MIB + 512 * 1024
    )  # 10 MiB are left of the large segment: a rest of half a MiB is not split off
    assert allocator.reserved == 24 * MIB
    assert allocator.active == 2 * MIB + 512 + 20 * MIB


def test_the_smallest_block_that_fits_serves_and_neighbours_become_one():
    allocator = Allocator()
    for number, size in enumerate((12, 16, 14)):
        allocator.take(number, size * MIB)
    for number in range(3):
        allocator.give(number)
    allocator.take(3, 13 * MIB)  # of 12, 14 and 16 the 14; its rest of 1 MiB stays with it
    assert allocator.active == 14 * MIB
    assert allocator.reserved == 42 * MIB
    allocator = Allocator()
    allocator.take(0, 20 * MIB)
    allocator.give(0)
    for number in (1, 2, 3):
        allocator.take(number, 6 * MIB)
    for number in (1, 3, 2):
        allocator.give(number)
    allocator.take(4, 20 * MIB)
    assert allocator.reserved == 20 * MIB  # the three and the rest were merged back


def test_streams_have_pools_of_their_own():
    allocator = Allocator()
    allocator.take(0, 30 * MIB, stream=0)
    allocator.give(0)
    allocator.take(1, 30 * MIB, stream=1)
    assert allocator.reserved == 60 * MIB


def test_free_segments_are_returned_before_there_is_no_room():
    allocator = Allocator(capacity=64 * MIB)
    allocator.take(0, 40 * MIB)
    allocator.give(0)
    allocator.take(1, 50 * MIB)
    assert (allocator.retries, allocator.reserved) == (1, 50 * MIB)
    with pytest.raises(NoRoom):
        allocator.take(2, 20 * MIB)


def test_holes_stop_a_run_that_its_live_bytes_would_allow_and_expandable_segments_do_not():
    def fill(allocator):
        for number in range(8):
            allocator.take(number, 10 * MIB)
        for number in range(0, 8, 2):
            allocator.give(number)
        return allocator.take(9, 40 * MIB)  # 40 MiB are live, 40 are asked for, 100 are there

    with pytest.raises(NoRoom):
        fill(Allocator(capacity=100 * MIB, expandable=True))  # holes inside a range stay holes
    fill(Allocator(capacity=100 * MIB))  # whole segments of 10 MiB are returned


def test_expandable_segments_grow_by_pages_and_use_their_free_end():
    allocator = Allocator(expandable=True)
    allocator.take(0, 30 * MIB)
    assert allocator.reserved == 40 * MIB
    allocator.take(1, 25 * MIB)  # 10 MiB are left at the end: 15 more are needed, a page of 20
    assert allocator.reserved == 60 * MIB


events = st.lists(
    st.tuples(st.integers(1, 40 * MIB), st.integers(0, 2), st.integers(0, 30), st.booleans()), max_size=60
)


@settings(max_examples=120, deadline=None)
@given(events, st.booleans())
def test_what_always_holds(steps, expandable):
    allocator, held = Allocator(expandable=expandable), {}
    for number, (size, stream, which, frees) in enumerate(steps):
        if frees and held:
            key = sorted(held)[which % len(held)]
            allocator.give(key)
            del held[key]
        else:
            allocator.take(number, size, stream)
            held[number] = size
        blocks = allocator.blocks()
        assert allocator.reserved >= allocator.active >= sum(rounded(size) for size in held.values())
        assert allocator.active == sum(block.size for block in blocks)
        spans = sorted((block.segment.number, block.start, block.start + block.size) for block in blocks)
        assert all(first[0] != second[0] or first[2] <= second[1] for first, second in pairwise(spans))
    for key in list(held):
        allocator.give(key)
    allocator.return_free_segments()
    assert (allocator.active, allocator.reserved) == (0, 0)


def test_the_live_peak_names_what_it_was():
    stream = [
        Allocation(1, 100, "weights", "build"), Allocation(2, 50, "activations", "forward"), Allocation(2, 0),
        Allocation(3, 40, "gradients", "backward"), Allocation(9, 0),
    ]  # fmt: skip
    peak, parts, phase, phases = live_peak(stream)
    assert (peak, phase) == (150, "forward")
    assert parts == {"weights": 100, "activations": 50}
    assert phases == {"build": 100, "forward": 150, "backward": 140}
