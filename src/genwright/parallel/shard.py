"""A model laid over ranks, and each rank's share of a step.

All strategies are FSDP2 (`fully_shard`) with other moments of gathering and summing; replication is plain tensors and one
sum a step. A unit is a layer; what is outside the layers (embeddings, final norm, head) is one unit with the root, so a
weight tied between them stays one. The unit around a layer makes its weights whole before its forward, so code that reads
them without calling their module (the fused LoRA) finds them whole. Frozen weights in bfloat16 stand in one unit with float32 ones
that are trained: FSDP2 wants one type only of what has gradients, and gathers the rest as bytes.

Gradients are sums over ranks: each microbatch was divided by the whole step's count before its backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genwright.base.errors import RecipeError
from genwright.models.surgery import layers_of
from genwright.parallel.mesh import SINGLE, Placement, mesh_of
from genwright.parallel.recompute import recompute_
from genwright.parallel.tensor import split_

BUCKET_BYTES = 64 * 2**20
"""Whole gradients are summed in pieces of about this size: fewer messages, and no second copy of them all."""


@dataclass(frozen=True)
class Team:
    """One process among those that train one model."""

    place: Placement = SINGLE
    rank: int = 0
    """Its number among those that share the microbatches of a step."""
    group: Any = None
    """The process group of those; None: all."""

    @property
    def ranks(self) -> int:
        """How many share the microbatches of a step."""
        return self.place.ranks // self.place.tensor

    def share(self, model: nn.Module, batches: Sequence[Any]) -> Iterator[Any]:
        """The microbatches of a step that are this rank's, to be drawn one after the other's backward; the last draw sums whole gradients.

        Every rank gets the same number, for each pass is a meeting of all. A rank without work repeats the step's smallest
        microbatch with infinite counts, which makes its loss and gradients zero.
        """
        mine = self.share_of(batches)
        for number, batch in enumerate(mine):
            if self.place.splits.optimizer:
                _meet_(model, self.place, last=number == len(mine) - 1)
            yield batch
        if not self.place.splits.optimizer:
            sum_whole_gradients_(model, self)

    def share_of(self, batches: Sequence[Any]) -> list[Any]:
        """Every `ranks`-th microbatch from `rank` on, filled up to as many as any rank has."""
        mine = list(batches[self.rank :: self.ranks])
        if len(mine) < -(-len(batches) // self.ranks):
            smallest = min(batches, key=lambda batch: batch.tokens)
            mine.append(
                replace(
                    smallest, counts={name: torch.full_like(count, math.inf) for name, count in smallest.counts.items()}
                )
            )
        return mine

    def summed(self, value: Tensor) -> Tensor:
        """The sum over ranks of a value that each has a share of, such as the loss."""
        if self.ranks == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total, group=self.group)
        return total


ALONE = Team()


def shard_(model: Any, place: Placement) -> Team:
    """Lay a model over the ranks of the process group, in place, before its optimizer is made. Returns this rank's part.

    After it, trained weights may be DTensors, and so may their gradients and optimizer state. Every rank must have made
    the same weights.

    Errors: RecipeError for a model without layers, a placement of another size, or a recompute choice it has no layers for.
    """
    if place.recompute not in ("none", 0):
        recompute_(layers_of(_inner(model))[0], place.recompute)
    if place.ranks == 1:
        return ALONE
    mesh = mesh_of(place)
    if place.tensor > 1:
        split_(model, mesh["tensor"])
        return Team(place, mesh.get_local_rank("replicas"), mesh.get_group("replicas"))
    if place.splits.optimizer:
        _fully_shard_(model, place, mesh)
    return Team(place, torch.distributed.get_rank())


def _inner(model: Any) -> Any:
    """The `transformers` model inside `peft`'s: generation calls it without passing through what is around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _fully_shard_(model: Any, place: Placement, mesh: Any) -> None:
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    inner = _inner(model)
    _refuse_outside(model, inner)
    # Stages 1 and 2 split only what has gradients and state: frozen weights stay whole and are never sent.
    whole = set() if place.splits.parameters else {one for one in inner.parameters() if not one.requires_grad}
    options: dict[str, Any] = {
        "mesh": mesh["replicas", "shards"] if place.replicas > 1 else mesh["shards"],
        "offload_policy": CPUOffloadPolicy() if place.offload else OffloadPolicy(),
        "ignored_params": whole,
        "shard_placement_fn": partial(_split, shards=place.shards),
    }
    for layer in layers_of(inner)[0]:
        if any(one not in whole for one in layer.parameters()):
            fully_shard(layer, reshard_after_forward=place.splits.parameters, **options)
    fully_shard(inner, reshard_after_forward=False, **options)  # the backward begins with it
    for unit in _units(inner):
        # Sums, not means: the step has divided by the whole count already.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def _split(parameter: nn.Parameter, *, shards: int) -> Any:
    """Rows, or columns where only those divide evenly: LoRA's A has few rows, and a rank with one of 16 holds too much."""
    from torch.distributed.tensor import Shard

    by_columns = parameter.ndim == 2 and parameter.shape[0] % shards != 0 and parameter.shape[1] % shards == 0
    return Shard(1 if by_columns else 0)


def _refuse_outside(model: nn.Module, inner: nn.Module) -> None:
    inside = set(inner.parameters())
    outside = [name for name, one in model.named_parameters() if one.requires_grad and one not in inside]
    if outside:
        raise RecipeError(
            "This adapter trains weights outside the model's own modules, which are not split.",
            wanted='hardware.strategy = "ddp"', found=outside[0], do='set hardware.strategy = "ddp": such adapters are small',
        )  # fmt: skip


def _units(model: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _meet_(model: nn.Module, place: Placement, *, last: bool) -> None:
    """What the coming backward sends. Gradients that are kept whole wait for the last; parameters too are given up then."""
    for unit in _units(model):
        unit.set_requires_gradient_sync(last or place.splits.gradients, recurse=False)
        unit.set_reshard_after_backward(last or place.splits.parameters, recurse=False)
        unit.set_is_last_backward(last)


@torch.no_grad()
def sum_whole_gradients_(model: nn.Module, team: Team) -> None:
    """Sum the gradients of weights that every rank of a team holds alike. One that a rank did not use is zero there."""
    if team.ranks == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in buckets([_local(parameter.grad) for parameter in parameters if parameter.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        torch.distributed.all_reduce(flat, group=team.group)
        pieces = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [piece.view_as(gradient) for piece, gradient in zip(pieces, bucket)])


def buckets(tensors: Sequence[Tensor], limit: int = BUCKET_BYTES) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together no more than `limit` bytes unless one alone is."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(one.nbytes for one in bucket) + tensor.nbytes
        if bucket and (size > limit or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _local(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_bytes(tensors: Sequence[Tensor]) -> int:
    """What this rank keeps of them."""
    return sum(_local(one).nbytes for one in tensors)


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, on every rank; all must ask. For small ones, or tests: a checkpoint is written in pieces."""
    from torch.distributed.tensor import DTensor

    return {name: (one.full_tensor() if isinstance(one, DTensor) else one).detach() for name, one in tensors.items()}
