"""Messages against nccl-tests' formulas (doc/PERFORMANCE.md), conservation laws, and what computing hides."""

from __future__ import annotations

import pytest

from genwright.catalogue.device_names import place
from genwright.plan.priced.collectives import (
    START_SECONDS,
    Fabric,
    Ring,
    bubble,
    exposed,
    fabric_of,
    message_seconds,
    ring_of,
    seconds,
)
from genwright.plan.traced.record import Collective

FLAT = {n: Ring(1e9, 0.0, n, 1) for n in (2, 4, 8)}


@pytest.mark.parametrize("n", [2, 4, 8])
def test_bus_bandwidth_is_the_links(n: int) -> None:
    """Nccl-tests: busbw = algbw * 2 (n - 1) / n of an all-reduce, (n - 1) / n of gathers and scatters; B / t = algbw."""
    size = 1e12
    factors = {"all-reduce": 2 * (n - 1) / n, "all-gather": (n - 1) / n, "reduce-scatter": (n - 1) / n}
    for kind, factor in factors.items():
        assert size / (seconds(kind, size, FLAT[n]) - START_SECONDS) * factor == pytest.approx(1e9, rel=1e-6), kind


def test_a_reduction_is_a_scatter_and_a_gather() -> None:
    whole = seconds("all-reduce", 1e9, FLAT[8]) - START_SECONDS
    assert whole == pytest.approx(
        sum(seconds(kind, 1e9, FLAT[8]) - START_SECONDS for kind in ("reduce-scatter", "all-gather"))
    )


def test_small_reductions_take_a_tree() -> None:
    """Over 1024 ranks a ring's 2 * 1023 hops lose to 2 * 10."""
    ring = Ring(1e11, 1e-5, 1024, 128)
    assert seconds("all-reduce", 1e3, ring) == pytest.approx(START_SECONDS + 2 * 10 * 1e-5, rel=1e-3)
    assert seconds("all-gather", 1e3, ring) > seconds("all-reduce", 1e3, ring)


def test_one_rank_or_no_bytes_cost_nothing() -> None:
    assert seconds("all-reduce", 1e9, Ring(1e9, 1e-5, 1, 1)) == 0 == seconds("all-gather", 0, FLAT[4])


def test_groups_inside_a_machine_use_its_link_and_others_the_network() -> None:
    fabric = Fabric(link=2e11, network=4e10, node=8, count=64)
    inside, across = ring_of(fabric, 8), ring_of(fabric, 64)
    assert (inside.bandwidth, inside.machines) == (2e11, 1)
    assert (across.bandwidth, across.machines) == (4e10, 8)


def test_outer_groups_share_the_cards() -> None:
    """Eight ranks of a machine, each the first, second, ... of its own group over the machines: an eighth of the network each."""
    fabric = Fabric(link=2e11, network=4e10, node=8, count=64)
    assert ring_of(fabric, 8, stride=8).bandwidth == pytest.approx(4e10 / 8)
    assert ring_of(fabric, 4, stride=2).machines == 1


def test_what_is_stated_of_a_network_is_used() -> None:
    slow, fast = fabric_of(place("A100-80GB (100Gb IB)"), 64), fabric_of(place("A100-80GB (8x200Gb IB)"), 64)
    assert fast.network == pytest.approx(16 * slow.network)
    one = Collective("all-gather", 1e9, 64, 10.0, "forward", True)
    assert message_seconds(one, slow) > 5 * message_seconds(one, fast)


def test_computing_hides_all_but_the_first() -> None:
    assert exposed(10.0, [4.0], units=4) == pytest.approx(1.0)
    assert exposed(3.0, [4.0], units=100) == pytest.approx(1.0)
    assert exposed(0.0, [4.0], units=4) == pytest.approx(4.0)
    assert exposed(10.0, [], units=4) == 0.0


def test_bubble_of_a_pipeline() -> None:
    """GPipe: (p - 1) / m of the useful time."""
    assert (bubble(1, 8), bubble(4, 12), bubble(8, 8)) == (0.0, 0.25, 0.875)


def test_a_pods_chips_are_joined_and_pods_send_by_their_hosts() -> None:
    """TPU v5e: 256 chips, 100 GB/s one way each; 64 hosts of 100 Gb/s a pod."""
    one, two = fabric_of(place("TPU v5e"), 256), fabric_of(place("TPU v5e"), 512)
    assert (one.machines, two.machines) == (1, 2) and one.link == pytest.approx(100e9 * 0.78)
    assert two.network == pytest.approx(64 * 12.5e9 * 0.85)
