"""Pieces of a step put together: any depth, any number of microbatches, weights split over devices as a strategy says. No torch here.

What a device holds and does in two optimiser steps, of which the second is the steady one:

    build     weights (or this device's shards), masters, gradient buffers
    forward   each layer's own storages; where weights are split, each unit is gathered before its layer, the next one beside it
    backward  the same from the top; a unit's gradients are scattered when they are whole
    optimizer state is born in the first step; a foreach optimizer takes one more copy of what it updates
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from genwright.plan.frameworks import Profile
from genwright.plan.pieces import Change, Pieces, Segment, Weight
from genwright.plan.record import Allocation, Collective, Op, Trace
from genwright.plan.setup import Setup

STATES = {"adamw-foreach": 2, "adamw-fused": 2, "adamw-8bit": 2, "adamw-paged-8bit": 2, "sgd": 0, "adafactor": 0, "lion": 1}
"""Copies of a trained weight that an optimizer keeps."""
SMALLEST_IN_8_BITS = 4096
"""Weights of fewer elements keep their state in float32 (bitsandbytes, `min_8bit_size`)."""
BLOCK_OF_8_BITS = 256
"""Elements that share a float32 scale there."""
SPLIT_STATE = ("zero1", "zero2", "zero3", "hybrid")
SPLIT_GRADIENTS = ("zero2", "zero3", "hybrid")
SPLIT_WEIGHTS = ("zero3", "hybrid")


@dataclass(frozen=True)
class Placed:
    """A weight of the whole model on this device."""

    weight: Weight
    unit: int
    """Number of its layer over all stacks; -1: outside."""


def compute_bytes(precision: str) -> int:
    """Of one number in the type of products."""
    return 4 if precision == "fp32" else 2


@dataclass
class Stream:
    """The allocations so far."""

    out: list[Allocation] = field(default_factory=list)
    phase: str = "build"
    taken: int = 0

    def take(self, size: float, part: str, stream: int = 0) -> int:
        """A new storage."""
        self.taken += 1
        if size >= 1:
            self.out.append(Allocation(self.taken, math.ceil(size), part, self.phase, stream))
        return self.taken

    def give(self, storage: int) -> None:
        """It is free."""
        self.out.append(Allocation(storage, 0, "", self.phase))


def compose(pieces: Pieces, setup: Setup, profile: Profile, notes: tuple[str, ...] = ()) -> Trace:
    """The trace of this setup's busiest device."""
    step = _Step(pieces, setup, profile)
    step.run()
    return _trace(step, notes)


def placed_weights(pieces: Pieces, pipeline: int = 1) -> list[Placed]:
    """Every weight of the whole model, the middle layer's once for each layer it stands for."""
    found, first = [], 0
    for weight in pieces.weights:
        if weight.stack < 0:
            found.append(Placed(weight, -1))
    for stack, (whole, traced) in enumerate(zip(pieces.layers, pieces.traced, strict=True)):
        of_layer = [[weight for weight in pieces.weights if weight.stack == stack and weight.layer == number] for number in range(traced)]
        for layer in range(math.ceil(whole / pipeline)):
            found += [Placed(weight, first + layer) for weight in of_layer[_stand_in(layer, whole, traced)]]
        first += whole
    return found


def _stand_in(layer: int, whole: int, traced: int) -> int:
    """Which traced layer equals this one."""
    if whole <= traced or layer == 0:
        return layer
    return traced - 1 if layer == whole - 1 else traced // 2


class _Step:
    """Builds the stream; `run` is the story."""

    def __init__(self, pieces: Pieces, setup: Setup, profile: Profile) -> None:
        self.pieces, self.setup, self.profile = pieces, setup, profile
        self.stream = Stream()
        self.weights = placed_weights(pieces, setup.pipeline_degree)
        self.shards = setup.shards if setup.strategy in SPLIT_STATE else 1
        self.split_state = self.shards > 1
        self.split_gradients = self.shards > 1 and setup.strategy in SPLIT_GRADIENTS
        self.split_weights = self.shards > 1 and setup.strategy in SPLIT_WEIGHTS
        self.compute = compute_bytes(setup.precision)
        self.units: dict[int, list[Weight]] = {}
        for placed in self.weights:
            self.units.setdefault(placed.unit, []).append(placed.weight)
        self.families = _families(pieces.segments)
        self.gathered: dict[int, int] = {}
        self.shard_gradients: dict[int, int] = {}
        self.whole_gradients: list[int] = []
        self.scattering: list[int] = []
        self.host_bytes = 0.0
        self.in_flight = min(setup.pipeline_degree, setup.accumulate)

    def run(self) -> None:
        """Build, one step that makes the optimizer's state, a second one."""
        self.build()
        self.microbatch(first=True)
        states = self.optimizer_step([])
        microbatches = min(2, self.setup.accumulate)
        for number in range(microbatches):
            self.microbatch(first=number == 0)
        self.optimizer_step(states)

    # -- what stands all the time

    def kept_bytes(self, weight: Weight) -> float:
        """Of a number of a weight, as its owner keeps it."""
        if weight.trained and self.profile.masters == "model" and self.setup.precision in ("bf16", "fp16") and self.split_state:
            return max(4.0, weight.bytes_each) if not weight.adapter or self.profile.adapter_dtype == "fp32" else weight.bytes_each
        return weight.bytes_each

    def build(self) -> None:
        """Weights and whatever is as large as they are."""
        offloaded = self.setup.offload and self.split_weights or self.setup.offload
        self.stream.take(self.pieces.buffers, "weights")
        for unit in self.units.values():
            sizes = [weight.numel * self.kept_bytes(weight) for weight in unit]
            shards = self.shards if self.split_weights or (self.split_state and self._one_copy()) else 1
            for size in [sum(sizes)] if self.profile.flat and shards > 1 else sizes:
                if offloaded:
                    self.host_bytes += size / shards
                else:
                    self.stream.take(size / shards, "weights")
        self._gathered_for_good()
        self._masters_and_buffers()

    def _one_copy(self) -> bool:
        """Split masters are the weights themselves; else 16-bit weights stand whole beside them."""
        return self.profile.masters == "model" and self.setup.precision in ("bf16", "fp16", "fp32") and not self.profile.unit == "parameter"

    def _gathered_for_good(self) -> None:
        """Stages 1 and 2 keep whole weights in the compute type beside their shards of masters."""
        if self.split_state and not self.split_weights and self._one_copy():
            for unit in self.units.values():
                self.stream.take(sum(self._gathered_bytes(weight) for weight in unit), "all-gather buffers")

    def _masters_and_buffers(self) -> None:
        away = self.setup.offload or self.setup.offload_optimizer
        for placed in self.weights:
            weight = placed.weight
            if not weight.trained:
                continue
            share = self.shards if self.split_state else 1
            if self.profile.masters == "optimizer" and self.setup.precision in ("bf16", "fp16"):
                self._take_or_host(weight.numel * 4 / share, "optimizer", away)
            if self.profile.gradient_buffer:
                each = 4 if self.profile.gradient_buffer == "fp32" else self.compute
                self.stream.take(weight.numel * each / (share if self.split_gradients else 1), "gradients")
        if self.setup.data_degree > 1 and self.profile.buckets and self.setup.strategy == "ddp":
            self.stream.take(sum(p.weight.numel * p.weight.bytes_each for p in self.weights if p.weight.trained), "communication buffers")
        if self.setup.data_degree > 1 and self.profile.extra_communication:
            self.stream.take(self.profile.extra_communication, "communication buffers")

    def _take_or_host(self, size: float, part: str, host: bool) -> None:
        if host:
            self.host_bytes += size
        else:
            self.stream.take(size, part)

    # -- a microbatch

    def microbatch(self, *, first: bool) -> None:
        """Forward through every layer, loss, backward from the top."""
        self.first = first
        self.made: dict[tuple[tuple[str, int, int], int], list[int]] = {}
        self.alive: set[int] = set()
        self.gradients: set[int] = set()
        self.unit_gradients: list[tuple[int, float]] = []
        if self.split_weights:
            self._gather(-1)
        for name, stack, layer, block in self._blocks():
            self.stream.phase = name
            unit = self.now = self._unit(stack, layer)
            if stack >= 0 and self.split_weights:
                self._gather(unit)
                self._gather(unit + 1 if name == "forward" else unit - 1)
            for index in block:
                self._play(index, layer)
            if stack >= 0:
                self._leave(name, unit)
        self._leave("backward", -1)
        for storage in sorted(self.alive - self.gradients):
            self.stream.give(storage)
        for storage in self.scattering:
            self.stream.give(storage)
        self.scattering = []

    def _unit(self, stack: int, layer: int) -> int:
        return sum(self.pieces.layers[:stack]) + layer if stack >= 0 else -1

    def _blocks(self) -> Iterator[tuple[str, int, int, list[int]]]:
        """(phase, stack, layer of the whole model, numbers of segments), in order of execution."""
        runs: list[list[int]] = []
        for index, segment in enumerate(self.pieces.segments):
            last = self.pieces.segments[runs[-1][-1]] if runs else None
            if last and last[:3] == segment[:3] and segment.stack >= 0:
                runs[-1].append(index)
            else:
                runs.append([index])
        for run in runs:
            segment = self.pieces.segments[run[0]]
            if segment.stack < 0:
                yield segment.name, -1, 0, run
                continue
            for layer in self._layers_of(segment):
                yield segment.name, segment.stack, layer, run

    def _layers_of(self, segment: Segment) -> list[int]:
        """The layers of the whole model that a traced one stands for."""
        traced = self.pieces.traced[segment.stack]
        whole = max(math.ceil(self.pieces.layers[segment.stack] / self.setup.pipeline_degree), min(traced, self.pieces.layers[segment.stack]))
        self.depth = whole
        found = [layer for layer in range(whole) if _stand_in(layer, whole, traced) == segment.layer]
        return found[::-1] if segment.name == "backward" else found

    def _play(self, index: int, layer: int) -> None:
        """A segment's changes, as those of this layer."""
        segment = self.pieces.segments[index]
        mine = self.made.setdefault((self.families[index], layer if segment.stack >= 0 else 0), [])
        for change in segment.changes:
            if change.owner == index and change.bytes and change.weight < 0:
                while len(mine) < change.ordinal:
                    mine.append(0)
                storage = self.stream.take(change.bytes, change.part)
                mine.append(storage)
                self.alive.add(storage)
                continue
            for storage in self._find(change, segment, layer):
                if storage not in self.alive:
                    continue
                if change.weight >= 0:
                    self._complete(storage, change)
                else:
                    self.alive.discard(storage)
                    self.stream.give(storage)

    def _find(self, change: Change, segment: Segment, layer: int) -> Iterator[int]:
        owner = self.pieces.segments[change.owner]
        family = self.families[change.owner]
        for where in self._whose(owner, segment, layer):
            made = self.made.get((family, where), [])
            if change.ordinal < len(made):
                yield made[change.ordinal]

    def _whose(self, owner: Segment, segment: Segment, layer: int) -> list[int]:
        """Layers of the whole model that an owner stands for, seen from a layer."""
        if owner.stack < 0:
            return [0]
        if owner.stack == segment.stack and _is_middle(segment, self.pieces, self.depth):
            return [layer + owner.layer - segment.layer]
        return self._layers_of(owner)

    def _complete(self, storage: int, change: Change) -> None:
        """A gradient is whole: kept, added to what is there, scattered later, or used at once."""
        weight = self.pieces.weights[change.weight]
        if self.split_gradients and not self._waits():
            self.unit_gradients.append((storage, weight.numel))
            return
        if self.split_weights and self.profile.flat:
            self._into_flat(storage)
            return
        if self.profile.gradient_buffer or self.setup.optimizer_in_backward or not self.first:
            self.alive.discard(storage)
            self.stream.give(storage)
            return
        self.gradients.add(storage)
        self.whole_gradients.append(storage)
        if self.setup.strategy != "single":
            self.unit_gradients.append((0, weight.numel))

    def _waits(self) -> bool:
        """Whole gradients stay until the last microbatch."""
        return self.profile.keeps_gathered_gradients and self.setup.accumulate > 1

    def _into_flat(self, storage: int) -> None:
        """FSDP1 under `no_sync`: a unit's gradient is one flat tensor as long as all its weights, frozen ones too."""
        self.alive.discard(storage)
        self.stream.give(storage)
        if self.now not in self.shard_gradients:
            size = sum(self._gathered_bytes(weight) for weight in self.units.get(self.now, []))
            self.shard_gradients[self.now] = self.stream.take(size, "gradients")

    # -- split weights

    def _gathered_bytes(self, weight: Weight) -> float:
        """What the whole weight takes on a device: in the compute type, few bits as they are."""
        each = min(weight.bytes_each, self.compute) if weight.bytes_each != 4 or self.setup.precision != "fp32" else 4
        return weight.numel * each

    def _gather(self, unit: int) -> None:
        if unit in self.gathered or unit not in self.units or (unit < 0 and unit != -1):
            return
        size = sum(self._gathered_bytes(weight) for weight in self.units[unit])
        self.gathered[unit] = self.stream.take(size, "all-gather buffers", 1)

    def _leave(self, name: str, unit: int) -> None:
        """After a layer: its weights go, and on the way back its gradients are scattered."""
        if name == "backward" and self.split_gradients and not self._waits():
            self._scatter(unit)
        if self.split_weights and unit in self.gathered and (unit >= 0 or name == "backward"):
            self.stream.give(self.gathered.pop(unit))

    def _scatter(self, unit: int) -> None:
        numel = sum(size for _, size in self.unit_gradients)
        if not numel:
            return
        each = 4 if self.profile.reduce_dtype == "fp32" or self.setup.precision == "fp32" else self.compute
        flat = self.stream.take(numel * each, "communication buffers", 2)
        for storage, _ in self.unit_gradients:
            if storage in self.alive:
                self.alive.discard(storage)
                self.stream.give(storage)
        self.unit_gradients = []
        if unit not in self.shard_gradients and not self.profile.gradient_buffer and not self.setup.offload:
            trained = sum(weight.numel * self._gradient_bytes(weight) for weight in self.units.get(unit, []) if weight.trained)
            self.shard_gradients[unit] = self.stream.take(trained / self.shards, "gradients")
        for storage in self.scattering:
            self.stream.give(storage)
        self.scattering = [flat]

    def _gradient_bytes(self, weight: Weight) -> float:
        return self.kept_bytes(weight) if self.kept_bytes(weight) >= 2 else self.compute

    # -- the optimizer

    def optimizer_step(self, states: list[int]) -> list[int]:
        """State is made where there is none; a foreach optimizer takes a copy; gradients go."""
        self.stream.phase = "optimizer"
        away = self.setup.offload or self.setup.offload_optimizer
        trained = [placed.weight for placed in self.weights if placed.weight.trained]
        if not states and not away:
            states = [self.stream.take(size, "optimizer") for weight in trained for size in self.state_sizes(weight)]
        if self.setup.optimizer == "adamw-foreach" and not away and not self.setup.optimizer_in_backward:
            copies = [self.stream.take(self.state_sizes(weight)[0], "temporaries") for weight in trained]
            for storage in copies:
                self.stream.give(storage)
        if away and not self.host_bytes_counted:
            self.host_bytes += sum(sum(self.state_sizes(weight)) for weight in trained)
            self.host_bytes_counted = True
        for storage in [*self.whole_gradients, *self.shard_gradients.values()]:
            self.stream.give(storage)
        self.whole_gradients, self.shard_gradients = [], {}
        return states or [0]

    host_bytes_counted = False
    now = -1

    def state_sizes(self, weight: Weight) -> list[float]:
        """Bytes of each copy that the optimizer keeps of a weight on this device."""
        share = self.shards if self.split_state else 1
        numel = weight.numel / share
        kind = self.setup.optimizer
        if "paged" in kind:
            return []
        if "8bit" in kind and weight.numel >= SMALLEST_IN_8_BITS:
            return [numel * (1 + 4 / BLOCK_OF_8_BITS)] * STATES[kind]
        each = 4.0 if self.profile.masters == "optimizer" or "8bit" in kind else self._gradient_bytes(weight)
        return [numel * each] * STATES[kind]


def _is_middle(segment: Segment, pieces: Pieces, depth: int) -> bool:
    """Whether a traced layer stands for many: then owners are counted from it."""
    traced = pieces.traced[segment.stack]
    return depth > traced and segment.layer == traced // 2


def _families(segments: list[Segment]) -> list[tuple[str, int, int]]:
    """For each segment (name, stack, which of its layer's): equal for what is the same stretch in every layer."""
    seen: dict[tuple[str, int, int], int] = {}
    found = []
    for index, segment in enumerate(segments):
        if segment.stack < 0:
            found.append((f"between {index}", -1, 0))
            continue
        turn = seen.get(segment[:3], 0)
        seen[segment[:3]] = turn + 1
        found.append((segment.name, segment.stack, turn))
    return found


def _trace(step: _Step, notes: tuple[str, ...]) -> Trace:
    setup, pieces = step.setup, step.pieces
    everything = [placed.weight for placed in placed_weights(pieces)]
    whole = lambda weight: weight.numel * (setup.tensor_degree if weight.numel > 4 * pieces.width else 1)
    parameters = sum(whole(weight) for weight in everything if not weight.adapter)
    trainable = sum(whole(weight) for weight in everything if weight.trained)
    active = sum(whole(weight) * weight.experts for weight in everything if not weight.embedding)
    tokens = setup.seq_len * setup.micro_batch * setup.accumulate
    trained_products = sum(whole(weight) * weight.experts for weight in everything if weight.trained and not weight.embedding)
    ops = _operations(step)
    width = pieces.heads * setup.tensor_degree * pieces.head_width if setup.tensor_degree > 1 else pieces.heads * pieces.head_width
    return Trace(
        ops=ops, collectives=_collectives(step), allocations=tuple(step.stream.out), parameters=int(parameters), trainable=int(trainable),
        active_parameters=int(active), layers=sum(pieces.layers), width=pieces.width, tokens=tokens, tokens_per_step=tokens * setup.data_degree,
        model_flops=(4 * active + 2 * trained_products) * tokens * setup.data_degree,
        attention_flops=12.0 * sum(pieces.layers) * width * setup.seq_len * tokens * setup.data_degree,
        launches=sum(op.count for op in ops), checkpoint_bytes=_checkpoint_bytes(step), host_bytes=step.host_bytes, notes=notes,
        left_out=tuple(pieces.left_out), meta={"model_width": pieces.width, "vocabulary": pieces.vocabulary, "context": pieces.context},
    )  # fmt: skip


def _checkpoint_bytes(step: _Step) -> float:
    shards = step.shards if step.split_state else 1
    trained = [placed.weight for placed in step.weights if placed.weight.trained]
    return sum(sum(step.state_sizes(weight)) * shards + weight.numel * step.kept_bytes(weight) for weight in trained)


def _operations(step: _Step) -> tuple[Op, ...]:
    setup = step.setup
    found: dict[tuple[object, ...], float] = {}
    for _, _, _, block in step._blocks():
        for index in block:
            segment = step.pieces.segments[index]
            for op in segment.ops:
                phase = "recompute" if op.again else segment.name
                key = (op.op, op.kind, op.dtype, op.flops, op.bytes, phase, op.shape)
                found[key] = found.get(key, 0.0) + op.count * setup.accumulate
    rows = [Op(key[0], key[1], key[2], key[3], key[4], count, key[5], key[6]) for key, count in found.items()]  # type: ignore[arg-type]
    return (*rows, *_updates(step))


PASSES = {"adamw-foreach": 9.0, "adamw-fused": 1.0, "adamw-8bit": 1.0, "adamw-paged-8bit": 1.0, "sgd": 1.0, "adafactor": 6.0, "lion": 1.0}
"""How often an optimizer reads and writes what it updates: a foreach one once for each of its operations."""
WEIGHTS_PER_KERNEL = 64


def _updates(step: _Step) -> list[Op]:
    """The optimizer's own kernels, and the clipping of gradients before."""
    trained = [placed.weight for placed in step.weights if placed.weight.trained]
    share = step.shards if step.split_state else 1
    if not trained:
        return []
    state = sum(sum(step.state_sizes(weight)) for weight in trained)
    own = sum(weight.numel * (step.kept_bytes(weight) + (4 if step.profile.masters == "optimizer" else 0)) for weight in trained) / share
    gradients = sum(weight.numel * step._gradient_bytes(weight) for weight in trained) / share
    passes = PASSES[step.setup.optimizer]
    kernels = max(1.0, len(trained) / WEIGHTS_PER_KERNEL) * passes
    numel = sum(weight.numel for weight in trained) / share
    return [
        Op("optimizer.step", "optimizer", "fp32", 12 * numel / kernels, (2 * (own + state) * (passes / 3 if passes > 1 else 1) + gradients) / kernels, kernels, "optimizer"),
        Op("optimizer.clip", "optimizer", "fp32", 3 * numel / 2, 3 * gradients / 2, 2.0, "optimizer"),
    ]  # fmt: skip


def _collectives(step: _Step) -> tuple[Collective, ...]:
    setup, rows = step.setup, []
    sizes = {unit: sum(step._gathered_bytes(weight) for weight in weights) for unit, weights in step.units.items()}
    each = 4 if step.profile.reduce_dtype == "fp32" or setup.precision == "fp32" else step.compute
    grads = {unit: sum(weight.numel * each for weight in weights if weight.trained) for unit, weights in step.units.items()}
    times = float(setup.accumulate)
    if step.split_weights:
        rows += [Collective("all-gather", size, step.shards, times, phase, True) for size in sizes.values() for phase in ("forward", "backward")]
    elif step.split_state:
        trained = sum(sum(weight.numel for weight in weights if weight.trained) for weights in step.units.values())
        rows.append(Collective("all-gather", trained * step.compute, step.shards, 1.0, "optimizer", False))
    data = setup.data_degree
    kind = "reduce-scatter" if step.split_state else "all-reduce"
    often = times if step.split_gradients and not step._waits() else 1.0
    if data > 1:
        group = step.shards if step.split_state else data
        rows += [Collective(kind, size, group, often, "backward", True, "shards" if step.split_state else "replicas") for size in grads.values() if size]
        if step.split_state and data > step.shards:
            rows += [Collective("all-reduce", size / step.shards, data // step.shards, 1.0, "backward", True, "replicas") for size in grads.values() if size]
    hidden = setup.micro_batch * setup.seq_len * step.pieces.width * step.compute / setup.context_degree
    layers = sum(step.pieces.layers) / setup.pipeline_degree
    if setup.tensor_degree > 1:
        again = 2.0 if setup.recompute == "full" else 1.0
        rows.append(Collective("all-reduce", hidden, setup.tensor_degree, 2 * layers * times * again, "forward", False, "tensor"))
        rows.append(Collective("all-reduce", hidden, setup.tensor_degree, 2 * layers * times, "backward", False, "tensor"))
    if setup.pipeline_degree > 1:
        rows += [Collective("send", hidden, 2, times, phase, True, "pipeline") for phase in ("forward", "backward")]
    return tuple(_merged(rows))


def _merged(rows: list[Collective]) -> list[Collective]:
    """Equal messages once, with their count."""
    counts: dict[tuple[object, ...], float] = {}
    for row in rows:
        key = (row.kind, row.bytes, row.group, row.phase, row.overlappable, row.axis)
        counts[key] = counts.get(key, 0.0) + row.count
    return [Collective(key[0], key[1], key[2], count, *key[3:]) for key, count in counts.items()]  # type: ignore[arg-type]
