"""What stands on a device all the time: weights or shards, masters, buffers; the sizes of the optimizer's state. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from genwright.plan.published.profile import Profile
from genwright.plan.traced.pieces import Pieces, Weight
from genwright.plan.traced.record import Allocation
from genwright.plan.traced.setup import TRAINS_BASE, Setup
from genwright.plan.traced.work import of_experts, placed_weights

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
ASKED_BEFORE = ("dpo", "kto")
"""Of them, those whose reference our engine asks once, before training: the model itself, so no second one stands beside it."""
SPLIT_STATE = ("zero1", "zero2", "zero3", "hybrid")
SPLIT_GRADIENTS = ("zero2", "zero3", "hybrid")
SPLIT_WEIGHTS = ("zero3", "hybrid")


def has_reference(setup: Setup) -> bool:
    """Whether a second copy of the model stands beside the one that is trained: where no adapter can be taken off it."""
    asked_before = setup.framework == "genwright" and setup.objective in ASKED_BEFORE
    return setup.objective in REFERENCED and setup.adapter in TRAINS_BASE and not asked_before


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


class Standing:
    """One device before its first microbatch."""

    host_bytes_counted = False

    def __init__(self, pieces: Pieces, setup: Setup, profile: Profile) -> None:
        self.setup, self.profile, self.pieces = setup, profile, pieces
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
        self.host_bytes = 0.0

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
        if not has_reference(self.setup):
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
        if self.setup.replicas > 1 and self.profile.buckets and self.setup.strategy == "ddp":
            self.stream.take(
                sum(p.weight.numel * p.weight.bytes_each for p in self.weights if p.weight.trained),
                "communication buffers",
            )
        if self.setup.replicas > 1 and self.profile.extra_communication:
            self.stream.take(self.profile.extra_communication, "communication buffers")

    def _take_or_host(self, size: float, part: str, host: bool) -> None:
        if host:
            self.host_bytes += size
        else:
            self.stream.take(size, part)

    def gathered_bytes(self, weight: Weight) -> float:
        """What the whole weight takes on a device: in the compute type, few bits as they are."""
        each = min(weight.bytes_each, self.compute) if weight.bytes_each != 4 or self.setup.precision != "fp32" else 4
        return weight.numel * each

    def gradient_bytes(self, weight: Weight) -> float:
        """Of a number of its gradient: as of the weight, few bits aside."""
        return self.kept_bytes(weight) if self.kept_bytes(weight) >= 2 else self.compute

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
