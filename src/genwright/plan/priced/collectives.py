"""Seconds of messages between devices: rings and trees over links, machines inside networks, and what computing hides. No torch here.

    all-reduce     2 (n - 1) / n * B / bw + 2 (n - 1) a      ring      (nccl-tests, doc/PERFORMANCE.md: bus bandwidth)
                   2 B / bw + 2 log2(n) a                    tree, where that is less
    all-gather     (n - 1) / n * B / bw + (n - 1) a
    reduce-scatter the same
    send           B / bw + a

A ring over several machines goes through each network card once, so its bandwidth is the slower of the link inside and
this ring's share of the network; groups of one axis that are at work together share the cards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from genwright.catalogue.device_names import Placed
from genwright.plan.traced.record import Collective

LINK_SHARE = 0.78
"""Of a link's one-way rate that a large message gets: A100's 300 GB/s carries 230 (nccl-tests)."""
NETWORK_SHARE = 0.85
HOP_SECONDS = 3.5e-6
"""Between two devices of a machine."""
NETWORK_HOP_SECONDS = 1.2e-5
"""Between two machines."""
START_SECONDS = 1.0e-5
"""A message's launch."""
CONGESTION = 0.035
"""Share of the network's rate that each doubling of the machines costs: paths meet in the fabric."""
PODS = {
    "tpu-v2": (512, 31.0), "tpu-v3": (1024, 41.0), "tpu-v4": (4096, 150.0), "tpu-v5e": (256, 100.0), "tpu-v5p": (8960, 300.0),
    "tpu-v6e": (256, 224.0),
}  # fmt: skip
"""(chips of a pod, GB/s one way of a chip's links inside it): cloud.google.com/tpu/docs, system architecture of each version."""
HOST_CHIPS, HOST_NETWORK = 4, 12.5e9
"""Between pods each host sends for its chips: 100 Gb/s."""
MACHINE_NETWORK = 12.5
"""GB/s of a machine whose network nobody states: 100 Gb/s."""
LARGEST_MACHINE, RACK_CARD = 16, 50.0
"""More devices than this in one domain are a rack, with a card of 400 Gb/s for each (DGX GB200's data sheet)."""
CROWDING = 1.12
"""Computing beside a message takes so much longer: it gives up multiprocessors and memory's time."""


@dataclass(frozen=True)
class Fabric:
    """How the devices of a job are joined. Bytes a second, one way."""

    link: float
    """Of one device to the others of its machine."""
    network: float
    """Of a whole machine to the others."""
    node: int
    """Devices of a machine."""
    count: int
    """Devices of the job."""

    @property
    def machines(self) -> int:
        """Of the job."""
        return math.ceil(self.count / self.node)


@dataclass(frozen=True)
class Ring:
    """One group's way: bytes a second and the least seconds of a step of it."""

    bandwidth: float
    hop: float
    ranks: int
    machines: int


def fabric_of(placed: Placed, count: int) -> Fabric:
    """Of `count` such devices. Where no link is known it is PCIe 4's; a network that is not known, MACHINE_NETWORK or RACK_CARD's."""
    one = placed.device
    if one.name in PODS:
        pod, rate = PODS[one.name]
        return Fabric(rate * 1e9 * LINK_SHARE, HOST_NETWORK * NETWORK_SHARE * pod / HOST_CHIPS, pod, count)
    link = (one.link_gb_per_second or 25.0) * 1e9 * LINK_SHARE
    node = max(1, one.node_devices)
    usual = RACK_CARD * node if node > LARGEST_MACHINE else MACHINE_NETWORK
    network = (one.network_gb_per_second or usual) * 1e9 * NETWORK_SHARE
    return Fabric(link, network * (1 - CONGESTION) ** math.log2(max(1, count / node)), node, count)


def ring_of(fabric: Fabric, group: int, *, stride: int = 1) -> Ring:
    """The ring of a group whose ranks stand `stride` apart: 1 for the innermost axis, the inner axes' product for outer ones."""
    inside = max(1, min(group, fabric.node // stride)) if stride <= fabric.node else 1
    if inside >= group:
        return Ring(fabric.link, HOP_SECONDS, group, 1)
    together = max(1, min(stride, fabric.node))  # groups that leave a machine through the same cards
    return Ring(min(fabric.link, fabric.network / together), NETWORK_HOP_SECONDS, group, math.ceil(group / inside))


def seconds(kind: str, size: float, ring: Ring) -> float:
    """Of one message of `size` bytes: the whole tensor.

    >>> flat = Ring(bandwidth=1e9, hop=0.0, ranks=4, machines=1)
    >>> round(seconds("all-reduce", 1e9, flat) - START_SECONDS, 3), round(seconds("all-gather", 1e9, flat) - START_SECONDS, 3)
    (1.5, 0.75)
    """
    n, hops = ring.ranks, _hops(ring)
    if n < 2 or not size:
        return 0.0
    once = (n - 1) / n * size / ring.bandwidth + hops
    if kind == "all-reduce":
        tree = 2 * size / ring.bandwidth + 2 * math.log2(n) * ring.hop
        return START_SECONDS + min(2 * once, tree)
    if kind in ("all-gather", "reduce-scatter"):
        return START_SECONDS + once
    if kind == "all-to-all":
        return START_SECONDS + (n - 1) / n * size / ring.bandwidth + ring.hop
    return START_SECONDS + size / ring.bandwidth + ring.hop


def _hops(ring: Ring) -> float:
    """(n - 1) steps; of a ring over machines only one in as many crosses the network."""
    crossing = ring.machines if ring.machines > 1 else 0
    inside = max(0, ring.ranks - 1 - crossing)
    return inside * HOP_SECONDS + crossing * ring.hop


def message_seconds(one: Collective, fabric: Fabric, *, stride: int = 1) -> float:
    """Of all equal messages of a step."""
    return one.count * seconds(one.kind, one.bytes, ring_of(fabric, one.group, stride=stride))


def exposed(computing: float, hidden: Iterable[float], *, units: float = 1.0) -> float:
    """Seconds of messages beside computing that are not hidden by it.

    The first unit's gather has nothing to hide behind, nor has the last one's scatter; the rest runs beside computing as far
    as that lasts.
    """
    total = sum(hidden)
    if not total:
        return 0.0
    first = total / max(units, 1.0)
    return min(total, max(first, total - computing))


def bubble(stages: int, microbatches: int) -> float:
    """Share by which a pipeline's step is longer: (p - 1) / m   (Huang et al. 2019, arXiv 1811.06965).

    >>> bubble(4, 12)
    0.25
    """
    return (stages - 1) / microbatches if stages > 1 else 0.0
