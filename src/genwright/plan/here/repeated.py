"""A deep model told from four of its layers: what the third does, every layer between it and the last does too.

Live bytes are followed from stretch to stretch: a layer's way there or back, or what stands between layers. A stretch has a
height to which it rises and a rest that it leaves. The whole begins with what its absent layers hold, and passes each stretch
of the third layer once more for each of them, so its peak is found wherever it stands, and its operations are all there.
A test holds every byte, FLOP and second equal to those of the whole model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from genwright.models.surgery import layers_of
from genwright.plan.here.tracker import Event, Peak, Tracker
from genwright.plan.traced.depth import depths, shrunk
from genwright.plan.traced.recorder import Cuts

DEPTH = 4
"""Layers of a stack that are traced: a first one, two that must be alike, a last one."""
STANDS_FOR_ALL, ITS_LIKE = 2, 1
Found = TypeVar("Found")


class Unlike(Exception):
    """Two layers of equal shapes do different things: the whole model must be traced."""


def by_few(config: Any, alike: bool, trace: Callable[[Any, Sequence[int]], Found]) -> Found:
    """`trace(config, more)` of a shallow config and the layers that each stack has beside it; of the whole where that cannot be told.

    `alike` is what `layers_are_alike` says of the model as it is traced, adapters and all.
    """
    if alike:
        try:
            return trace(shrunk(config, DEPTH)[0], [depth - DEPTH for depth in depths(config)])
        except Unlike:
            pass
    return trace(config, [])


class Stretch(NamedTuple):
    """Of a trace: what happened in it, and live bytes as it began, at their highest, as it ended."""

    stack: int
    """Of layers; -1: between them."""
    layer: int
    events: list[Event]
    start: Peak
    top: Peak
    end: Peak


class Told(NamedTuple):
    """What the whole model did."""

    events: list[Event]
    peak: Peak
    left: Counter[str]
    """Live bytes at the end, by part."""


class Repeated:
    """A model watched by a tracker, told as if its third layers stood there `more` times again. Empty: as it is."""

    def __init__(self, tracker: Tracker, model: nn.Module, more: Sequence[int]) -> None:
        self.tracker, self.more = tracker, more
        self.stacks = _stacks(model, more) if more else []
        self.standing: Counter[str] = Counter()
        """Bytes of the absent layers, by part."""
        self.stand("weights", lambda layer: [*layer.parameters(), *layer.buffers()])
        self.left: Counter[str] = Counter()
        self._stretches: list[Stretch] = []
        self._at = (-1, 0, len(tracker.events), tracker.now())

    def stand(self, part: str, tensors: Callable[[nn.Module], Sequence[Tensor]]) -> None:
        """Count what each absent layer holds, as the third one holds it."""
        for layers, more in zip(self.stacks, self.more):
            storages = {one.untyped_storage()._cdata: one.untyped_storage() for one in tensors(layers[STANDS_FOR_ALL])}
            self.standing[part] += more * sum(storage.nbytes() for storage in storages.values())

    @contextmanager
    def watch(self) -> Iterator[Repeated]:
        """Everything that the layers do meanwhile."""
        cuts = Cuts(self, self.stacks)
        self.restart()
        try:
            yield self
        finally:
            cuts.remove()

    def restart(self) -> None:
        """Forget what happened so far."""
        self._stretches = []
        self._begin(-1, 0)

    def cut(self, name: str, stack: int, layer: int) -> None:
        """From here on everything belongs to a new stretch."""
        self._end()
        self._begin(stack, layer)

    def _begin(self, stack: int, layer: int) -> None:
        self._at = (stack, layer, len(self.tracker.events), self.tracker.now())

    def _end(self) -> None:
        stack, layer, first, start = self._at
        top = self.tracker.peak
        self._stretches.append(Stretch(stack, layer, self.tracker.events[first:], start, top, self.tracker.now()))

    def told(self) -> Told:
        """Of what happened since `watch` or `restart`. Errors: Unlike."""
        self._end()
        self._check()
        live = Counter(self._stretches[0].start.parts)
        live.update(self.standing)
        peak, events = Peak(sum(live.values()), dict(live)), []
        for one in self._stretches:
            for _ in range(self._times(one)):
                events += one.events
                top = moved(live, one.start, one.top)
                if (total := sum(top.values())) > peak.total:
                    peak = Peak(total, dict(top))
                live = moved(live, one.start, one.end)
        self.left = moved(live, self._stretches[-1].end, Peak(0, {}))
        return Told(events, peak, live)

    def keep(self) -> None:
        """What absent layers have taken in what was told last stands from now on."""
        self.standing = self.left

    def _times(self, one: Stretch) -> int:
        return 1 + self.more[one.stack] if one.stack >= 0 and one.layer == STANDS_FOR_ALL else 1

    def _check(self) -> None:
        """Errors: Unlike, where the second and the third layer do not the same."""
        for stack in range(len(self.stacks)):
            work = [
                [
                    ([event.signature for event in one.events], one.end.total - one.start.total)
                    for one in self._stretches if (one.stack, one.layer) == (stack, layer)
                ]
                for layer in (ITS_LIKE, STANDS_FOR_ALL)
            ]  # fmt: skip
            if work[0] != work[1]:
                raise Unlike


def moved(live: Counter[str], start: Peak, there: Peak) -> Counter[str]:
    """`live` as it has changed between two moments."""
    found = Counter(live)
    found.update(there.parts)
    found.subtract(start.parts)
    return found


def _stacks(model: nn.Module, more: Sequence[int]) -> list[list[nn.Module]]:
    layers = layers_of(model)[0]
    return [layers[first : first + DEPTH] for first in range(0, DEPTH * len(more), DEPTH)]
