"""What one step of one device does, as plain values: operations, collectives, allocations. No torch here.

A Trace is made by `plan.traced.trace_setup` from a Setup, priced by `plan.priced.roofline` and `plan.priced.collectives`, replayed by
`plan.priced.allocator`. It knows no device: equal for all, so it is kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("matmul", "attention", "elementwise", "reduction", "copy", "embedding", "optimizer", "dequantize")
"""Of an operation, by what bounds its time: matmul and attention by arithmetic, the rest by memory."""
PHASES = ("forward", "loss", "recompute", "backward", "optimizer")
"""Of a training step, in order; of serving: "prefill", "decode"."""
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "send", "all-to-all")


class Op(NamedTuple):
    """Equal operations of one phase, as often as they run in one optimiser step of one device."""

    op: str
    """"aten.mm"."""
    kind: str
    """A name of KINDS."""
    dtype: str
    """Of the product's operands or the largest tensor: "bf16", "fp16", "fp32", "int8"."""
    flops: float
    """Of one run."""
    bytes: float
    """Read and written by one run."""
    count: float  # type: ignore[assignment]  # hides tuple.count, which nobody asks
    """Runs per optimiser step."""
    phase: str
    """A name of PHASES."""
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(m, n, k, batch) of a product [m, k] x [k, n]; (queries, keys, head width, rows x heads) of attention; else zeros."""


class Collective(NamedTuple):
    """Equal messages of one phase."""

    kind: str
    """A name of COLLECTIVES."""
    bytes: float
    """Of the whole tensor: what each rank ends with after a gather or begins with before a scatter."""
    group: int
    """Ranks that take part."""
    count: float  # type: ignore[assignment]
    """Per optimiser step."""
    phase: str
    """A name of PHASES."""
    overlappable: bool
    """Whether computing goes on beside it: gathers ahead, gradients behind. Tensor parallel sums are not."""
    axis: str = "shards"
    """"shards", "replicas", "tensor", "pipeline", "context" or "experts": which ranks, so whether the message leaves the machine."""


class Allocation(NamedTuple):
    """One event of the stream: `bytes` > 0 takes a storage, 0 gives it back."""

    storage: int
    """Which one."""
    bytes: int
    """Its size as asked for, before any rounding; 0: freed."""
    part: str = ""
    """What it is: "weights", "gradients", "optimizer", "activations", "logits and loss", "temporaries", "all-gather buffers"."""
    phase: str = ""
    """A name of PHASES, or "build"."""
    stream: int = 0
    """0: computing; 1: gathers; 2: scatters."""


@dataclass(frozen=True)
class Trace:
    """One optimiser step of one device, in its steady state."""

    ops: tuple[Op, ...]
    """In order of first execution."""
    collectives: tuple[Collective, ...]
    """Those of this device."""
    allocations: tuple[Allocation, ...]
    """From an empty device through building, one step that makes optimizer state, and a second step."""
    parameters: int
    """Distinct weights of the whole model."""
    trainable: int
    """Of them and the adapter, those that are trained."""
    active_parameters: int
    """What one token passes through, the embedding's table apart: N of 6 N."""
    layers: int
    """Blocks of the whole model."""
    width: int
    """Of the residual stream."""
    tokens: int
    """Of one device in one optimiser step."""
    tokens_per_step: int
    """Of all devices."""
    model_flops: float
    """Of one optimiser step over all devices: 6 N a token where all is trained, 4 N plus 6 for the adapter's where the
    base is frozen; recomputing is not in it."""
    attention_flops: float
    """What attention adds to it: 12 L h s a token, half where causal pairs alone are counted by the kernel."""
    launches: float
    """Kernels of one optimiser step of one device: products, elementwise, optimizer."""
    checkpoint_bytes: float = 0.0
    """Weights and state that a save writes, over all devices."""
    host_bytes: float = 0.0
    """Offloaded state in one device's share of the host."""
    notes: tuple[str, ...] = ()
    """Defaults filled in, approximations."""
    left_out: tuple[str, ...] = ()
    """Operations that could not be traced, with their modules."""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def flops(self) -> float:
        """Of one device's step, recomputing included."""
        return sum(op.flops * op.count for op in self.ops)

    @property
    def recompute_fraction(self) -> float:
        """Share of the FLOPs that are done a second time."""
        again = sum(op.flops * op.count for op in self.ops if op.phase == "recompute")
        return again / self.flops if self.flops else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Trace:
        """Tuples are lists in JSON."""
        rows: dict[str, Any] = {name: _rows(kind, values[name]) for name, kind in _ROWS.items()}
        return Trace(**{**values, **rows, "notes": tuple(values["notes"]), "left_out": tuple(values["left_out"])})


_ROWS: dict[str, Any] = {"ops": Op, "collectives": Collective, "allocations": Allocation}


def _rows(kind: Any, rows: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(kind(*(tuple(value) if isinstance(value, list) else value for value in row)) for row in rows)
