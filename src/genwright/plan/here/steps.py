"""Steps of a recipe on fake tensors, told from a few layers: its passes through the model, then one update of every trained weight.

The update knows no layers: it is run on as many weights, of the same shapes and in the same order, as the whole model trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genwright.engine.optim import adamw
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.objectives.loss import Loss, Term
from genwright.parallel.mesh import SINGLE, Placement
from genwright.parallel.norm import global_norm
from genwright.plan.here.repeated import STANDS_FOR_ALL, Repeated, Told, moved
from genwright.plan.here.trace import BuiltFake, Trace, build_fake, trace_step
from genwright.plan.here.tracker import Event, Peak, Tracker


class Steps:
    """A recipe built on fake tensors. `more`: how many times again the third layer of each stack stands in the whole."""

    def __init__(self, recipe: Recipe, config: Any, more: Sequence[int] = (), place: Placement = SINGLE) -> None:
        self.recipe, self.more = recipe, more
        self.fake = build_fake(recipe, config, place)
        self.whole = Repeated(self.fake.tracker, self.fake.built.model, more)

    def trace(self, make_batches: Callable[[], Any]) -> Trace:
        """One step with the optimizer's state in place. `make_batches` is called under the fake mode. Errors: Unlike."""
        if not self.more:
            return trace_step(self.fake, make_batches, self.recipe)
        passes: list[Told] = []

        def at(where: str) -> None:
            if where == "passes":
                self.whole.standing["optimizer"] = self._update.state - self.fake.bytes_of("optimizer")
                self.whole.restart()
            else:
                passes.append(self.whole.told())

        with self.whole.watch():
            trace_step(self.fake, make_batches, self.recipe, at)
        (events, peak, left), update = passes[0], self._update
        highest = moved(left, update.start, update.top)
        peak = max(peak, Peak(sum(highest.values()), dict(highest)), key=lambda one: one.total)
        return Trace([*events, *update.events], peak, self.fake.tracker, len(events))

    def sizes(self) -> dict[str, int]:
        """Bytes of all weights, of those that are trained, of the largest of these, and of the optimizer's state."""
        trained = [parameter.numel() * parameter.element_size() for parameter in self._trained]
        state = self._update.state if self.more else self.fake.bytes_of("optimizer")
        weights = self.fake.bytes_of("weights") + self.whole.standing["weights"]
        return {"weights": weights, "trained": sum(trained), "state": state, "largest": max(trained)}

    @cached_property
    def _update(self) -> Update:
        return _update_of(self._trained, self.recipe, self.fake)

    @cached_property
    def _trained(self) -> list[nn.Parameter]:
        """All that the whole trains, in its order: those of the third layers as often as they stand there."""
        where = {
            id(parameter): (stack, number)
            for stack, layers in enumerate(self.whole.stacks)
            for number, layer in enumerate(layers) for parameter in layer.parameters()
        }  # fmt: skip
        found: list[nn.Parameter] = []
        for (stack, number), group in groupby(
            self.fake.built.parameters.values(), lambda parameter: where.get(id(parameter), (-1, 0))
        ):
            times = 1 + self.more[stack] if stack >= 0 and number == STANDS_FOR_ALL else 1
            found += [*group] * times
        return found


@dataclass(frozen=True)
class Update:
    """What follows the last backward: gradients' norm, clipping, the optimizer."""

    events: list[Event]
    start: Peak
    top: Peak
    state: int
    """Bytes that the optimizer keeps."""


@dataclass(frozen=True)
class _Nothing:
    """A microbatch of no rows, whose backward leaves a gradient at every weight."""

    weights: Sequence[nn.Parameter]
    counts: ClassVar[dict[str, int]] = {"tokens": 1}

    def loss(self, *_: Any) -> Loss:
        for weight in self.weights:
            weight.grad = torch.zeros_like(weight)
        return Loss({"tokens": Term(torch.zeros((), requires_grad=True), torch.zeros(()))})


def _update_of(trained: Sequence[nn.Parameter], recipe: Recipe, fake: BuiltFake) -> Update:
    """On blank weights like these, with the optimizer's state in place."""
    tracker = Tracker()
    with fake.mode, tracker:
        weights = [nn.Parameter(torch.empty_like(one)) for one in trained]
        named = {str(number): weight for number, weight in enumerate(weights)}
        optimizer = adamw(named, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
        nothing = _Nothing(weights)
        nothing.loss()
        before = tracker.live
        optimizer.step()
        state = tracker.live - before
        first, start = len(tracker.events), tracker.now()

        def norm(gradients: Sequence[Tensor]) -> Tensor:
            nonlocal first, start
            first, start = len(tracker.events), tracker.now()
            return global_norm(gradients)

        train_step(
            nn.ParameterList(weights), optimizer, nothing.loss, [nothing], max_norm=recipe.max_norm, global_norm=norm
        )
        fake.tracker.arguments |= tracker.arguments
        return Update(tracker.events[first:], start, tracker.peak, state)
