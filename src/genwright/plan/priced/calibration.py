"""A minute's measurements of one device, kept in a file, and the speeds that follow from them. No torch here.

Kept per device, driver, torch and thread count; never mixed with what others published. A product that was not measured is
priced by the rates of those nearest to it in shape: distance is of the logarithms of its three sizes.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from genwright.base.errors import UnknownName
from genwright.base.files import sha256_of_json, write_atomic
from genwright.catalogue.device_names import place
from genwright.catalogue.devices import Device
from genwright.plan.priced.speeds import Speeds

NEAREST = 4
"""Measured products that price one which was not."""


@dataclass(frozen=True)
class Calibration:
    """What was measured. All in seconds, bytes, FLOPs."""

    machine: dict[str, Any]
    """device, driver, torch, threads, processor."""
    products: tuple[tuple[str, int, int, int, float], ...] = ()
    """(precision, m, n, k, seconds)."""
    streams: tuple[tuple[float, float], ...] = ()
    """(bytes read and written, seconds) of an elementwise operation, by size."""
    attention: tuple[tuple[str, int, float, float, float], ...] = ()
    """(precision, tokens, FLOPs of the whole square, forward seconds, backward seconds)."""
    launch_seconds: float = 5e-6
    """Of the host for one operation."""
    classes: dict[str, float] = field(default_factory=dict)
    """Kind of elementwise operation -> seconds beside those of `streams` for as many bytes: see `class_of`."""
    optimizer_rate: float = 0.0
    """Bytes a second of a fused AdamW; 0: not measured."""
    waits: bool = True
    """Whether the host computes itself, so that its time is added to the device's, not laid beside it."""
    idle_watts: float | None = None
    """Read from the device, where it tells."""
    load_watts: float | None = None
    """The same during products."""
    date: str = ""
    """When, UTC."""

    def speeds(self) -> Speeds:
        """For `plan.priced.step_time`."""
        largest = max(self.streams, default=(1e9, 0.1))
        best = {name: max(rates) for name, rates in self.rates.items()}
        rate = largest[0] / largest[1]
        return MeasuredSpeeds(
            name=str(self.machine.get("device", "this machine")), peak=best, vector=max(best.values(), default=1e11), bandwidth=rate,
            multiprocessors=0, clock=1e9, flash=0.7, kernel=0.0, basis="calibrated", launch=self.launch_seconds, waits=self.waits,
            measured=self,
        )  # fmt: skip

    @property
    def rates(self) -> dict[str, list[float]]:
        """Precision -> FLOPs a second of each product."""
        found: dict[str, list[float]] = {}
        for name, m, n, k, spent in self.products:
            found.setdefault(name, []).append(2.0 * m * n * k / spent)
        return found

    @property
    def key(self) -> str:
        """Which file it is."""
        return sha256_of_json(self.machine)[:12]


@dataclass(frozen=True)
class MeasuredSpeeds(Speeds):
    """Speeds read off measurements."""

    measured: Calibration = field(default_factory=lambda: Calibration({}))
    """Where they are from."""

    def matmul(
        self,
        m: int,
        n: int,
        k: int,
        *,
        batch: int = 1,
        precision: str = "bf16",
        traffic: float | None = None,
        share: float = 1.0,
    ) -> float:
        """By the rates of the nearest measured shapes of this precision."""
        near = [
            (_distance((m, n, k), (a, b, c)), 2.0 * a * b * c / spent)
            for name, a, b, c, spent in self.measured.products
            if name == precision
        ]
        if not near:
            return super().matmul(m, n, k, batch=batch, precision=precision, traffic=traffic, share=share)
        weighed = [(1.0 / (distance + 0.05) ** 2, rate) for distance, rate in sorted(near)[:NEAREST]]
        rate = math.exp(sum(weight * math.log(rate) for weight, rate in weighed) / sum(weight for weight, _ in weighed))
        return 2.0 * batch * m * n * k / rate

    def stream(self, moved: float) -> float:
        """By the curve over sizes."""
        points = self.measured.streams
        if not points or not moved:
            return super().stream(moved)
        return interpolated(points, moved)

    def elementwise(self, moved: float, flops: float = 0.0, *, name: str = "", dtype: str = "") -> float:
        """The same, as many times as its kind took."""
        return self.stream(moved) * self.measured.classes.get(class_of(name, dtype), 1.0)

    def update(self, moved: float) -> float:
        """At the rate of the fused AdamW."""
        return moved / self.measured.optimizer_rate if self.measured.optimizer_rate else super().update(moved)

    def attention(
        self, flops: float, moved: float, *, queries: int, precision: str = "bf16", backward: bool = False
    ) -> float:
        """By the rate at the nearest length; FLOPs are of the pairs that are seen, half of the measured square's."""
        rows = [
            (tokens, whole / 2 * (2.5 if backward else 1.0) / (later if backward else first))
            for name, tokens, whole, first, later in self.measured.attention
            if name == precision
        ]
        if not rows:
            return super().attention(flops, moved, queries=queries, precision=precision, backward=backward)
        return flops / interpolated(tuple(sorted(rows)), queries)


SLOW = ("silu", "gelu", "softmax", "sigmoid", "tanh", "exp", "pow", "rsqrt", "sqrt", "cos", "sin")
"""Words of operations that compute more than they move."""


def class_of(name: str, dtype: str) -> str:
    """ "slow bf16", "cast", "fp32": which kind was measured for an operation; "" for a plain one in 16 bits.

    >>> class_of("aten.silu_backward", "bf16"), class_of("aten._to_copy", "fp32"), class_of("aten.add", "bf16")
    ('slow bf16', 'cast', '')
    """
    if any(word in name for word in SLOW):
        return f"slow {dtype}"
    if "copy" in name:
        return "cast"
    return "fp32" if dtype == "fp32" else ""


def interpolated(points: tuple[tuple[float, float], ...], at: float) -> float:
    """Between two measured points on logarithmic axes; beyond the last, in proportion; before the first, as the first.

    >>> interpolated(((1.0, 1.0), (100.0, 10.0)), 10.0)
    3.1622776601683795
    """
    if at <= points[0][0]:
        return points[0][1]
    if at >= points[-1][0]:
        (x0, y0), (x1, y1) = points[max(0, len(points) - 2)], points[-1]
        return y1 * at / x1 if y1 > y0 and x1 > x0 else y1
    place = bisect_left(points, (at,))
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    share = math.log(at / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) * (1 - share) + math.log(y1) * share)


def keep(one: Calibration, folder: Path) -> Path:
    """Write it whole or not at all; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"speeds-{one.key}.json"
    write_atomic(path, json.dumps(asdict(one)))
    return path


def kept(machine: dict[str, Any], folder: Path) -> Calibration | None:
    """The calibration of exactly this machine; None where there is none, or where it cannot be read."""
    try:
        values = json.loads((folder / f"speeds-{sha256_of_json(machine)[:12]}.json").read_text())
        rows = {name: tuple(tuple(row) for row in values[name]) for name in ("products", "streams", "attention")}
        return Calibration(
            **{name: values[name] for name in (one.name for one in fields(Calibration)) if name in values} | rows
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def calibration_of(device: Device, folder: Path) -> Calibration | None:
    """The newest calibration in a folder that was made on such a device; a CPU by its number of threads. None without one."""
    found = []
    for path in folder.glob("speeds-*.json"):
        try:
            machine = json.loads(path.read_text())["machine"]
        except (OSError, ValueError, KeyError):
            continue
        if _is(machine, device) and (one := kept(machine, folder)):
            found.append(one)
    return max(found, key=lambda one: one.date, default=None)


def _is(machine: dict[str, Any], device: Device) -> bool:
    if "threads" in machine:
        return device.name == f"cpu-{machine['threads']}"
    try:
        return place(str(machine.get("device", ""))).device.name == device.name
    except UnknownName:
        return False


def _distance(left: tuple[int, int, int], right: tuple[int, int, int]) -> float:
    return math.dist([math.log2(size) for size in left], [math.log2(size) for size in right])
