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

from genwright.plan.published.profile import Profile
from genwright.plan.traced.pieces import HELD, Change, Pieces, Segment, Weight
from genwright.plan.traced.record import Trace
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.sharded import Sharded
from genwright.plan.traced.standing import SPLIT_GRADIENTS
from genwright.plan.traced.work import stand_in, trace_of


def compose(
    pieces: Pieces, setup: Setup, profile: Profile, notes: tuple[str, ...] = (), later: Pieces | None = None
) -> Trace:
    """The trace of this setup's busiest device. `later`: of all microbatches but the run's first, where those are shorter."""
    step = Step(pieces, setup, profile)
    step.run(later or pieces)
    step.use(pieces)
    return trace_of(step, notes)


class Step(Sharded):
    """Builds the stream of one device; `run` is the story."""

    now = -1

    def __init__(self, pieces: Pieces, setup: Setup, profile: Profile) -> None:
        super().__init__(pieces, setup, profile)
        self.use(pieces)
        self.whole_gradients: list[int] = []
        self.made: dict[tuple[tuple[str, int, int], int], list[int]] = {}
        self.held: set[int] = set()
        self.graph: list[int] = []

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

    def microbatch(self, *, first: bool) -> None:
        """Forward through every layer, loss, backward from the top."""
        flying = self._in_flight()
        self.first = first
        self.made, self.alive = {}, set()
        self.gradients: set[int] = set()
        self.unit_gradients = []
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
        found = [layer for layer in range(whole) if stand_in(layer, whole, traced, self.pieces.tail) == segment.layer]
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
        self.whole_gradients.append(self._as_summed(storage, weight))
        if self.setup.strategy != "single":
            self.unit_gradients.append((0, weight.numel))

    def _as_summed(self, storage: int, weight: Weight) -> int:
        """A gradient that waits for others to be added to it, in the type that they are summed in (torch: FSDP2's accumulated ones)."""
        if not (self.stays_gathered() and self.waits() and self.profile.reduce_dtype == "fp32"):
            self.gradients.add(storage)
            return storage
        summed = self.stream.take(weight.numel * 4, "gradients")
        self.alive.discard(storage)
        self.stream.give(storage)
        return summed

    def optimizer_step(self, states: list[int]) -> list[int]:
        """State is made where there is none; a foreach optimizer takes a copy; gradients go."""
        self.stream.phase = "optimizer"
        if self.stays_gathered():
            self.whole_gradients = self._scattered(self.whole_gradients)
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


def _is_middle(segment: Segment, pieces: Pieces, depth: int) -> bool:
    """Whether a traced layer stands for many: then owners are counted from it."""
    traced = pieces.traced[segment.stack]
    return depth > traced and segment.layer == traced - 1 - pieces.tail


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
