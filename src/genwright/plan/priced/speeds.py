"""What a device does in a second, by size of the work: the part of a roofline that a data sheet does not say. No torch here.

A product is cut into tiles that the multiprocessors take in waves; a wave that is half empty takes as long as a full one.
A tile's first steps fill pipelines, so short inner dimensions waste time. Memory needs microseconds before it streams.
Matrix units draw more power than a board may: the rate they keep up is below the data sheet's where its ratio to the
power is high. Where a matmul was measured (MAMF, `catalogue.devices`) that is the rate; else the curve of `sustained`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from genwright.base.errors import RecipeError
from genwright.catalogue.device_names import Placed
from genwright.catalogue.devices import Device

TILES = ((256, 128, 1.0), (128, 128, 0.97), (128, 64, 0.85), (64, 64, 0.7))
"""(rows, columns, share of the best rate) of the tiles that libraries choose from: larger ones read less per product."""
FILL_SECONDS = 4.0e-6
"""Filling and draining a tile's pipeline: latencies of memory, which faster matrix units do not shorten."""
BEST_SHARE = 0.92
"""Of a data sheet's rate, where power does not bind: measured on parts from RTX 3090 to TPU v5p."""
FLOPS_PER_WATT = {
    "pascal": 0.1, "volta": 0.28, "turing": 0.18, "ampere sm80": 0.70, "ampere sm86": 0.30, "ada": 0.56, "hopper": 1.07,
    "blackwell sm10": 1.9, "blackwell sm12": 0.5, "cdna1": 0.4, "cdna2": 0.4, "cdna3": 0.6, "cdna4": 0.9, "rdna": 0.2,
}  # fmt: skip
"""10^12 products' FLOPs per second and watt at which an architecture starts to be held back by its power: from the measured
matmuls of A100 (0.78 asked, 87 % kept) and H100 (1.41 asked, 80 % kept), and of the process they were made in."""
STEADY = 0.86
"""Of the best measured matmul, what a model's own products get hour after hour: boards warm up, operands are transposed, and
a MAMF is the best of all shapes."""
STEADY_BOUND = {"hopper": 0.73, "blackwell sm10": 0.73, "tpu": 1.0}
"""The same where a board's power binds harder (1.4 TFLOP/s and more for each watt, beside A100's 0.78): llm-foundry's tables of
H100 at 512 and 1,024 tokens, where nothing but products counts; on A100 the same rows find 0.86. A TPU's clock is fixed."""
MEMORY_SHARE = 0.88
"""Of the data sheet's bandwidth that a long stream gets."""
OPTIMIZER_SHARE = 0.9
"""Of that, what an optimizer's step over many tensors gets."""
MEMORY_RAMP = 1.5e-6
"""Seconds before memory streams at that rate."""
KERNEL_SECONDS = 2.0e-6
"""Least time of any operation on the device, once it is there."""
CORES = {"pascal sm60": 64, "volta": 64, "turing": 64, "ampere sm80": 64}
"""float32 lanes of a multiprocessor where they are not 128."""
FLASH = {"hopper": 0.55, "blackwell": 0.5}
"""Share of the matmul rate that fused attention reaches forward, where it is not `FLASH_ELSE`; FlashAttention-2 was not
written for Hopper's asynchronous units (Shah et al. 2024, arXiv 2407.08608: 35 % of H100's peak)."""
FLASH_ELSE = 0.72
FLASH_BACKWARD = 0.85
"""Of the forward's rate: more products, more registers."""
ACCUMULATE_16 = ("ampere sm86", "ada", "turing sm75", "blackwell sm12")
"""GeForce parts whose matrix units double their rate where sums too are kept in 16 bits."""


@dataclass(frozen=True)
class Speeds:
    """Rates of one device. All in base units: FLOPs or bytes a second, seconds."""

    name: str
    """Of the device."""
    peak: dict[str, float]
    """Precision -> FLOPs a second of a large product, as kept up."""
    vector: float
    """FLOPs a second outside matrix units."""
    bandwidth: float
    """Bytes a second of a long stream."""
    multiprocessors: int
    """0: not known, and no waves are counted."""
    clock: float
    """Hertz."""
    flash: float
    """Share of the matmul rate that fused attention reaches."""
    steady: float = 1.0
    """Share of `peak` that a model's own products of many rows get; 1 where they were measured themselves."""
    kernel: float = KERNEL_SECONDS
    """Least seconds of an operation."""
    basis: str = "datasheet"
    """"datasheet" or "calibrated"."""
    launch: float = 0.0
    """Seconds of the host for one operation, where measured; 0: as frameworks' tables say."""
    waits: bool = False
    """Whether the host computes itself: its time is then added to the device's."""

    def rate(self, precision: str) -> float:
        """FLOPs a second. Errors: RecipeError where the device has no such units, with what it has."""
        if precision in self.peak:
            return self.peak[precision]
        known = ", ".join(self.peak)
        raise RecipeError(
            f"{self.name} has no {precision} matrix units.", wanted=known, found=precision,
            do=f"set --precision {'fp16' if precision == 'bf16' and 'fp16' in self.peak else next(iter(self.peak), 'fp32')}",
        )  # fmt: skip

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
        """Seconds of `batch` products [m, k] x [k, n]: the best tile's waves at `share` of the rate, or the bytes, whichever is longer.

        >>> one = Speeds("one", {"bf16": 1e14}, 1e13, 1e15, 0, 1e9, 0.7, kernel=0.0)
        >>> round(one.matmul(4096, 4096, 4096) / (2 * 4096**3 / 1e14), 3)  # and 4 microseconds
        1.003
        """
        moved = traffic if traffic is not None else 2.0 * batch * (m * k + k * n + m * n)
        return max(self._tiled(m, n, k, batch, self.rate(precision) * share), self.stream(moved)) + self.kernel

    def _tiled(self, m: int, n: int, k: int, batch: int, rate: float) -> float:
        if not self.multiprocessors:
            return 2.0 * batch * m * n * k / rate + FILL_SECONDS
        each = rate / self.multiprocessors
        return min(
            self._waves(m, n, k, batch, tile, split, each)
            for tile in TILES
            for split in (1, 2, 4)
            if split == 1 or k >= 1024 * split
        )

    def _waves(
        self, m: int, n: int, k: int, batch: int, tile: tuple[int, int, float], split: int, each: float
    ) -> float:
        """Seconds of the busiest multiprocessor at `each` FLOPs a second: whole tiles, and filling its pipeline for each."""
        rows, columns, share = tile
        tiles = math.ceil(m / rows) * math.ceil(n / columns) * batch * split
        full, rest = divmod(tiles, self.multiprocessors)
        waves = full + (1.0 if rest else 0.0)
        return waves * (2.0 * rows * columns * k / split / share / each + FILL_SECONDS)

    def stream(self, moved: float) -> float:
        """Seconds of reading and writing so many bytes once."""
        return moved / self.bandwidth + (MEMORY_RAMP if moved else 0.0)

    def elementwise(self, moved: float, flops: float = 0.0, *, name: str = "", dtype: str = "") -> float:
        """Seconds of an operation that memory bounds; `name` and `dtype` count where its kind was measured."""
        return max(self.stream(moved), flops / self.vector) + self.kernel

    def update(self, moved: float) -> float:
        """Seconds of an optimizer that reads and writes so many bytes."""
        return self.elementwise(moved / OPTIMIZER_SHARE)

    def attention(
        self, flops: float, moved: float, *, queries: int, precision: str = "bf16", backward: bool = False
    ) -> float:
        """Seconds of fused attention: short rows leave multiprocessors waiting."""
        share = self.flash * (FLASH_BACKWARD if backward else 1.0) * queries / (queries + 128.0)
        return max(flops / (self.rate(precision) * max(share, 1e-3)), self.stream(moved)) + self.kernel


CPU_HERTZ = 2.6e9
CPU_FLOPS = 64
"""float32 FLOPs of a core and cycle: two AVX-512 multiply-add ports (catalogue, cpu-2)."""
CPU_SHARE = 0.7
CPU_BANDWIDTH = 8e9
"""Bytes a second of a core's share of memory, up to a socket's 150e9. A formula, not a part: calibrate."""


def speeds_of(placed: Placed, *, accumulate_16: bool = False) -> Speeds:
    """What a device's data sheet and its architecture's habits promise, at the clock its power limit leaves."""
    one, clock = placed.device, placed.clock
    if one.kind.startswith("x86"):
        return _cpu(one)
    vector = (one.fp32_tflops or 1.0) * 1e12 * clock
    return Speeds(
        name=one.title,
        peak={name: rate * clock for name, rate in _peaks(one, accumulate_16).items()},
        vector=vector,
        bandwidth=(one.memory_gb_per_second or 100.0) * 1e9 * MEMORY_SHARE,
        multiprocessors=one.multiprocessors or 0,
        clock=vector / (2 * _lanes(one) * one.multiprocessors) if one.multiprocessors else 1.5e9,
        flash=next((share for kind, share in FLASH.items() if one.kind.startswith(kind)), FLASH_ELSE),
        steady=next((share for kind, share in STEADY_BOUND.items() if one.kind.startswith(kind)), STEADY),
    )


def _cpu(one: Device) -> Speeds:
    """Cores x clock x FLOPs a cycle; bfloat16 as float32, for half of the processors have no instruction for it."""
    cores = int(one.name.rsplit("-", 1)[-1])
    rate = cores * CPU_HERTZ * CPU_FLOPS * CPU_SHARE
    return Speeds(
        one.title,
        {"fp32": rate, "bf16": rate},
        rate / 4,
        min(cores * CPU_BANDWIDTH, 150e9),
        0,
        CPU_HERTZ,
        0.5,
        waits=True,
    )


BITS = {"fp8": 8, "int8": 8, "tf32": 32}
"""Of an operand: half the bits, half the energy of a product."""


def sustained(one: Device, tflops: float, *, bits: int = 16) -> float:
    """Share of a data sheet's matmul rate that is kept up under the board's power.

    0.92 * min(1, sqrt(r0 / r)), r = rate * bits / 16 / watts, r0 of the architecture. A share above 1 is nowhere clamped away: where a
    matmul was measured, that stands.

    >>> from genwright.catalogue.devices import devices
    >>> round(sustained(devices()["h100-pcie"], 756), 2)
    0.65
    """
    if one.measured_matmul_bf16_tflops and one.bf16_tflops:
        return one.measured_matmul_bf16_tflops / one.bf16_tflops
    knee = next((value for kind, value in FLOPS_PER_WATT.items() if one.kind.startswith(kind)), None)
    if knee is None or not one.watts:
        return BEST_SHARE * (0.85 if one.kind.startswith("apple") else 1.0)
    return BEST_SHARE * min(1.0, math.sqrt(knee * one.watts / (tflops * bits / 16)))


def _peaks(one: Device, accumulate_16: bool) -> dict[str, float]:
    """float32 products stay float32: torch does not use tf32 unless told to. Missing 8-bit units: the 16-bit rate."""
    sixteen = one.fp16_tflops or one.bf16_tflops
    geforce = one.title.startswith("GeForce") or one.name in GEFORCE
    if accumulate_16 and sixteen and geforce and one.kind.startswith(ACCUMULATE_16):
        sixteen *= 2.0
    sheet = {
        "fp32": one.fp32_tflops, "tf32": one.tf32_tflops, "bf16": one.bf16_tflops, "fp16": sixteen,
        "fp8": one.fp8_tflops, "int8": one.int8_tops or sixteen,
    }  # fmt: skip
    return {
        name: value * 1e12 * (BEST_SHARE if name == "fp32" else sustained(one, value, bits=BITS.get(name, 16)))
        for name, value in sheet.items()
        if value
    }


GEFORCE = ("rtx-3090", "rtx-4090", "rtx-5090")
"""Rows of the researched table that are GeForce parts without saying so in their title."""


def _lanes(one: Device) -> int:
    return next((lanes for kind, lanes in CORES.items() if one.kind.startswith(kind)), 128)
