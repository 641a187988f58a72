"""What a process keeps besides its tensors once it computes: libraries that have woken up, and code compiled for each new shape.

oneDNN, torch's library for products in bfloat16 on a CPU, compiles a kernel for every shape it meets and keeps the last
1,024 of them: half a megabyte each, whatever the matrices' size, so that a small model on rows of all lengths holds more code
than weights. What one costs is measured once per processor, thread count and torch version.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genwright.base.files import sha256_of_json, write_atomic
from genwright.plan.here.verify import release_freed_memory, resident_bytes

KEPT = 1024
"""Kernels that are kept: ONEDNN_PRIMITIVE_CACHE_CAPACITY where nobody sets it (oneDNN's guide, "Primitive Cache")."""
PRODUCTS = ("aten.mm.", "aten.addmm", "aten.bmm.", "aten.baddbmm")
SMALLEST = 16**3
"""Multiplications; torch does fewer itself (`mkldnn_gemm_min_size`)."""
SHAPES = 48
"""Measured for each type."""
LEAST_BYTES = 64 * 2**10
"""A type whose shapes leave less than this behind compiles nothing."""


@dataclass(frozen=True)
class Kernels:
    """What this machine's library keeps of each new shape; the default is nothing."""

    dtypes: tuple[str, ...] = ()
    """In which every new shape of a product is compiled."""
    bytes_each: float = 0.0
    seconds_each: float = 0.0
    """That the first product of a shape takes longer than the second."""

    def shapes(self, events: Iterable[Any]) -> set[str]:
        """The products among these operations that are compiled, each shape once."""
        return {one.signature for one in events if one.flops >= 2 * SMALLEST and self.compiles(one.signature)}

    def compiles(self, signature: str) -> bool:
        """Whether it is a product in such a type: "aten.mm.default(bfloat16[4, 8][8, 1],..."."""
        return signature.startswith(PRODUCTS) and signature.partition("(")[2].lstrip("[").startswith(self.dtypes)

    def held(self, number: float) -> float:
        """Bytes of so many."""
        return min(number, KEPT) * self.bytes_each


class Here:
    """What was compiled in this process by those who measure, and would not be by a run."""

    compiled = 0


def kernels_of(machine: dict[str, Any], folder: Path) -> Kernels:
    """What is kept of this machine; measured now where nothing is."""
    path = folder / f"kernels-{sha256_of_json(machine)[:12]}.json"
    try:
        values = json.loads(path.read_text())["kernels"]
        return Kernels(**{**values, "dtypes": tuple(values["dtypes"])})
    except (OSError, ValueError, KeyError, TypeError):
        found = measured()
    write_atomic(path, json.dumps({"machine": machine, "kernels": asdict(found)}))
    return found


def process_bytes(kernels: Kernels) -> float:
    """Of this process without what measuring left in it, once everything that computes has woken up."""
    _wake()
    release_freed_memory()
    return resident_bytes() - kernels.held(Here.compiled)


@cache
def _wake() -> None:
    """Thread pools, modules that are loaded with the first step, allocators' first pages: a step too small to compute anything."""
    model = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            side = torch.zeros(512, 512, dtype=dtype)
            side @ side
    Here.compiled += 1


def measured() -> Kernels:
    """Products of ever new shapes in each type: what the process grows by."""
    _wake()
    costs = {str(dtype)[6:]: _each(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)}
    compiled = {name: cost for name, cost in costs.items() if cost[0] > LEAST_BYTES}
    Here.compiled += SHAPES * len(compiled)
    size, seconds = max(compiled.values(), default=(0.0, 0.0))
    return Kernels(tuple(compiled), size, seconds)


@torch.no_grad()
def _each(dtype: torch.dtype) -> tuple[float, float]:
    """(bytes, seconds) that a new shape costs beside one that is known."""
    rows, weight = torch.zeros(256 + SHAPES, 64, dtype=dtype), torch.zeros(64, 64, dtype=dtype)
    rows[:200] @ weight
    before, extra = _settled(), []
    for number in range(SHAPES):
        new, known = (_seconds(rows[: 256 + number], weight) for _ in range(2))
        extra.append(new - known)
    return max(0.0, (_settled() - before) / SHAPES), max(0.0, sorted(extra)[SHAPES // 2])


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    began = time.perf_counter()
    left @ right
    return time.perf_counter() - began


def _settled() -> int:
    release_freed_memory()
    return resident_bytes()
