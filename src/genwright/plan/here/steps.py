"""Steps of a recipe on fake tensors, told from a few layers: its passes through the model, then one update of every trained weight.

The update knows no layers: it is run on as many weights, of the same shapes and in the same order, as the whole model trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.objectives.loss import Loss, Term
from genwright.parallel.mesh import SINGLE, Placement
from genwright.parallel.norm import global_norm
from genwright.plan.here.repeated import STANDS_FOR_ALL, Repeated, Told, moved
from genwright.plan.here.trace import Trace, bear_state, build_fake, trace_step
from genwright.plan.here.tracker import Event, Peak, Tracker


@dataclass(frozen=True)
class Update:
    """What follows the last backward: gradients' norm, clipping, the optimizer."""

    events: list[Event]
    start: Peak
    top: Peak


class Steps:
    """A recipe built on fake tensors. `more`: how many times again the third layer of each stack stands in the whole."""

    def __init__(self, recipe: Recipe, config: Any, more: Sequence[int] = (), place: Placement = SINGLE) -> None:
        self.recipe, self.more = recipe, more
        self.fake = build_fake(recipe, config, place)
        self.built, self.tracker = self.fake.built, self.fake.tracker
        bear_state(self.fake)
        self.whole = Repeated(self.tracker, self.built.model, more)
        self.whole.stand("optimizer", self._state_of)

    def trace(self, make_batches: Callable[[], Any]) -> Trace:
        """One step with the optimizer's state in place. `make_batches` is called under the fake mode. Errors: Unlike."""
        if not self.more:
            return trace_step(self.fake, make_batches, self.recipe)
        passes: list[Told] = []
        at = lambda where: self.whole.restart() if where == "passes" else passes.append(self.whole.told())
        with self.whole.watch():
            trace_step(self.fake, make_batches, self.recipe, at)
        (events, peak, left), update = passes[0], self._update
        highest = moved(left, update.start, update.top)
        peak = max(peak, Peak(sum(highest.values()), dict(highest)), key=lambda one: one.total)
        return Trace([*events, *update.events], peak, self.tracker, len(events))

    def sizes(self) -> dict[str, int]:
        """Bytes of all weights, of those that are trained, of the largest of these, and of the optimizer's state."""
        trained = [
            parameter.numel() * parameter.element_size() for parameter in self._repeat(self.built.parameters.values())
        ]
        held = {part: self.fake.bytes_of(part) + self.whole.standing[part] for part in ("weights", "optimizer")}
        return {
            "weights": held["weights"], "trained": sum(trained), "state": held["optimizer"], "largest": max(trained),
        }  # fmt: skip

    def _state_of(self, layer: nn.Module) -> list[Tensor]:
        state = self.built.optimizer.state
        return [tensor for parameter in layer.parameters() for tensor in state.get(parameter, {}).values()]

    def _repeat(self, weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """These as the whole has them: those of a third layer as often as it stands there."""
        found: list[nn.Parameter] = []
        for (times, _), group in groupby(weights, lambda weight: self._times.get(id(weight), (1, -1))):
            found += [*group] * times
        return found

    @cached_property
    def _times(self) -> dict[int, tuple[int, int]]:
        """(how often, of which stack) each weight of a third layer stands in the whole."""
        return {
            id(weight): (1 + more, stack)
            for stack, (layers, more) in enumerate(zip(self.whole.stacks, self.more))
            for weight in layers[STANDS_FOR_ALL].parameters()
        }

    @cached_property
    def _update(self) -> Update:
        """Of the very weights, those of a third layer again and again."""
        tracker, optimizer, blank = (
            Tracker(),
            self.built.optimizer,
            _Blank(self._repeat(self.built.parameters.values())),
        )
        start, first = tracker.peak, 0

        def norm(gradients: Sequence[Tensor]) -> Tensor:
            nonlocal start, first
            start, first = tracker.now(), len(tracker.events)
            return global_norm(gradients)

        with self.fake.mode, tracker, self._all_in_the_optimizer():
            standing = [*blank.weights, *(one for state in optimizer.state.values() for one in state.values())]
            tracker.track(standing, "weights")
            train_step(blank, optimizer, blank.loss, [blank], max_norm=self.recipe.max_norm, global_norm=norm)
        optimizer.zero_grad(set_to_none=True)
        self.tracker.arguments |= tracker.arguments
        return Update(tracker.events[first:], start, tracker.peak)

    @contextmanager
    def _all_in_the_optimizer(self) -> Iterator[None]:
        groups = self.built.optimizer.param_groups
        before = [group["params"] for group in groups]
        for group in groups:
            group["params"] = self._repeat(group["params"])
        try:
            yield
        finally:
            for group, weights in zip(groups, before):
                group["params"] = weights


class _Blank(nn.Module):
    """A model of these weights, and a microbatch of no rows whose backward leaves a gradient at each."""

    counts: ClassVar[dict[str, int]] = {"tokens": 1}

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        self.weights = weights

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Each as often as it stands in the whole."""
        return iter(self.weights)

    def loss(self, *_: Any) -> Loss:
        """Nothing."""
        for weight in {id(weight): weight for weight in self.weights}.values():
            weight.grad = torch.zeros_like(weight)
        return Loss({"tokens": Term(torch.zeros((), requires_grad=True), torch.zeros(()))})
