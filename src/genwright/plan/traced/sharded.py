"""Weights split over devices: a unit is gathered before its layer and its gradients are scattered after. No torch here."""

from __future__ import annotations

from genwright.plan.published.profile import Profile
from genwright.plan.traced.pieces import Pieces
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.standing import Standing


class Sharded(Standing):
    """Gathering, scattering, and FSDP1's flat gradients."""

    def __init__(self, pieces: Pieces, setup: Setup, profile: Profile) -> None:
        super().__init__(pieces, setup, profile)
        self.gathered: dict[int, int] = {}
        self.shard_gradients: dict[int, int] = {}
        self.scattering: list[int] = []
        self.alive: set[int] = set()
        self.pieces_of_flat: list[int] = []
        self.unit_gradients: list[tuple[int, float]] = []

    def waits(self) -> bool:
        """Whole gradients stay until the last microbatch."""
        return (self.profile.keeps_gathered_gradients or self.stays_gathered()) and self.setup.accumulate > 1

    def stays_gathered(self) -> bool:
        """A pipeline's stage gathers its weights once for all microbatches of a step.

        torchtitan: llama3/infra/parallelize.py, `reshard_after_forward` without pipelines only; torch: distributed/pipelining/stage.py,
        `backward_maybe_with_nosync`.
        """
        return self.split_weights and self.setup.pipeline_degree > 1

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
        if (
            self.split_weights
            and not self.stays_gathered()
            and unit in self.gathered
            and (unit >= 0 or name == "backward")
        ):
            self.stream.give(self.gathered.pop(unit))

    def _scattered(self, whole: list[int]) -> list[int]:
        """After the last microbatch: gathered weights and whole gradients go, this device's shards of gradients come."""
        trained = [weight for unit in self.units.values() for weight in unit if weight.trained]
        size = sum(weight.numel * self.gradient_bytes(weight) for weight in trained) / self.shards
        for storage in [*self.gathered.values(), *whole]:
            self.stream.give(storage)
        self.gathered = {}
        return [self.stream.take(size, "gradients")]

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
