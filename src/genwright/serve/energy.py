"""Joules of each request: what a power meter read, split by work.

    E_dyn = max(0, E - P_idle dt)        of a window of dt seconds
    joules_i = E_dyn w_i / sum_j w_j     w = c_p (prompt - cached) + c_d generated     over requests that worked in it
    idle = E - sum_i joules_i            so sum over requests + idle = meter, always

A cached prompt token does no work and costs nothing. c_d / c_p is what a generated token costs beside a prompt token:
measured on the engine where it was, else 8, the ratio of a prompt that is computed in one pass to an answer that is not.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

DECODE_COST = 8.0
"""c_d with c_p = 1, where nothing was measured."""

POWERCAP = Path("/sys/class/powercap")


class PowerMeter(Protocol):
    """Something that counts joules."""

    source: str

    def joules(self) -> float:
        """Since some fixed moment; never falls."""
        ...


class Rapl:
    """The processor's own counters, one a package, in microjoules; they begin anew at their maximum."""

    source = "rapl"

    def __init__(self, root: Path = POWERCAP) -> None:
        self.counters = sorted(root.glob("intel-rapl:[0-9]*/energy_uj"))
        self.counters = [path for path in self.counters if path.parent.name.count(":") == 1]
        self._limits = [int((path.parent / "max_energy_range_uj").read_text()) for path in self.counters]
        self._last = [int(path.read_text()) for path in self.counters]
        self._total = 0

    def joules(self) -> float:
        """Sum over packages."""
        for number, path in enumerate(self.counters):
            now = int(path.read_text())
            self._total += now - self._last[number] + (self._limits[number] if now < self._last[number] else 0)
            self._last[number] = now
        return self._total / 1e6


class Nvml:
    """NVIDIA's counter of a device, in millijoules since the driver was loaded."""

    source = "nvml"

    def __init__(self, library: Any = None) -> None:
        self.library = library or ctypes.CDLL("libnvidia-ml.so.1")
        if self.library.nvmlInit_v2() != 0:
            raise OSError("NVML does not start")
        count = ctypes.c_uint()
        self.library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        self.devices = []
        for number in range(count.value):
            handle = ctypes.c_void_p()
            self.library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle))
            self.devices.append(handle)

    def joules(self) -> float:
        """Sum over devices."""
        total = 0
        for handle in self.devices:
            value = ctypes.c_ulonglong()
            if self.library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0:
                total += value.value
        return total / 1e3


@dataclass
class Estimated:
    """No counter: idle watts always, and the rest in proportion to the CPU time that engines used. Said to be an estimate."""

    watts: float
    """Under full load."""
    idle_watts: float
    cores: int
    busy_seconds: Callable[[], float]
    """CPU seconds that the engine's processes have used so far."""
    clock: Callable[[], float] = time.monotonic
    source: str = "estimated"

    def __post_init__(self) -> None:
        self._began, self._busy = self.clock(), self.busy_seconds()
        self._most = 0.0

    def joules(self) -> float:
        """Idle watts x time + (watts - idle watts) x CPU seconds / cores; an engine that was restarted begins at 0 again."""
        now = self.busy_seconds()
        if now < self._busy:
            self._busy = 0.0
        self._most += max(0.0, now - self._busy)
        self._busy = now
        return self.idle_watts * (self.clock() - self._began) + (self.watts - self.idle_watts) * self._most / self.cores


class Elsewhere:
    """The engine runs on another machine: nothing here knows what it draws."""

    source = "none"

    def joules(self) -> float:
        """Nothing is claimed."""
        return 0.0


def meter_of_this_machine(estimate: Callable[[], PowerMeter]) -> PowerMeter:
    """NVML where there is a GPU, else RAPL, else the estimate."""
    try:
        nvml = Nvml()
        if nvml.devices:
            return nvml
    except (OSError, AttributeError):
        pass
    try:
        rapl = Rapl()
        if rapl.counters:
            return rapl
    except (OSError, ValueError):
        pass
    return estimate()


@dataclass
class Work:
    """What one request made an engine do so far."""

    computed: int = 0
    """Prompt tokens that were not cached."""
    generated: int = 0
    charged: float = 0.0
    """Work of earlier windows."""
    joules: float = 0.0

    def total(self, decode_cost: float) -> float:
        """c_p computed + c_d generated, with c_p = 1."""
        return self.computed + decode_cost * self.generated


@dataclass
class Split:
    """Shares each reading among the requests that worked since the last one."""

    meter: PowerMeter
    idle_watts: float
    decode_cost: float = DECODE_COST
    clock: Callable[[], float] = time.monotonic
    running: dict[str, Work] = field(default_factory=dict)
    told: Callable[[float, float, float], None] | None = None
    """Called with (seconds, joules, idle) of each window."""

    def __post_init__(self) -> None:
        self._at, self._read = self.clock(), self.meter.joules()
        self.idle = self.total = 0.0

    def begin(self, request: str) -> Work:
        """A request starts."""
        return self.running.setdefault(request, Work())

    def end(self, request: str) -> float:
        """A request is over: close the window, so that what it did is charged, and return its joules."""
        self.window()
        work = self.running.pop(request, None)
        return work.joules if work else 0.0

    def window(self) -> Mapping[str, float]:
        """Read the meter and share it. Returns {"joules", "idle"} of the window."""
        now, read = self.clock(), self.meter.joules()
        seconds, joules = now - self._at, max(0.0, read - self._read)
        self._at, self._read = now, read
        dynamic = max(0.0, joules - self.idle_watts * seconds)
        new = {name: work.total(self.decode_cost) - work.charged for name, work in self.running.items()}
        whole = sum(new.values())
        given = 0.0
        for name, amount in new.items():
            share = dynamic * amount / whole if whole else 0.0
            work = self.running[name]
            work.joules, work.charged, given = work.joules + share, work.charged + amount, given + share
        self.total, self.idle = self.total + joules, self.idle + joules - given
        if self.told is not None and joules:
            self.told(seconds, joules, joules - given)
        return {"joules": joules, "idle": joules - given}
