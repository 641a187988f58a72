"""Devices as people and papers write them: "8xA100 80GB", "4090 24GB", "M1 7-Core GPU 8GB", "A100-80GB-SXM (4x100Gb RoCE)".

A name is read in pieces: how many, how much memory, what power it is held to, what network joins the machines; what is left
is the part. Vendors' and sellers' words say nothing and are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from genwright.base.registry import unknown_name
from genwright.catalogue.devices import Device, devices

DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212_"), "-")
"""Hyphens that only look like one."""
SAYS_NOTHING = re.compile(
    r"\b(nvidia|geforce|rtx|gtx|tesla|amd|radeon|instinct|apple|google|huawei|intel|aws"
    r"|macbook (pro|air)|mac (studio|mini|pro)|macbook|imac|mac"
    r"|gpus?|graphics|cards?|generation|gen|hbm\d?e?|tensor ?core|nvlink|nvswitch|efa|roce|infiniband|ib|ethernet|chips?|cloud|power|capped"
    r"|dgx|hgx|workstation|server|edition|colab|kaggle|single|consumer)\b"
)
COUNT = re.compile(r"^(\d+)\s*[x×*]\s*(?=[a-z\d])|(?<![a-z])[x×*]\s*(\d+)$")
MEMORY = re.compile(r"(\d+(?:\.\d+)?(?=\s*-?\s*gi?b(?![\w/]))|(?<![a-z\d.])\d+(?=g(?![\w/])))\s*-?\s*g(?:i?b)?")
"""Its unit may be "G" where no letter stands before the number: an A10G is a part, "-80G" a size."""
BARE_MEMORY = re.compile(r"(?<=[a-z]\d00)[- ](40|80)$")
"""Of two sizes of one card, without its unit: "A100-40"."""
NETWORK = re.compile(r"(?:(\d+)\s*x\s*)?(\d+)\s*g(?:bps|b/s|bit/s|bit|b(?=\s*(?:roce|ib|infiniband|ethernet|efa)))")
WATTS = re.compile(r"(\d+)\s*w\b")
SLICE = re.compile(r"(v5 ?lite ?pod|v\d[epi]?)-(\d+)$")
OTHER_MEMORY = 2.1
"""A card is sold with up to twice the usual memory; a name that says more counts its host's too ("GH200 480GB")."""
CORES_NAMED = ("v2", "v3", "v4", "v5p")
"""TPU slices that are named by their cores, two on a chip."""
CAPPED_SHARE = 0.5
"""Of the design power, where a name only says "power-capped" (Patel et al. 2024, Splitwise: H100 at 350 of 700 W)."""
INSTANCES = {
    "g4dn.xlarge": ("t4", 1), "g5.xlarge": ("a10g", 1), "g5.2xlarge": ("a10g", 1), "g5.12xlarge": ("a10g", 4),
    "g5.48xlarge": ("a10g", 8), "g6.xlarge": ("l4", 1), "g6.12xlarge": ("l4", 4), "g6e.xlarge": ("l40s", 1),
    "p3.2xlarge": ("v100-16gb", 1), "p3.16xlarge": ("v100-16gb", 8), "p4d.24xlarge": ("a100-40gb", 8),
    "p4de.24xlarge": ("a100-80gb", 8), "p5.48xlarge": ("h100", 8), "p5e.48xlarge": ("h200", 8),
    "trn1.32xlarge": ("trainium1", 16), "trn2.48xlarge": ("trainium2", 16), "inf2.48xlarge": ("inferentia2", 12),
    "dgx a100": ("a100-80gb", 8), "dgx h100": ("h100", 8), "dgx h200": ("h200", 8), "dgx b200": ("b200", 8), "dgx-1": ("v100-16gb", 8),
}  # fmt: skip
"""Machines that are rented whole."""


@dataclass(frozen=True)
class Placed:
    """What a name says."""

    device: Device
    """Its memory, network and watts are the name's where it states them."""
    count: int = 1
    """Devices; 1 where none are counted."""
    clock: float = 1.0
    """Share of the full clock under a power cap: dynamic power goes with the cube of the clock."""


@cache
def place(name: str) -> Placed:
    """Read a name. Errors: UnknownName with the nearest one."""
    said = " ".join(name.casefold().translate(DASHES).split())
    if said in INSTANCES:
        known, count = INSTANCES[said]
        return Placed(devices()[known], count)
    if exact := _exact().get(said):
        return Placed(devices()[exact])
    count, said = _count(said)
    if exact := _exact().get(said):
        return Placed(devices()[exact], count)
    rest, network = _take(NETWORK, said)
    rest, watts = _take(WATTS, rest)
    one = _part(rest, name)
    limit = float(watts[1]) if watts else CAPPED_SHARE * one.watts if "capped" in said and one.watts else None
    if network:
        one = replace(one, network_gb_per_second=float(network[1] or 1) * float(network[2]) / 8)
    clock = 1.0
    if limit and one.watts and limit < one.watts:
        clock = clock_under(limit, one)
        one = replace(one, watts=limit)
    return Placed(one, count, clock)


def clock_under(limit: float, one: Device) -> float:
    """((limit - idle) / (design - idle))^(1/3): the clock at which the dynamic power is what the limit leaves.

    >>> from genwright.catalogue.devices import devices
    >>> round(1 / clock_under(350, devices()["h100"]), 2)
    1.31
    """
    idle = one.idle_watts or 0.15 * (one.watts or limit)
    return float(max(0.05, (limit - idle) / ((one.watts or limit) - idle)) ** (1 / 3))


def key_of(name: str) -> str:
    """What is left of a name's part when all that says nothing is gone: "RTX-4070-Laptop-8GB" -> "4070laptop"."""
    said = MEMORY.sub(" ", name.casefold().translate(DASHES))
    said = re.sub(r"\b([rg]tx)(?=\d)", r"\1 ", said)
    said = re.sub(r"sxm\d", "sxm", said.replace("-", " ").replace("(", " ").replace(")", " "))
    return re.sub(r"[^a-z0-9.]+", "", SAYS_NOTHING.sub(" ", said))


def _part(said: str, whole: str) -> Device:
    """The device whose key it is; among those of one key, the one whose memory is nearest to what the name says."""
    said = BARE_MEMORY.sub(r"-\1gb", said.strip())
    memory = [float(size) for size in MEMORY.findall(said)]
    found = _keys().get(key_of(said)) or _keys().get(key_of(re.sub(r"\([^)]*\)", "", said)))
    if not found:
        raise unknown_name("device", whole, [*devices(), *_exact()])
    if not memory:
        return devices()[found[0]]
    one = min((devices()[name] for name in found), key=lambda one: abs((one.memory_gb or 0.0) - memory[0]))
    known = one.memory_gb or memory[0]
    other = abs(known - memory[0]) > 0.1 * known and (memory[0] < OTHER_MEMORY * known or one.vendor == "Apple")
    return replace(one, memory_gb=memory[0]) if other else one


def _count(said: str) -> tuple[int, str]:
    """("8xa100" -> 8, "a100"); a slice of TPUs is as many chips, or half as many where cores are counted."""
    if match := COUNT.search(said):
        return int(match[1] or match[2]), COUNT.sub("", said, count=1)
    if match := SLICE.search(said):
        chips = int(match[2]) // (2 if match[1] in CORES_NAMED else 1)
        return max(1, chips), "tpu " + re.sub("v5 ?lite ?pod", "v5e", match[1])
    return 1, said


def _take(pattern: re.Pattern[str], said: str) -> tuple[str, re.Match[str] | None]:
    match = pattern.search(said)
    return (said[: match.start()] + " " + said[match.end() :], match) if match else (said, None)


@cache
def _exact() -> dict[str, str]:
    """Alias, title or name in lower case -> name."""
    return {word.casefold(): name for name, one in devices().items() for word in (name, one.title, *one.aliases)}


@cache
def _keys() -> dict[str, list[str]]:
    """Key -> devices, those that bear it as an alias or without a memory first: they are the usual ones."""
    found: dict[str, list[str]] = {}
    for name, one in devices().items():
        for word in (*one.aliases, name, one.title):
            known = found.setdefault(key_of(word), [])
            if name not in known:
                known.insert(0 if word in one.aliases else len(known), name)
    return found
