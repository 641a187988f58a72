"""How a framework takes a training step: the fields in which frameworks differ. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a framework takes a step."""

    source: str
    """Where that can be read: repository: file, or documentation."""
    precision: str = "bf16"
    """Where a setup names none."""
    masters: str = "model"
    """Where the float32 weights are under bf16 and fp16: "model" (autocast casts them for use), "optimizer" (a copy beside
    16-bit weights), "none" (trained weights keep their 16 bits)."""
    frozen: str = "compute"
    """What a frozen base is kept in: "compute" or "fp32"."""
    adapter_dtype: str = "compute"
    """What adapters are kept in: "compute" or "fp32"."""
    gradient_buffer: str = ""
    """"fp32" or "compute": gradients are gathered in a buffer of this type for the whole run; empty: the weights' own, freed each step."""
    whole_gradients: bool = False
    """Beside the buffer, a microbatch's gradients stay until its backward is done."""
    gradient_copies: tuple[int, ...] = ()
    """Bytes a number of each copy of its gradients that an optimizer's step makes first."""
    optimizer: str = "adamw-foreach"
    """Where a setup names none."""
    single_full: dict[str, Any] = field(default_factory=dict)
    """Fields of a setup that are this framework's default where everything is trained on one device."""
    foreach_copies: int = 1
    """Copies of what is updated that a foreach AdamW takes at once: two until torch 2.1, one since."""
    keeps_quantized_input: bool = True
    """A product with a 4-bit weight keeps its input though the weight is frozen (bitsandbytes' MatMul4Bit)."""
    quantizes_head: bool = False
    """The head is kept in few bits too."""
    dequantizes_half: bool = False
    """A dense copy of a 4-bit weight is made in float16 and then cast: two stand at once (Lightning Fabric)."""
    attention: str = "sdpa"
    """Where a setup names none."""
    expand_keys: bool = False
    """Keys and values of grouped heads are repeated before attention."""
    queries_by_heads: bool = False
    """Turned queries lie in memory head by head, so what attention gives is copied for the next product."""
    longest_first: bool = False
    """The longest row stands in the run's first microbatch, before there are gradients, state or an older graph."""
    fused_qkv: bool = False
    """One product makes queries, keys and values; what is kept of one keeps all."""
    mask: bool = False
    """Padding is masked, so a [B, 1, T, T] mask stands beside the scores."""
    recompute: str = "none"
    """Where a setup names none."""
    recompute_sharded: str = ""
    """The same where weights are split; empty: as `recompute`."""
    logits: str = "fp32"
    """"fp32": all in the compute type, then copied to float32. "fp32-shift": and once more without the last. "compute": all
    in the compute type. "chunked": a piece at a time, all kept. "chunked-fp32": likewise, each copied to float32 at once.
    "fp32-rows": all copied to float32, then without the last, the loss of 128 rows at a time.
    "fused": a piece at a time, none kept. "learned": only of positions with a label."""
    holds_logits: bool = False
    """The loop keeps logits, and their graph, until the next ones are made."""
    compiled_logits: dict[str, str] = field(default_factory=dict)
    """What torch.compile makes of `logits` where that is not `losses.COMPILED`: "fp32-fused" where layers and loss are compiled,
    and what stands between them is not."""
    whole: dict[str, Any] = field(default_factory=dict)
    """Fields of this row that are otherwise where everything is trained: another of its scripts does it."""
    norm: str = "eager"
    """"eager": several operations in float32; "fused": one kernel that keeps its input."""
    gelu: str = "fused"
    """"fused" or "eager": the tanh approximation in one kernel or in eight operations."""
    gate: str = "eager"
    """"eager": a gate's activation and its product with `up` are two operations; "fused": one kernel that keeps what it reads."""
    rank: int = 16
    """Of a low-rank adapter, where a setup names none."""
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")
    """Of a low-rank adapter, likewise."""
    ranks: dict[str, int] = field(default_factory=lambda: {"multilora": 4})
    """The same for adapters whose default is another."""
    own_forward: bool = False
    """Adapters compute as ours do, without autocast around a frozen base; else as `peft`'s."""
    dropout: float = 0.0
    """Of an adapter's input: above zero its mask and its product are kept."""
    ties: bool = True
    """Whether tied weights stay tied."""
    buckets: bool = True
    """Replicated training holds gradients once more in its messages' buckets."""
    unit: str = "layer"
    """What sharding gathers at once: "layer", "parameter" (ZeRO with prefetch) or "all"."""
    prefetch_bytes: float = 0.0
    """Beyond the unit in use, where `unit` is "parameter"."""
    flat: bool = False
    """Gradients of a unit are one flat tensor (FSDP1, DeepSpeed)."""
    reduce_dtype: str = "compute"
    """Gradients are summed in "compute" or "fp32"."""
    keeps_gathered_gradients: bool = False
    """Whole gradients stay through accumulation (`no_sync`)."""
    sequence_parallel: bool = False
    """Under tensor parallelism, norms and residuals are split over tokens too."""
    expandable_segments: bool = False
    """Sets PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."""
    packing: bool = False
    """Rows are packed unless said otherwise."""
    mixed: dict[str, Any] = field(default_factory=dict)
    """Fields of this row that are otherwise where bf16 or fp16 is asked for by name: of products only."""
    pretraining: str = ""
    """The row of its pre-training loop, where that is another."""
    sharded: dict[str, Any] = field(default_factory=dict)
    """Fields of this row that are otherwise where weights or optimizer state are split: another library does it."""
    extra_communication: float = 0.0
    """Bytes of buffers of its own: DeepSpeed's and Megatron's buckets."""
