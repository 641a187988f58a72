"""What a training takes on a device: three memories, each phase's peak, whether it fits; time where it can be priced.

Active: live tensors. Reserved: what the caching allocator holds for them, replayed. Device: reserved, the CUDA context and
communication: what `nvidia-smi` shows. Torch is loaded only to trace; a trace on disk is put together without it.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from genwright.base.errors import RecipeError
from genwright.base.files import sha256_of_json, write_atomic
from genwright.catalogue.device_names import Placed
from genwright.plan.architectures import config_of, context_of
from genwright.plan.estimate import Estimate, Range, around
from genwright.plan.priced.allocator import Allocator, NoRoom, live_peak
from genwright.plan.priced.phases import chance, chance_of_lengths, phases_of, shorter_rows
from genwright.plan.priced.varied import reserved_bytes, stream_of
from genwright.plan.published.frameworks import filled, lacks_bf16, on_device
from genwright.plan.published.profile import Profile
from genwright.plan.traced.compose import compose
from genwright.plan.traced.pieces import Pieces
from genwright.plan.traced.record import Allocation, Trace
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.standing import has_reference

MADE_BY = 23
"""Of what a trace holds: raised when its making changes, so that older files are not read."""
WORKSPACE = {"hopper": 32 * 2**20, "blackwell": 32 * 2**20, "cdna": 76 * 2**20}
"""cuBLAS's and hipBLASLt's, for each handle and stream: forward's thread and backward's."""
WORKSPACE_ELSEWHERE = 8_519_680
HANDLES = 2
CONTEXT = Range(0.55 * 2**30, 0.3 * 2**30, 1.2 * 2**30)
"""CUDA's context and its kernels, for each process; grows as kernels are loaded."""
COMMUNICATOR = Range(0.9 * 2**30, 0.3 * 2**30, 2.0 * 2**30)
"""NCCL's buffers where there is more than one device."""
ECC_IN_MEMORY = ("a10", "a10g", "l4", "t4", "a40", "a30")
USABLE = 0.985
"""Of a device's nominal memory in GiB, what a process can have; of those with error correction inside, USABLE_ECC."""
USABLE_ECC = 0.93
ACTIVE_BAND = (0.04, 0.04)
COMPILED_BAND = (0.15, 0.08)
"""What a compiled layer keeps is its partitioner's choice: the trace fuses norms and the loss only."""
FAILED_REPLAY = 0.02
"""P(fits) where even the replay finds no room."""
SPREAD_OF_RESERVED = (0.06, 0.10)
SHORTEST_TOLD = 64
"""Tokens below which lengths make no difference to speak of."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a phase: what is live, what the allocator holds."""

    active: int
    reserved: int
    parts: dict[str, int]
    phase: str
    fits: bool
    retries: int


def trace_training(setup: Setup, *, cache: Path | None = None) -> tuple[Trace, Setup, Profile]:
    """The trace of a checked setup, with its defaults filled. `cache` keeps what is slow, by everything it depends on."""
    setup.check()
    setup, profile, notes = filled(setup)
    config = config_of(setup.model)
    _check_context(setup, config)
    pieces = _pieces(setup, profile, config, cache)
    later = None
    if profile.longest_first:
        usual = min(setup.seq_len, setup.lengths[1] if setup.lengths else max(1, setup.seq_len // UNSTATED_SHARE))
        later = _pieces(dataclasses.replace(setup, seq_len=usual), profile, config, cache)
        notes = (*notes, f"the longest row comes first; later microbatches are planned at {usual} tokens")
    return compose(pieces, setup, profile, notes, later), setup, profile


UNSTATED_SHARE = 4
"""Where the longest row comes first and no other length is stated, later ones are planned at this share of it."""


PIECE_FIELDS = (
    "objective", "adapter", "rank", "targets", "settings", "trains_embeddings", "seq_len", "micro_batch", "precision", "base", "attention",
    "recompute", "offload_activations", "compile", "tensor_degree", "context_degree",
)  # fmt: skip
"""What a microbatch on one device depends on; the rest is put together afterwards."""


def _pieces(setup: Setup, profile: Profile, config: dict[str, Any], cache: Path | None) -> Pieces:
    values = {name: getattr(setup, name) for name in PIECE_FIELDS}
    key = sha256_of_json(
        values
        | {"profile": dataclasses.asdict(profile), "config": config, "made by": MADE_BY, "split": setup.shards > 1}
    )
    path = cache / f"trace-{key[:24]}.json" if cache else None
    if path and path.is_file():
        return _read(path)
    tracer = importlib.import_module("genwright.plan.traced.trace_setup")
    pieces: Pieces = tracer.trace_pieces(setup, profile, config)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, pieces.to_json())
    return pieces


@lru_cache(maxsize=32)
def _read(path: Path) -> Pieces:
    return Pieces.read(path.read_text(encoding="utf-8"))


def _check_context(setup: Setup, config: dict[str, Any]) -> None:
    longest = context_of(config)
    if longest and setup.seq_len > longest:
        raise RecipeError(
            f"The model reads at most {longest} tokens.", wanted=f"--seq-len up to {longest}", found=f"--seq-len {setup.seq_len}",
            do=f"set --seq-len {longest}, or choose a model with a longer context",
        )  # fmt: skip


def usable_bytes(device: Any) -> float:
    """What a process can have of a device's memory, in bytes. None stated: without end."""
    if device.memory_gb is None:
        return float("inf")
    ecc = device.name.split("-")[0] in ECC_IN_MEMORY
    return float(device.memory_gb * 2**30 * (USABLE_ECC if ecc else USABLE))


def workspaces(device: Any) -> list[Allocation]:
    """The libraries' own, taken from the allocator at the first product of each thread."""
    kind = str(device.kind).casefold()
    size = next((size for word, size in WORKSPACE.items() if word in kind), WORKSPACE_ELSEWHERE)
    return [Allocation(-1 - number, size, "workspaces", "build") for number in range(HANDLES)]


def memory_of(trace: Trace, device: Any, *, expandable: bool = False, capacity: float = float("inf")) -> Memory:
    """Live and reserved bytes, and whether `capacity` bytes of segments hold them."""
    events = [*workspaces(device), *trace.allocations]
    live, parts, phase, _ = live_peak(events)
    free = Allocator(expandable=expandable).replay(events)
    active = free.peak_active  # a block whose rest is too small to be split off counts whole, as torch's counters do
    parts["rounding"] = active - live
    fits, retries = free.peak_reserved <= capacity, 0
    if not fits:
        bounded = Allocator(capacity=capacity, expandable=expandable)
        try:
            retries, fits = bounded.replay(events).retries, True
        except NoRoom:
            fits = False
    return Memory(
        active, int(min(free.peak_reserved, capacity)) if fits else free.peak_reserved, parts, phase, fits, retries
    )


def estimate_training(setup: Setup, device: Any, *, cache: Path | None = None, calibration: Any = None) -> Estimate:
    """Memory, time and what they are made of. `device` is a Device, or a Placed at the clock that its power cap leaves.

    Errors: RecipeError, UnknownName, each with the nearest that would work.
    """
    placed = device if isinstance(device, Placed) else Placed(device)
    device = placed.device
    setup, chosen = on_device(setup, device)
    _check_device(setup, device)
    trace, setup, profile = trace_training(setup, cache=cache)
    outside, comm = CONTEXT, COMMUNICATOR if setup.count > 1 else Range(0, 0, 0)
    capacity = usable_bytes(device) - outside.value - comm.value
    memory = memory_of(trace, device, expandable=profile.expandable_segments, capacity=capacity)
    active = around(memory.active, *(COMPILED_BAND if setup.compile else ACTIVE_BAND))
    varied = 0 if setup.packing else _varied(setup, profile, device, cache, capacity)
    reserved = _reserved(memory, active, varied)
    memory = dataclasses.replace(memory, reserved=int(reserved.value))
    whole = reserved + outside + comm
    lengths = shorter_rows(setup, lambda one: memory_of(trace_training(one, cache=cache)[0], device).active)
    quantities = {
        "active_peak_bytes": active, "reserved_peak_bytes": reserved, "device_peak_bytes": whole,
        **phases_of(trace, setup), **lengths, "disk_bytes": around(trace.checkpoint_bytes, 0.02, 0.05),
        "flops_per_step": around(trace.flops, 0.02, 0.05),
    }  # fmt: skip
    parts = {name: float(size) for name, size in memory.parts.items() if size}
    parts |= {"fragmentation": float(max(0, memory.reserved - memory.active)), "context": outside.value}
    parts |= {"communication": comm.value} if comm.value else {}
    known, unknown, notes = _time(trace, setup, placed, calibration)
    limit = usable_bytes(device)
    probable = chance(whole.high, whole.low, limit) if memory.fits else FAILED_REPLAY
    verdict = {"fits": memory.fits, "fit_probability": probable, "limit_bytes": limit}
    verdict |= chance_of_lengths(
        lengths, outside + comm + around(max(0, memory.reserved - memory.active), 0.5, 0.5), limit
    )
    notes = (*chosen, *trace.notes, *_notes(setup, memory), *notes)
    return Estimate(quantities | known, parts, unknown, notes, facts=verdict | _facts(trace, setup, memory))


def _reserved(memory: Memory, active: Range, varied: int) -> Range:
    """Of equal rows, or what rows of `varied` lengths leave behind them where that is more."""
    below, above = SPREAD_OF_RESERVED
    most = max(memory.reserved, varied)
    return Range(most, max(active.low, memory.reserved * (1 - below)), most * (1 + above))


def _varied(setup: Setup, profile: Profile, device: Any, cache: Path | None, capacity: float) -> int:
    """Bytes reserved after rows of many lengths; 0 where a shorter row takes another course, or too few tokens tell."""
    if setup.seq_len < SHORTEST_TOLD or profile.expandable_segments:
        return 0
    config, tokens = config_of(setup.model), (setup.seq_len // 2, setup.seq_len)
    shorter, longer = (_pieces(dataclasses.replace(setup, seq_len=one), profile, config, cache) for one in tokens)
    try:
        events = [*workspaces(device), *stream_of(shorter, longer, tokens, setup, profile)]
    except ValueError:
        return 0
    return reserved_bytes(events, capacity=capacity)


def _check_device(setup: Setup, device: Any) -> None:
    if setup.precision.startswith("bf16") and lacks_bf16(device):
        raise RecipeError(
            f"{device.title} has no bfloat16.", wanted="--precision fp16 or fp32 there", found=f"--precision {setup.precision}",
            do="set --precision fp16"
        )  # fmt: skip


def _time(
    trace: Trace, setup: Setup, placed: Placed, calibration: Any
) -> tuple[dict[str, Range], dict[str, str], tuple[str, ...]]:
    """What `plan.priced.roofline` says of the trace."""
    roofline = importlib.import_module("genwright.plan.priced.roofline")
    price: Callable[..., Any] | None = getattr(roofline, "seconds", None)
    if price is None:
        return {}, {"step_seconds": "no rates for this device"}, ()
    seconds = price(trace, placed, setup=setup, calibration=calibration)
    return {"step_seconds": seconds}, {}, ()


def _notes(setup: Setup, memory: Memory) -> tuple[str, ...]:
    found = []
    if setup.compile:
        found.append("compile: norms and the loss are taken as fused, the rest as it is written; the range is wider")
    if setup.optimizer == "adamw-paged-8bit":
        found.append("paged state is in memory that the device shares with the host: not in active or reserved")
    if has_reference(setup):
        found.append("the reference model is counted: a second copy of the weights in the compute type")
    found += _notes_of_adapter(setup)
    if memory.retries:
        found.append(f"fits only because freed segments are returned {memory.retries} times: steps will be slower")
    return tuple(found)


def _notes_of_adapter(setup: Setup) -> list[str]:
    if setup.adapter == "head":
        return [
            "head: the body is run in every step; where rows are seen twice its states are kept, and later steps cost the head alone"
        ]
    if setup.adapter in ("prompt-tuning", "p-tuning") and setup.micro_batch > 1:
        return ["virtual tokens are planned in front of each row; ours stand once in front of all that are packed"]
    return []


def _facts(trace: Trace, setup: Setup, memory: Memory) -> dict[str, Any]:
    return {
        "peak_phase": memory.phase, "parameters": trace.parameters, "trainable": trace.trainable, "tokens_per_step": trace.tokens_per_step,
        "model_flops": trace.model_flops, "attention_flops": trace.attention_flops, "left_out": list(trace.left_out),
        "setup": setup.to_json(),
    }  # fmt: skip
