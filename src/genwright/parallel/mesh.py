"""Placements: what each rank keeps, as one table; degrees checked before anything is loaded; the mesh of real or fake ranks.

A mesh has axes (replicas, shards, tensor): ranks along "shards" hold one copy between them, ranks along "replicas" hold
equal pieces, ranks along "tensor" work on the same rows. Every strategy is a row of STRATEGIES and a number of shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genwright.base.errors import RecipeError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class Strategy:
    """What is split over the shards; the rest is whole on every rank."""

    optimizer: bool = False
    """The float32 masters that are trained, and AdamW's state of them."""
    gradients: bool = False
    """Between microbatches; else they are kept whole and summed once a step."""
    parameters: bool = False
    """Also between their uses in a step, frozen ones too."""


STRATEGIES = {
    "single": Strategy(),
    "ddp": Strategy(),
    "zero1": Strategy(optimizer=True),
    "zero2": Strategy(optimizer=True, gradients=True),
    "zero3": Strategy(optimizer=True, gradients=True, parameters=True),
    "hybrid": Strategy(optimizer=True, gradients=True, parameters=True),
}
"""Stages 1 to 3 are those of ZeRO (Rajbhandari 2019, arXiv 1910.02054, section 5); hybrid is stage 3 within each group of
`sharding_factor` ranks and replication between the groups (Zhao 2023, arXiv 2304.11277, section 3.2)."""


@dataclass(frozen=True)
class Placement:
    """Where a training runs. It changes no result, so it is no part of a Recipe. Made by `placement`, which checks it."""

    strategy: str = "single"
    """A name of STRATEGIES."""
    ranks: int = 1
    """Processes, one device each."""
    shards: int = 1
    """Ranks that hold one copy between them."""
    tensor: int = 1
    """Ranks that split each product between them, over the same rows."""
    offload: bool = False
    """Keep shards, gradients and optimizer state in the CPU's memory and bring them to the device for their use."""
    recompute: str | int = "none"
    """See `parallel.recompute`."""
    device: str = "cpu"
    """"cpu" or "cuda"."""

    @property
    def replicas(self) -> int:
        """Groups that hold equal copies."""
        return self.ranks // self.shards // self.tensor

    @property
    def splits(self) -> Strategy:
        """What is split. One shard is a whole: nothing is."""
        return STRATEGIES[self.strategy] if self.shards > 1 or self.offload else STRATEGIES["ddp"]


SINGLE = Placement()
AXES = ("replicas", "shards", "tensor")


def placement(
    strategy: str, *, ranks: int = 1, sharding_factor: int = 0, tensor_degree: int = 1, offload: bool = False,
    recompute: str | int = "none", device: str = "cpu",
) -> Placement:  # fmt: skip
    """A checked placement. `sharding_factor` is hybrid's alone: from 1 (full replication) to all ranks.

    Errors: RecipeError naming the nearest that would work.
    """
    if strategy not in STRATEGIES:
        raise RecipeError(
            "hardware.strategy is not one we have.", wanted=f"auto, {', '.join(STRATEGIES)}", found=strategy, do="choose one"
        )  # fmt: skip
    _check_ranks(strategy, ranks)
    _check_factor(strategy, ranks, sharding_factor)
    _check_tensor(strategy, ranks, tensor_degree)
    _check_offload(strategy, offload, device)
    shards = sharding_factor if strategy == "hybrid" else ranks if STRATEGIES[strategy].optimizer else 1
    return Placement(strategy, ranks, shards, tensor_degree, offload, recompute, device)


def _check_tensor(strategy: str, ranks: int, degree: int) -> None:
    if degree != 1 and strategy != "ddp":
        raise RecipeError(
            f'hardware.tensor_degree goes with "ddp", whose replicas it splits; not with "{strategy}".', wanted='hardware.strategy = "ddp"',
            found=f"tensor_degree = {degree}", do="choose ddp, or set hardware.tensor_degree = 1",
        )  # fmt: skip
    possible = [number for number in range(1, ranks + 1) if ranks % number == 0]
    if degree not in possible:
        nearest = min(possible, key=lambda number: (abs(number - degree), number))
        raise RecipeError(
            f"{ranks} devices do not split into groups of {degree}.",
            wanted=f"a hardware.tensor_degree of {', '.join(map(str, possible))}", found=str(degree), do=f"set it to {nearest}",
        )  # fmt: skip


def _check_ranks(strategy: str, ranks: int) -> None:
    if strategy == "single" and ranks != 1:
        raise RecipeError(
            f'hardware.strategy = "single" uses one device, and {ranks} are given.', wanted="hardware.count = 1", found=str(ranks),
            do='set hardware.strategy = "ddp" to use them all',
        )  # fmt: skip
    if strategy != "single" and ranks < 2:
        raise RecipeError(
            f'hardware.strategy = "{strategy}" needs at least 2 devices.', wanted="hardware.count = 2 or more", found=str(ranks),
            do='set hardware.strategy = "single", or raise hardware.count',
        )  # fmt: skip


def _check_factor(strategy: str, ranks: int, factor: int) -> None:
    if strategy != "hybrid":
        if factor:
            raise RecipeError(
                f'hardware.sharding_factor has no effect on "{strategy}".', wanted='hardware.strategy = "hybrid"',
                found=f"sharding_factor = {factor}", do="remove it, or choose hybrid",
            )  # fmt: skip
        return
    possible = [number for number in range(1, ranks + 1) if ranks % number == 0]
    if factor not in possible:
        nearest = min(possible, key=lambda number: (abs(number - factor), number))
        raise RecipeError(
            f"{ranks} devices do not split into groups of {factor}.",
            wanted=f"a hardware.sharding_factor of {', '.join(map(str, possible))}",
            found=str(factor), do=f"set it to {nearest}",
        )  # fmt: skip


def _check_offload(strategy: str, offload: bool, device: str) -> None:
    if offload and not STRATEGIES[strategy].optimizer:
        raise RecipeError(
            f'hardware.offload keeps shards in the CPU\'s memory, and "{strategy}" has none.', wanted="zero1, zero2, zero3 or hybrid",
            found=strategy, do='set hardware.strategy = "zero3"',
        )  # fmt: skip
    if offload and device == "cpu":
        raise RecipeError(
            "hardware.offload moves weights from the device to the CPU's memory; here the CPU is the device.",
            wanted='hardware.device = "cuda"', found='"cpu"', do="set hardware.offload = false",
        )  # fmt: skip


def mesh_of(place: Placement) -> DeviceMesh:
    """The mesh (replicas, shards, tensor) over the process group that stands. Errors: RecipeError when it has another size."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    found = dist.get_world_size() if dist.is_initialized() else 1
    if found != place.ranks:
        raise RecipeError(
            f"This placement is for {place.ranks} processes.", wanted=str(place.ranks), found=str(found),
            do="start them with `genwright apply`",
        )  # fmt: skip
    with _real_tensors():
        return init_device_mesh(place.device, (place.replicas, place.shards, place.tensor), mesh_dim_names=AXES)


def _real_tensors() -> Any:
    """A mesh keeps the numbers of its ranks in a tensor and reads them, also where all else is fake."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    return unset_fake_temporarily()


@contextmanager
def fake_ranks(world: int, *, rank: int = 0) -> Iterator[None]:
    """A process group of `world` ranks of which only `rank` exists: nothing is sent, shapes and bytes are what they would be.

    For planning. What a collective gives is not a result.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        _forget_meshes()
        dist.destroy_process_group()


def _forget_meshes() -> None:
    """Meshes and their placements are kept by value in caches, and would be found again by the next group of this process."""
    from torch.distributed.device_mesh import _mesh_resources

    resources: Any = _mesh_resources
    for kept in ("mesh_stack", "mesh_dim_group_options", "_mesh_slicing_cache"):
        if hasattr(resources, kept):
            getattr(resources, kept).clear()
