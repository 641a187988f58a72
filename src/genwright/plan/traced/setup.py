"""What is planned, as plain values: a model, what is trained on it and how, and over how many devices. No torch here.

A Setup says nothing of a device's speed or size, so one trace of it serves every device. What it leaves empty is filled
by its framework's documented default (`plan.published.frameworks`), and the estimate says so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from genwright.base.errors import RecipeError
from genwright.base.files import sha256_of_json
from genwright.base.registry import nearest
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES

PRECISIONS = ("fp32", "bf16", "fp16", "bf16-true", "fp16-true")
"""bf16, fp16: masters are float32 and products are taken in 16 bits. "-true": everything is kept in 16 bits."""
BASES = ("", "int8", "int4", "nf4", "nf4-double")
"""How a frozen base is kept; empty: as the precision says."""
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "adamw-paged-8bit", "sgd", "adafactor", "lion")
ATTENTIONS = ("", "eager", "sdpa", "flash")
RECOMPUTES = ("none", "full", "selective")
STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "hybrid")
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
"""Kinds of linear layers of a block."""
ELSEWHERE = ("llama-adapter", "llama-adapter-v2")
"""Adapters that other frameworks have."""
ALSO = ("ipo", "simpo")
"""Objectives that other frameworks have: pairs, as dpo's and orpo's."""
PAIRED = ("dpo", "ipo", "orpo", "simpo", "kto", "reward-model", "contrastive")
"""Objectives whose rows are two."""
TRAINS_BASE = ("full", "last-layers", "head", "qat")
"""Adapters that train weights of the base itself."""
TRAINS_TOP = ("last-layers", "head")
"""Of them, those below which nothing needs a gradient."""
LOW_RANK = ("lora", "rslora")
RANKED = (*LOW_RANK, "dora", "multilora")
"""Adapters that have a rank and targets."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One training as it would be run. Equal setups have equal traces."""

    model: str | dict[str, Any]
    """A catalogue name, a folder or file with a config.json, a hub id, or the config itself with its `model_type`."""
    objective: str = "instruction"
    """A name of the objectives' catalogue: what is learned decides which positions have logits."""
    adapter: str = "full"
    """A name of the adapters' catalogue, or of ELSEWHERE."""
    rank: int = 0
    """Of a low-rank adapter; 0: the framework's default."""
    targets: tuple[str, ...] = ()
    """Kinds of linear layers that are adapted: q, k, v, o, gate, up, down, head; empty: the framework's default."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the adapter's own table, beside rank and targets: layers, tokens, parallel, ...; what is left out is its default."""
    trains_embeddings: bool = False
    """An adapter beside which embeddings and head are trained whole."""
    seq_len: int = 2048
    """Tokens of the longest row of a microbatch; what a length distribution sets is in `lengths`."""
    lengths: tuple[int, ...] = ()
    """(p50, p95, max) tokens of a row, where known."""
    micro_batch: int = 1
    """Rows that a device works on at once."""
    accumulate: int = 1
    """Microbatches of a device before the optimizer's step."""
    precision: str = ""
    """A name of PRECISIONS; empty: the framework's default."""
    base: str = ""
    """A name of BASES."""
    optimizer: str = ""
    """A name of OPTIMIZERS; empty: the framework's default."""
    attention: str = ""
    """A name of ATTENTIONS; empty: the framework's default."""
    recompute: str = ""
    """A name of RECOMPUTES; empty: the framework's default."""
    compile: bool = False
    """Whether torch.compile fuses the model: an approximation, said in the range."""
    chunked_loss: bool | None = None
    """Whether logits are made and used a piece at a time; None: the framework's default."""
    optimizer_in_backward: bool = False
    """Each gradient is applied and freed as it arrives."""
    offload_activations: bool = False
    """Saved activations wait in the host's memory."""
    strategy: str = "single"
    """A name of STRATEGIES."""
    count: int = 1
    """Devices."""
    sharding_factor: int = 0
    """Devices that hold one copy between them, for hybrid and where a framework shards over fewer than all; 0: all."""
    tensor_degree: int = 1
    """Devices that split each product."""
    pipeline_degree: int = 1
    """Devices that hold different layers."""
    context_degree: int = 1
    """Devices that split a row."""
    expert_degree: int = 1
    """Devices that hold different experts."""
    offload: bool = False
    """Weights, gradients and optimizer state are kept in the host's memory."""
    offload_optimizer: bool = False
    """Only the optimizer's state is."""
    packing: bool = True
    """Rows are laid end to end; else padded to the longest."""
    framework: str = "genwright"
    """A name of `plan.published.frameworks.FRAMEWORKS`: whose step it is."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the framework's profile that this run states otherwise."""

    @property
    def data_degree(self) -> int:
        """Devices that work on different rows."""
        return max(1, self.count // (self.tensor_degree * self.pipeline_degree * self.context_degree))

    @property
    def replicas(self) -> int:
        """Devices with the same weights: those of other rows, and those that split a row between them."""
        return self.data_degree * self.context_degree

    @property
    def shards(self) -> int:
        """Devices that hold one copy of what the strategy splits: of `replicas`, all or `sharding_factor`.

        Ranks of a split row take part (torchtitan: the mesh "fsdp" is dp_shard x cp; Megatron: the optimizer's group is that of data
        with context).
        """
        if self.strategy in ("single", "ddp"):
            return 1
        return self.sharding_factor or self.replicas

    @property
    def tokens_per_step(self) -> int:
        """Of all devices, at the longest length: an upper bound where rows are padded."""
        return self.seq_len * self.micro_batch * self.accumulate * self.data_degree

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return dataclasses.asdict(self)

    def identity(self, **more: Any) -> str:
        """SHA-256 of the fields, and of what else a trace depends on."""
        return sha256_of_json(self.to_json() | more)

    def check(self) -> Setup:
        """Itself. Errors: RecipeError naming the nearest that would work."""
        self._check_parts()
        self._check_names()
        self._check_numbers()
        self._check_devices()
        return self

    def _check_parts(self) -> None:
        for name, more, known in (("adapter", ELSEWHERE, ADAPTERS), ("objective", ALSO, OBJECTIVES)):
            if (found := getattr(self, name)) not in (names := [*known, *more]):
                close = nearest(str(found), names)
                raise RecipeError(
                    f"There is no {name} '{found}'.", wanted=f"one of {', '.join(sorted(names))}", found=str(found),
                    do=f"did you mean '{close}'?" if close else "choose one",
                )  # fmt: skip
        if self.base and self.adapter in TRAINS_BASE[1:]:
            raise RecipeError(
                f"Weights that are trained cannot be kept in {self.base}.", wanted="--base with an adapter over frozen weights",
                found=f"--adapter {self.adapter} --base {self.base}", do="set --adapter lora, or leave --base out",
            )  # fmt: skip
        if self.adapter in TRAINS_TOP and self.pipeline_degree > 1:
            raise RecipeError(
                f"{self.adapter} trains nothing on the first stages of a pipeline: they would only wait.",
                wanted="--pipeline-degree 1", found=f"--pipeline-degree {self.pipeline_degree}", do="set --pipeline-degree 1",
            )  # fmt: skip

    def _check_names(self) -> None:
        for name, known in (
            ("precision", ("", *PRECISIONS)), ("base", BASES), ("optimizer", ("", *OPTIMIZERS)), ("attention", ATTENTIONS),
            ("recompute", ("", *RECOMPUTES)), ("strategy", STRATEGIES),
        ):  # fmt: skip
            if (found := getattr(self, name)) not in known:
                wanted = ", ".join(word for word in known if word)
                raise RecipeError(f"--{name} is not one we know.", wanted=wanted, found=str(found), do="choose one")

    def _check_numbers(self) -> None:
        for name in (
            "seq_len",
            "micro_batch",
            "accumulate",
            "count",
            "tensor_degree",
            "pipeline_degree",
            "context_degree",
        ):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"--{name.replace('_', '-')} is a whole number of at least 1.", wanted="1 or more", found=str(getattr(self, name)),
                    do="raise it to 1",
                )  # fmt: skip

    def _check_devices(self) -> None:
        if self.strategy == "single" and self.count > 1:
            raise RecipeError(
                'The strategy "single" uses one device.', wanted="--count 1", found=f"--count {self.count}", do="set --strategy ddp"
            )  # fmt: skip
        if self.strategy != "single" and self.count < 2 and not (self.offload or self.offload_optimizer):
            raise RecipeError(
                f'The strategy "{self.strategy}" needs at least 2 devices.', wanted="--count 2 or more", found="--count 1",
                do="set --strategy single, or raise --count",
            )  # fmt: skip
        split = self.tensor_degree * self.pipeline_degree * self.context_degree
        if self.count % split:
            raise RecipeError(
                f"{self.count} devices do not split into groups of {split} (tensor x pipeline x context).",
                wanted=f"a count that {split} divides", found=f"--count {self.count}",
                do=f"set --count {max(split, self.count // split * split)}",
            )  # fmt: skip
        if self.sharding_factor and self.replicas % self.sharding_factor:
            possible = [number for number in range(1, self.replicas + 1) if self.replicas % number == 0]
            nearest = min(possible, key=lambda number: abs(number - self.sharding_factor))
            raise RecipeError(
                f"{self.replicas} devices do not split into groups of {self.sharding_factor}.",
                wanted=f"a sharding factor of {', '.join(map(str, possible))}", found=str(self.sharding_factor), do=f"set it to {nearest}",
            )  # fmt: skip
