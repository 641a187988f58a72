"""The work of a step put together from its pieces: operations, collectives, counts of weights. No torch here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from genwright.plan.traced.pieces import Pieces, Weight
from genwright.plan.traced.record import Collective, Op, Trace
from genwright.plan.traced.setup import TRAINS_TOP, Setup

if TYPE_CHECKING:
    from genwright.plan.traced.compose import Step


class Placed(NamedTuple):
    """A weight of the whole model on this device."""

    weight: Weight
    unit: int
    """Number of its layer over all stacks; -1: outside."""


def of_experts(placed: Placed, degree: int) -> Placed:
    """A device's share of a weight: experts are divided by `degree`, the rest is whole."""
    weight = placed.weight
    return (
        placed
        if weight.experts == 1 or degree == 1
        else placed._replace(weight=weight._replace(numel=weight.numel // degree))
    )


def placed_weights(pieces: Pieces, pipeline: int = 1) -> list[Placed]:
    """Every weight of the whole model, the middle layer's once for each layer it stands for."""
    found, first = [], 0
    for weight in pieces.weights:
        if weight.stack < 0:
            found.append(Placed(weight, -1))
    for stack, (whole, traced) in enumerate(zip(pieces.layers, pieces.traced, strict=True)):
        of_layer = [
            [weight for weight in pieces.weights if weight.stack == stack and weight.layer == number]
            for number in range(traced)
        ]
        for layer in range(math.ceil(whole / pipeline)):
            found += [Placed(weight, first + layer) for weight in of_layer[stand_in(layer, whole, traced, pieces.tail)]]
        first += whole
    return found


def stand_in(layer: int, whole: int, traced: int, tail: int = 1) -> int:
    """Which traced layer equals this one: the first ones themselves, the last `tail` the last, the one before them all between.

    >>> [stand_in(layer, 6, 3) for layer in range(6)], [stand_in(layer, 6, 4, 2) for layer in range(6)]
    ([0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 2, 3])
    """
    middle = traced - 1 - tail
    if whole <= traced or layer < middle:
        return layer
    return traced - (whole - layer) if layer >= whole - tail else middle


def trace_of(step: Step, notes: tuple[str, ...]) -> Trace:
    """The whole record of a step that was run."""
    setup, pieces = step.setup, step.pieces
    everything = [placed.weight for placed in placed_weights(pieces)]
    split = lambda weight: setup.tensor_degree if weight.numel > 4 * pieces.width else 1
    whole = lambda weight: weight.whole or weight.numel * split(weight)
    parameters = sum(whole(weight) for weight in everything if not weight.adapter)
    trainable = sum(whole(weight) for weight in everything if weight.trained)
    active = sum(whole(weight) * weight.experts for weight in everything if not weight.embedding)
    tokens = setup.seq_len * setup.micro_batch * setup.accumulate
    trained_products = sum(
        whole(weight) * weight.experts for weight in everything if weight.trained and not weight.embedding
    )
    ops = _operations(step)
    width = pieces.heads * pieces.head_width
    return Trace(
        ops=ops, collectives=_collectives(step), allocations=tuple(step.stream.out), parameters=int(parameters), trainable=int(trainable),
        active_parameters=int(active), layers=sum(pieces.layers), width=pieces.width, tokens=tokens,
        tokens_per_step=tokens * setup.data_degree,
        model_flops=_passes(setup, active, trained_products) * tokens * setup.data_degree,
        attention_flops=12.0 * sum(pieces.layers) * width * setup.seq_len * tokens * setup.data_degree,
        launches=sum(op.count for op in ops), checkpoint_bytes=_checkpoint_bytes(step), host_bytes=step.host_bytes, notes=notes,
        left_out=tuple(pieces.left_out), meta={
            "model_width": pieces.width, "vocabulary": pieces.vocabulary, "context": pieces.context, "layer_peak": pieces.layer_peak,
            "head_peak": pieces.head_peak, "cache_bytes": pieces.cache_bytes,
            "largest_weight": max(weight.numel for weight in pieces.weights),
        },
    )  # fmt: skip


def _passes(setup: Setup, active: float, trained: float) -> float:
    """FLOPs a token: there 2, back 2 for what a gradient passes and 2 for what is trained."""
    return 2 * active + 4 * trained if setup.adapter in TRAINS_TOP else 4 * active + 2 * trained


def _checkpoint_bytes(step: Step) -> float:
    shards = step.shards if step.split_state else 1
    trained = [placed.weight for placed in step.weights if placed.weight.trained]
    return sum(sum(step.state_sizes(weight)) * shards + weight.numel * step.kept_bytes(weight) for weight in trained)


def _operations(step: Step) -> tuple[Op, ...]:
    setup = step.setup
    found: dict[tuple[object, ...], float] = {}
    for _, _, _, block in step.blocks():
        for index in block:
            segment = step.pieces.segments[index]
            for op in segment.ops:
                phase = "recompute" if op.again else segment.name
                key = (op.op, op.kind, op.dtype, op.flops, op.bytes, phase, op.shape)
                found[key] = found.get(key, 0.0) + op.count * setup.accumulate
    rows = [Op(key[0], key[1], key[2], key[3], key[4], count, key[5], key[6]) for key, count in found.items()]  # type: ignore[arg-type]
    return (*rows, *_updates(step))


PASSES = {
    "adamw-foreach": 9.0,
    "adamw-fused": 1.0,
    "adamw-8bit": 1.0,
    "adamw-paged-8bit": 1.0,
    "sgd": 1.0,
    "adafactor": 6.0,
    "lion": 1.0,
}
"""How often an optimizer reads and writes what it updates: a foreach one once for each of its operations."""
WEIGHTS_PER_KERNEL = 64


def _updates(step: Step) -> list[Op]:
    """The optimizer's own kernels, and the clipping of gradients before."""
    trained = [placed.weight for placed in step.weights if placed.weight.trained]
    share = step.shards if step.split_state else 1
    if not trained:
        return []
    state = sum(sum(step.state_sizes(weight)) for weight in trained)
    own = (
        sum(
            weight.numel * (step.kept_bytes(weight) + (4 if step.profile.masters == "optimizer" else 0))
            for weight in trained
        )
        / share
    )
    gradients = sum(weight.numel * step.gradient_bytes(weight) for weight in trained) / share
    passes = PASSES[step.setup.optimizer]
    kernels = max(1.0, len(trained) / WEIGHTS_PER_KERNEL) * passes
    numel = sum(weight.numel for weight in trained) / share
    traffic = 2 * (own + state) * (passes / 3 if passes > 1 else 1) + gradients
    return [
        Op("optimizer.step", "optimizer", "fp32", 12 * numel / kernels, traffic / kernels, kernels, "optimizer"),
        Op("optimizer.clip", "optimizer", "fp32", 3 * numel / 2, 3 * gradients / 2, 2.0, "optimizer"),
    ]  # fmt: skip


def _collectives(step: Step) -> tuple[Collective, ...]:
    setup, rows = step.setup, []
    sizes = {unit: sum(step.gathered_bytes(weight) for weight in weights) for unit, weights in step.units.items()}
    each = 4 if step.profile.reduce_dtype == "fp32" or setup.precision == "fp32" else step.compute
    grads = {
        unit: sum(weight.numel * each for weight in weights if weight.trained) for unit, weights in step.units.items()
    }
    times = float(setup.accumulate)
    if step.split_weights:
        rows += [
            Collective("all-gather", size, step.shards, times, phase, True)
            for size in sizes.values()
            for phase in ("forward", "backward")
        ]
    elif step.split_state:
        trained = sum(sum(weight.numel for weight in weights if weight.trained) for weights in step.units.values())
        rows.append(Collective("all-gather", trained * step.compute, step.shards, 1.0, "optimizer", False))
    data = setup.replicas
    kind = "reduce-scatter" if step.split_state else "all-reduce"
    often = times if step.split_gradients and not step.waits() else 1.0
    if data > 1:
        group = step.shards if step.split_state else data
        rows += [
            Collective(kind, size, group, often, "backward", True, "shards" if step.split_state else "replicas")
            for size in grads.values()
            if size
        ]
        if step.split_state and data > step.shards:
            rows += [
                Collective("all-reduce", size / step.shards, data // step.shards, 1.0, "backward", True, "replicas")
                for size in grads.values()
                if size
            ]
    hidden = setup.micro_batch * setup.seq_len * step.pieces.width * step.compute / setup.context_degree
    layers = sum(step.pieces.layers) / setup.pipeline_degree
    if setup.tensor_degree > 1:
        again = 2.0 if setup.recompute == "full" else 1.0
        rows.append(
            Collective(
                "all-reduce", hidden, setup.tensor_degree, 2 * layers * times * again, "forward", False, "tensor"
            )
        )
        rows.append(
            Collective("all-reduce", hidden, setup.tensor_degree, 2 * layers * times, "backward", False, "tensor")
        )
    if setup.expert_degree > 1:  # tokens go to their experts and come back
        often = 2 * layers * times
        rows += [
            Collective("all-to-all", hidden, setup.expert_degree, often, phase, False, "experts")
            for phase in ("forward", "backward")
        ]
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
