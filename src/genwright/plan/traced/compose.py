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

from genwright.plan.published.profile import Profile
from genwright.plan.traced.pieces import HELD, Change, Pieces, Segment, Weight
from genwright.plan.traced.record import Allocation, Trace
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.work import of_experts, placed_weights, stand_in, trace_of

STATES = {
    "adamw-foreach": 2,
    "adamw-fused": 2,
    "adamw-8bit": 2,
    "adamw-paged-8bit": 2,
    "sgd": 0,
    "adafactor": 0,
    "lion": 1,
}
"""Copies of a trained weight that an optimizer keeps."""
SMALLEST_IN_8_BITS = 4096
"""Weights of fewer elements keep their state in float32 (bitsandbytes, `min_8bit_size`)."""
BLOCK_OF_8_BITS = 256
"""Elements that share a float32 scale there."""
REFERENCED = ("dpo", "ipo", "kto", "grpo", "ppo")
"""Objectives that compare with the model as it was."""
SPLIT_STATE = ("zero1", "zero2", "zero3", "hybrid")
SPLIT_GRADIENTS = ("zero2", "zero3", "hybrid")
SPLIT_WEIGHTS = ("zero3", "hybrid")


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


def compose(
    pieces: Pieces, setup: Setup, profile: Profile, notes: tuple[str, ...] = (), later: Pieces | None = None
) -> Trace:
    """The trace of this setup's busiest device. `later`: of all microbatches but the run's first, where those are shorter."""
    step = Step(pieces, setup, profile)
    step.run(later or pieces)
    step.use(pieces)
    return trace_of(step, notes)


class Step:
    """Builds the stream of one device; `run` is the story."""

    def __init__(self, pieces: Pieces, setup: Setup, profile: Profile) -> None:
        self.setup, self.profile = setup, profile
        self.use(pieces)
        self.stream = Stream()
        self.weights = [of_experts(one, setup.expert_degree) for one in placed_weights(pieces, setup.pipeline_degree)]
        self.shards = setup.shards if setup.strategy in SPLIT_STATE else 1
        self.split_state = self.shards > 1
        self.split_gradients = self.shards > 1 and setup.strategy in SPLIT_GRADIENTS
        self.split_weights = self.shards > 1 and setup.strategy in SPLIT_WEIGHTS
        self.away = setup.offload or setup.offload_optimizer
        self.compute = compute_bytes(setup.precision)
        self.units: dict[int, list[Weight]] = {}
        for placed in self.weights:
            self.units.setdefault(placed.unit, []).append(placed.weight)
        self.gathered: dict[int, int] = {}
        self.shard_gradients: dict[int, int] = {}
        self.whole_gradients: list[int] = []
        self.scattering: list[int] = []
        self.made: dict[tuple[tuple[str, int, int], int], list[int]] = {}
        self.alive: set[int] = set()
        self.pieces_of_flat: list[int] = []
        self.held: set[int] = set()
        self.graph: list[int] = []
        self.host_bytes = 0.0

    def use(self, pieces: Pieces) -> None:
        """What a microbatch is from here on."""
        self.pieces, self.families = pieces, _families(pieces.segments)

    def run(self, later: Pieces) -> None:
        """Build, one step that makes the optimizer's state, a second one; `later` is all microbatches but the first."""
        self.build()
        self.microbatch(first=True)
        self.use(later)
        states = self.optimizer_step([])
        microbatches = min(2, self.setup.accumulate)
        for number in range(microbatches):
            self.microbatch(first=number == 0)
        self.optimizer_step(states)

    # -- what stands all the time

    def kept_bytes(self, weight: Weight) -> float:
        """Of a number of a weight, as its owner keeps it."""
        if (
            weight.trained
            and self.profile.masters == "model"
            and self.setup.precision in ("bf16", "fp16")
            and self.split_state
        ):
            return (
                max(4.0, weight.bytes_each)
                if not weight.adapter or self.profile.adapter_dtype == "fp32"
                else weight.bytes_each
            )
        return weight.bytes_each

    def build(self) -> None:
        """Weights and whatever is as large as they are."""
        offloaded = (self.setup.offload and self.split_weights) or self.setup.offload
        self.stream.take(self.pieces.buffers, "weights")
        for unit in self.units.values():
            sizes = [weight.numel * self.kept_bytes(weight) for weight in unit]
            shards = self.shards if self.split_weights or (self.split_state and self._one_copy()) else 1
            for size in [sum(sizes)] if self.profile.flat and shards > 1 else sizes:
                if offloaded:
                    self.host_bytes += size / shards
                else:
                    self.stream.take(size / shards, "weights")
        self._reference()
        self._gathered_for_good()
        self._masters_and_buffers()

    def _reference(self) -> None:
        """The model that a preference objective compares with: a second copy where all is trained, else the base itself.

        Its pass runs before the policy's and keeps its log probabilities alone, so it adds no activations to the peak.
        """
        if self.setup.objective not in REFERENCED or self.setup.adapter != "full":
            return
        for placed in self.weights:
            numel = placed.weight.numel / (self.shards if self.split_weights else 1)
            self._take_or_host(numel * self.compute, "reference model", self.setup.offload)

    def _one_copy(self) -> bool:
        """Split masters are the weights themselves; else 16-bit weights stand whole beside them."""
        return (
            self.profile.masters == "model"
            and self.setup.precision in ("bf16", "fp16", "fp32")
            and self.profile.unit != "parameter"
        )

    def _gathered_for_good(self) -> None:
        """Stages 1 and 2 keep whole weights in the compute type beside their shards of masters."""
        if self.split_state and not self.split_weights and self._one_copy():
            for unit in self.units.values():
                self.stream.take(sum(self.gathered_bytes(weight) for weight in unit), "all-gather buffers")

    def _masters_and_buffers(self) -> None:
        for placed in self.weights:
            weight = placed.weight
            if not weight.trained:
                continue
            share = self.shards if self.split_state else 1
            if self.profile.masters == "optimizer" and self.setup.precision in ("bf16", "fp16"):
                self._take_or_host(weight.numel * 4 / share, "optimizer", self.away)
            if self.profile.gradient_buffer:
                each = 4 if self.profile.gradient_buffer == "fp32" else self.compute
                self.stream.take(weight.numel * each / (share if self.split_gradients else 1), "gradients")
        if self.setup.data_degree > 1 and self.profile.buckets and self.setup.strategy == "ddp":
            self.stream.take(
                sum(p.weight.numel * p.weight.bytes_each for p in self.weights if p.weight.trained),
                "communication buffers",
            )
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
        flying = self._in_flight()
        self.first = first
        self.made, self.alive = {}, set()
        self.gradients: set[int] = set()
        self.unit_gradients: list[tuple[int, float]] = []
        last_of_loss = max(
            (number for number, one in enumerate(self.pieces.segments) if one.name == "loss"), default=-1
        )
        if self.split_weights:
            self._gather(-1)
        for name, stack, layer, block in self.blocks():
            self.stream.phase = name
            unit = self.now = self._unit(stack, layer)
            if name == "loss" and block[-1] == last_of_loss:
                self._end_graph()
            if stack >= 0 and self.split_weights:
                self._gather(unit)
                self._gather(unit + 1 if name == "forward" else unit - 1)
            for index in block:
                self._play(index, layer)
            if stack >= 0:
                self._leave(name, unit)
        self._leave("backward", -1)
        for storage in sorted(self.alive - self.gradients):
            self._give(storage)
        if not self.profile.holds_logits:
            self._end_graph()
        for storage in [*self.scattering, *flying]:
            self.stream.give(storage)
        self.scattering = []

    def _in_flight(self) -> list[int]:
        """What the first stage of a pipeline keeps of microbatches whose backward has not come back: one for each later stage.

        1F1B (PipeDream-flush, arXiv 2104.04473, section 2.2): stage i of p holds min(m, p - i) of m microbatches.
        """
        waiting = min(self.setup.pipeline_degree, self.setup.accumulate) - 1
        kept: list[int] = []
        for _ in range(waiting):
            self.made, self.alive = {}, set()
            for name, stack, layer, block in self.blocks():
                if name == "forward" and stack >= 0:
                    self.stream.phase = name
                    for index in block:
                        self._play(index, layer)
            kept += sorted(self.alive)
        return kept

    def _unit(self, stack: int, layer: int) -> int:
        return sum(self.pieces.layers[:stack]) + layer if stack >= 0 else -1

    def blocks(self) -> Iterator[tuple[str, int, int, list[int]]]:
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
        whole = max(
            math.ceil(self.pieces.layers[segment.stack] / self.setup.pipeline_degree),
            min(traced, self.pieces.layers[segment.stack]),
        )
        self.depth = whole
        found = [layer for layer in range(whole) if stand_in(layer, whole, traced) == segment.layer]
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
                if change.weight == HELD:
                    self.held.add(storage)
                continue
            for storage in self._find(change, segment, layer):
                if storage not in self.alive:
                    continue
                if change.weight >= 0:
                    self._complete(storage, change)
                else:
                    self.alive.discard(storage)
                    self._give(storage)

    def _give(self, storage: int) -> None:
        """Free, or free when its graph is: until then a loop that holds its logits holds the graph, into the next forward."""
        if storage in self.held:
            self.held.discard(storage)
            self.graph.append(storage)
        else:
            self.stream.give(storage)

    def _end_graph(self) -> None:
        for storage in self.graph:
            self.stream.give(storage)
        self.graph = []

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
        if self.split_gradients and not self.waits():
            self.unit_gradients.append((storage, weight.numel))
            return
        if self.split_weights and self.profile.flat:
            self.pieces_of_flat.append(storage)
            return
        if self.profile.gradient_buffer and self.profile.whole_gradients:
            return
        leaves = self.away and self.setup.strategy in SPLIT_GRADIENTS
        if self.profile.gradient_buffer or self.setup.optimizer_in_backward or leaves or not self.first:
            self.alive.discard(storage)
            self.stream.give(storage)
            return
        self.gradients.add(storage)
        self.whole_gradients.append(storage)
        if self.setup.strategy != "single":
            self.unit_gradients.append((0, weight.numel))

    def waits(self) -> bool:
        """Whole gradients stay until the last microbatch."""
        return self.profile.keeps_gathered_gradients and self.setup.accumulate > 1

    def _into_flat(self, unit: int) -> None:
        """FSDP1 under `no_sync`: a unit's weights are pieces of one flat tensor, frozen ones too, and so are their gradients.

        The pieces are laid end to end (zeros for what has none) and added to what is there: two units for a moment.
        """
        if not self.pieces_of_flat:
            return
        mine = self.units.get(unit, [])
        size = sum(self.gathered_bytes(weight) for weight in mine)
        zeros = self.stream.take(
            sum(self.gathered_bytes(weight) for weight in mine if not weight.trained), "temporaries"
        )
        flat = self.stream.take(size, "gradients")
        for storage in [zeros, *self.pieces_of_flat]:
            self.alive.discard(storage)
            self.stream.give(storage)
        self.pieces_of_flat = []
        if unit in self.shard_gradients:
            self.stream.give(flat)
        else:
            self.shard_gradients[unit] = flat

    # -- split weights

    def gathered_bytes(self, weight: Weight) -> float:
        """What the whole weight takes on a device: in the compute type, few bits as they are."""
        each = min(weight.bytes_each, self.compute) if weight.bytes_each != 4 or self.setup.precision != "fp32" else 4
        return weight.numel * each

    def _gather(self, unit: int) -> None:
        if unit in self.gathered or unit not in self.units or (unit < 0 and unit != -1):
            return
        size = sum(self.gathered_bytes(weight) for weight in self.units[unit])
        self.gathered[unit] = self.stream.take(size, "all-gather buffers", 1)

    def _leave(self, name: str, unit: int) -> None:
        """After a layer: its weights go, and on the way back its gradients are scattered."""
        if name == "backward":
            self._into_flat(unit)
            if self.split_gradients and not self.waits():
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
        if unit not in self.shard_gradients and not self.profile.gradient_buffer and not self.away:
            trained = sum(
                weight.numel * self.gradient_bytes(weight) for weight in self.units.get(unit, []) if weight.trained
            )
            self.shard_gradients[unit] = self.stream.take(trained / self.shards, "gradients")
        for storage in self.scattering:
            self.stream.give(storage)
        self.scattering = [flat]

    def gradient_bytes(self, weight: Weight) -> float:
        """Of a number of its gradient: as of the weight, few bits aside."""
        return self.kept_bytes(weight) if self.kept_bytes(weight) >= 2 else self.compute

    # -- the optimizer

    def optimizer_step(self, states: list[int]) -> list[int]:
        """State is made where there is none; a foreach optimizer takes a copy; gradients go."""
        self.stream.phase = "optimizer"
        away = self.away
        trained = [placed.weight for placed in self.weights if placed.weight.trained]
        if not states and not away:
            states = [self.stream.take(size, "optimizer") for weight in trained for size in self.state_sizes(weight)]
        if not away:
            self._gradient_copies(trained)
        if self.setup.optimizer == "adamw-foreach" and not away and not self.setup.optimizer_in_backward:
            again = range(self.profile.foreach_copies)
            copies = [self.stream.take(self.state_sizes(weight)[0], "temporaries") for _ in again for weight in trained]
            for storage in copies:
                self.stream.give(storage)
        if away and not self.host_bytes_counted:
            self.host_bytes += sum(sum(self.state_sizes(weight)) for weight in trained)
            self.host_bytes_counted = True
        for storage in [*self.whole_gradients, *self.shard_gradients.values()]:
            self.stream.give(storage)
        self.whole_gradients, self.shard_gradients = [], {}
        return states or [0]

    def _gradient_copies(self, trained: list[Weight]) -> None:
        """What a mixed-precision optimizer makes of all its gradients before it steps; they stand until it has."""
        share = self.shards if self.split_state else 1
        sizes = [each * weight.numel / share for weight in trained for each in self.profile.gradient_copies]
        for storage in [self.stream.take(size, "temporaries") for size in sizes]:
            self.stream.give(storage)

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
        each = 4.0 if self.profile.masters == "optimizer" or "8bit" in kind else self.gradient_bytes(weight)
        return [numel * each] * STATES[kind]


def _is_middle(segment: Segment, pieces: Pieces, depth: int) -> bool:
    """Whether a traced layer stands for many: then owners are counted from it."""
    traced = pieces.traced[segment.stack]
    return depth > traced and segment.layer == traced - 2


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
