"""Measure this machine, or its first CUDA device, for a minute: products by shape, memory by size, attention, launches, the optimizer.

What is measured is what a training step is made of, on operands that are not in a cache, medians of a few runs each.
"""

from __future__ import annotations

import datetime
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from genwright.base.errors import BadRequest
from genwright.plan.here.calibrate import host_seconds, processor
from genwright.plan.priced.calibration import Calibration, keep

SHAPES_CPU = [
    (m, n, k)
    for m in (32, 256, 1024)
    for n, k in ((256, 256), (576, 576), (1536, 576), (576, 1536), (2048, 2048), (8192, 2048), (16384, 576))
] + [(576, 576, 256), (1536, 576, 1024), (576, 1536, 1024), (2048, 2048, 1024), (256, 256, 512)]
"""(m, n, k): tokens against the widths of models that a CPU trains; the last ones are weights' gradients."""
SHAPES_CUDA = [
    (m, n, k)
    for m in (16, 128, 512, 2048, 8192)
    for n, k in (
        (512, 512),
        (1024, 1024),
        (2048, 2048),
        (4096, 4096),
        (11008, 4096),
        (4096, 11008),
        (14336, 4096),
        (8192, 8192),
        (128256, 2048),
    )
] + [
    (4096, 4096, 2048),
    (4096, 4096, 8192),
    (11008, 4096, 8192),
    (2048, 2048, 8192),
    (64, 4096, 8192),
    (4096, 64, 8192),
    (8192, 64, 4096),
    (8192, 4096, 64),
]
STREAMS_CPU = (2**12, 2**16, 2**19, 2**21, 2**23, 2**25)
STREAMS_CUDA = (2**14, 2**18, 2**21, 2**23, 2**25, 2**27, 2**29)
"""Numbers of an elementwise operation's operand."""
LENGTHS_CPU, LENGTHS_CUDA = (64, 256, 1024), (128, 512, 1024, 2048, 4096, 8192)
REPEATS = 7
COLD_BYTES = 2**27
"""Operands are taken in turn from copies that outgrow the caches."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}


def machine_of(device: str) -> dict[str, Any]:
    """What a calibration belongs to."""
    if device == "cuda":
        return {
            "device": torch.cuda.get_device_name(0),
            "driver": _driver(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
        }
    return {
        "device": processor(),
        "driver": platform.release(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def measure(
    device: str = "", *, folder: Path | None = None, seconds: float = 60.0, say: Callable[[str], Any] = lambda _: None
) -> dict[str, Any]:
    """Measure and keep; the file's values and its path. Errors: BadRequest where the device is not there."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise BadRequest(
            f"torch sees no device '{device}' here.",
            wanted="cpu, or cuda where torch has one",
            found=device,
            do="genwright calibrate --device cpu",
        )
    clock = Clock(device, time.perf_counter() + seconds)
    found = Calibration(
        machine=machine_of(device),
        products=_products(clock, say),
        streams=_streams(clock, say),
        attention=_attention(clock, say),
        classes=_classes(clock, say),
        launch_seconds=host_seconds() if device == "cpu" else _launch(clock),
        optimizer_rate=_optimizer(clock),
        waits=device == "cpu",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    path = keep(found, folder) if folder else None
    return {"path": str(path or ""), "calibration": found}


class Clock:
    """Times calls on a device, and knows when the minute is over."""

    def __init__(self, device: str, until: float) -> None:
        self.device, self._until = device, until

    @property
    def over(self) -> bool:
        """Whether what is left to measure is skipped."""
        return time.perf_counter() > self._until

    def median(self, call: Callable[[int], Any], repeats: int = REPEATS) -> float:
        """Seconds of a call, given its turn; the first is not counted. The median of the faster half: what else runs only slows."""
        call(0)
        times = []
        for turn in range(1, repeats + 1):
            self._wait()
            began = time.perf_counter()
            call(turn)
            self._wait()
            times.append(time.perf_counter() - began)
        return statistics.median(sorted(times)[: (repeats + 1) // 2])

    def steady(self, call: Callable[[int], Any], inside: int = 8) -> float:
        """Seconds of one of several calls in a row, so that a device's queue is never empty."""
        if self.device == "cpu":
            return self.median(call)
        return self.median(lambda turn: [call(turn + number) for number in range(inside)]) / inside

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Half everywhere: neither overflows nor turns denormal."""
        return torch.full(shape, 0.5, device=self.device, dtype=dtype)

    def copies(self, *shapes: tuple[int, ...], dtype: torch.dtype) -> list[list[Tensor]]:
        """As many sets of operands as outgrow the caches, at most eight."""
        size = sum(torch.Size(shape).numel() for shape in shapes) * dtype.itemsize
        return [
            [self.tensor(*shape, dtype=dtype) for shape in shapes] for _ in range(max(1, min(8, COLD_BYTES // size)))
        ]


@torch.no_grad()
def _products(clock: Clock, say: Callable[[str], Any]) -> tuple[tuple[str, int, int, int, float], ...]:
    shapes = SHAPES_CUDA if clock.device == "cuda" else SHAPES_CPU
    found = []
    for precision in ("bf16", "fp32"):
        say(f"products in {precision}")
        for m, n, k in shapes:
            if clock.over:
                break
            sets = clock.copies((m, k), (n, k), dtype=DTYPES[precision])
            call = lambda turn, sets=sets: sets[turn % len(sets)][0] @ sets[turn % len(sets)][1].t()
            found.append((precision, m, n, k, clock.steady(call)))
    return tuple(found)


@torch.no_grad()
def _streams(clock: Clock, say: Callable[[str], Any]) -> tuple[tuple[float, float], ...]:
    """Adding two tensors into a third: three times their bytes."""
    say("memory")
    found = []
    for numel in STREAMS_CUDA if clock.device == "cuda" else STREAMS_CPU:
        sets = clock.copies((numel,), (numel,), (numel,), dtype=torch.bfloat16)
        call = lambda turn, sets=sets: torch.add(
            sets[turn % len(sets)][0], sets[turn % len(sets)][1], out=sets[turn % len(sets)][2]
        )
        found.append((6.0 * numel, clock.steady(call)))
    return tuple(found)


@torch.no_grad()
def _classes(clock: Clock, say: Callable[[str], Any]) -> dict[str, float]:
    """Seconds of other kinds beside an addition's in bfloat16 of as many bytes."""
    say("elementwise operations")
    sizes = STREAMS_CUDA if clock.device == "cuda" else STREAMS_CPU
    numel = sizes[len(sizes) // 2]
    sixteen, full = (clock.copies((numel,), (numel,), (numel,), dtype=DTYPES[name]) for name in ("bf16", "fp32"))
    turn_of = lambda sets, turn: sets[turn % len(sets)]
    plain = clock.steady(lambda turn: torch.add(*turn_of(sixteen, turn)[:2], out=turn_of(sixteen, turn)[2])) / (
        6 * numel
    )
    calls: dict[str, tuple[float, Callable[[int], Any]]] = {
        "fp32": (12, lambda turn: torch.add(*turn_of(full, turn)[:2], out=turn_of(full, turn)[2])),
        "slow bf16": (4, lambda turn: torch.nn.functional.silu(turn_of(sixteen, turn)[0])),
        "slow fp32": (8, lambda turn: torch.exp(turn_of(full, turn)[0], out=turn_of(full, turn)[2])),
        "cast": (6, lambda turn: turn_of(full, turn)[2].copy_(turn_of(sixteen, turn)[0])),
    }
    return {name: clock.steady(call) / (each * numel) / plain for name, (each, call) in calls.items()}


def _attention(clock: Clock, say: Callable[[str], Any]) -> tuple[tuple[str, int, float, float, float], ...]:
    """Causal, eight heads of 64 on a CPU and 32 of 128 on a GPU: forward alone, then both."""
    say("attention")
    heads, width = (32, 128) if clock.device == "cuda" else (8, 64)
    found = []
    for tokens in LENGTHS_CUDA if clock.device == "cuda" else LENGTHS_CPU:
        query = clock.tensor(1, heads, tokens, width, dtype=torch.bfloat16).requires_grad_()
        forward = lambda _, query=query: scaled_dot_product_attention(query, query, query, is_causal=True)
        both = lambda turn, forward=forward: forward(turn).sum().backward()
        with torch.no_grad():
            first = clock.steady(forward)
        later = max(clock.steady(both) - first, first)
        found.append(("bf16", tokens, 4.0 * heads * tokens * tokens * width, first, later))
    return tuple(found)


@torch.no_grad()
def _launch(clock: Clock) -> float:
    """Of an operation too small to compute anything."""
    small = clock.tensor(4)
    return clock.median(lambda _: [small.add(1.0) for _ in range(200)]) / 200


def _optimizer(clock: Clock) -> float:
    """Bytes a second of a fused AdamW: weight, gradient and two moments are read, three of them written."""
    numel = 2**26 if clock.device == "cuda" else 2**24
    weight = torch.nn.Parameter(clock.tensor(numel))
    weight.grad = clock.tensor(numel)
    optimizer = torch.optim.AdamW([weight], fused=True)
    return 7 * 4 * numel / clock.median(lambda _: optimizer.step())


def _driver() -> str:
    """As the vendor's tool says; empty where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return said.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""
