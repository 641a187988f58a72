"""What each framework's training step does where it differs from ours: one row a framework, each with its source.

A row names the documented defaults. A Setup's own fields win; `options` of a Setup replaces fields of the row. No torch here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from genwright.base.registry import unknown_name
from genwright.plan.traced.setup import Setup


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
    rank: int = 16
    """Of a low-rank adapter, where a setup names none."""
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")
    """Of a low-rank adapter, likewise."""
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


_HF: dict[str, Any] = dict(
    masters="model", logits="fp32-shift", gelu="eager", attention="sdpa", mask=True, frozen="fp32", adapter_dtype="fp32"
)
FRAMEWORKS: dict[str, Profile] = {
    "genwright": Profile(
        source="genwright: engine/build.py, engine/optim.py, precision/policy.py",
        optimizer="adamw-fused",
        logits="learned",
        gelu="eager",
        adapter_dtype="fp32",
        buckets=False,
        packing=True,
        norm="eager",
    ),
    "litgpt": Profile(
        source="Lightning-AI/litgpt: finetune/lora.py, finetune/full.py, lora.py, model.py, config_hub/",
        precision="bf16-true",
        masters="none",
        logits="chunked-fp32",
        holds_logits=True,
        fused_qkv=True,
        expand_keys=True,
        queries_by_heads=True,
        rank=8,
        targets=("q", "v"),
        dropout=0.05,
        ties=False,
        recompute_sharded="full",
        flat=True,
        mixed={"masters": "model", "frozen": "fp32"},
        whole={"logits": "fp32-rows"},
        quantizes_head=True,
        dequantizes_half=True,
        pretraining="litgpt-pretrain",
        keeps_gathered_gradients=True,
    ),
    "litgpt-pretrain": Profile(
        source="Lightning-AI/litgpt: litgpt/pretrain.py, extensions/thunder/pretrain.py",
        precision="bf16-true",
        masters="none",
        logits="fp32",
        fused_qkv=True,
        expand_keys=True,
        queries_by_heads=True,
        ties=False,
        flat=True,
        mixed={"masters": "model"},
        keeps_gathered_gradients=True,
    ),
    "torchtune": Profile(
        source="pytorch/torchtune: recipes/full_finetune_single_device.py, recipes/lora_finetune_single_device.py, recipes/configs",
        precision="bf16-true",
        masters="none",
        logits="chunked",
        compiled_logits={"fp32": "fp32-fused"},
        rank=8,
        targets=("q", "v", "o"),
        optimizer="adamw-fused",
        recompute="full",
        packing=False,
        expandable_segments=True,
        buckets=False,
        keeps_quantized_input=False,
        single_full={"optimizer": "adamw-paged-8bit", "optimizer_in_backward": True},
    ),
    "transformers": Profile(
        source="huggingface/transformers: trainer.py, training_args.py (optim adamw_torch, autocast)", **_HF
    ),
    "trl": Profile(
        source="huggingface/trl: trainer/sft_trainer.py, trainer/sft_config.py",
        **{**_HF, "logits": "fp32", "recompute": "full", "frozen": "fp32"},
    ),
    "peft": Profile(
        source="huggingface/peft: examples, prepare_model_for_kbit_training",
        **{**_HF, "frozen": "compute", "recompute": "full"},
        rank=8,
        targets=("q", "v"),
    ),
    "qwen-finetune": Profile(
        source="QwenLM/Qwen: finetune.py, finetune/*.sh, modeling_qwen.py",
        masters="model",
        frozen="compute",
        adapter_dtype="fp32",
        logits="fp32-shift",
        attention="flash",
        recompute="full",
        fused_qkv=True,
        rank=64,
        dropout=0.05,
        targets=("q", "k", "v", "o", "gate", "up", "down"),
        foreach_copies=2,
        keeps_quantized_input=False,
        sharded={
            "masters": "optimizer",
            "optimizer": "adamw-fused",
            "unit": "parameter",
            "flat": True,
            "adapter_dtype": "compute",
        },
    ),
    "axolotl": Profile(
        source="axolotl-ai-cloud/axolotl: docs/config-reference, examples/",
        **{**_HF, "attention": "flash", "recompute": "full", "frozen": "compute", "mask": False},
        rank=32,
        dropout=0.05,
        optimizer="adamw-fused",
        packing=True,
    ),
    "llamafactory": Profile(
        source="hiyouga/LLaMA-Factory: src/llamafactory/hparams, model/patcher.py",
        **{**_HF, "recompute": "full", "frozen": "compute"},
        rank=8,
    ),
    "unsloth": Profile(
        source="unslothai/unsloth: unsloth/models/llama.py, unsloth_zoo",
        masters="model",
        frozen="compute",
        adapter_dtype="fp32",
        logits="fused",
        norm="fused",
        recompute="full",
        optimizer="adamw-8bit",
        attention="flash",
        keeps_quantized_input=False,
    ),
    "internevo": Profile(
        source="InternLM/InternEvo: configs/7B_sft.py, internlm/solver/optimizer/hybrid_zero_optim.py",
        masters="optimizer",
        logits="fp32",
        norm="fused",
        attention="flash",
        recompute="none",
        fused_qkv=True,
        buckets=False,
        gradient_buffer="",
        flat=True,
        gradient_copies=(2, 4),
        extra_communication=512 * 2**20,
        sequence_parallel=False,
    ),
    "megatron": Profile(
        source="NVIDIA/Megatron-LM: megatron/core/optimizer, megatron/core/distributed/param_and_grad_buffer.py",
        masters="optimizer",
        gradient_buffer="fp32",
        logits="fp32",
        norm="fused",
        attention="flash",
        optimizer="adamw-fused",
        fused_qkv=True,
        buckets=False,
        sequence_parallel=True,
    ),
    "megatron-deepspeed": Profile(
        source="bigscience-workshop/Megatron-DeepSpeed: megatron/training.py; DeepSpeed BF16_Optimizer, stage_1_and_2.py",
        masters="optimizer",
        gradient_buffer="fp32",
        whole_gradients=True,
        logits="fp32",
        norm="fused",
        attention="eager",
        recompute="full",
        optimizer="adamw-fused",
        fused_qkv=True,
        buckets=False,
    ),
    "deepspeed": Profile(
        source="deepspeedai/DeepSpeed: runtime/zero/stage_1_and_2.py, stage3.py, zero/config.py",
        masters="optimizer",
        gradient_buffer="",
        logits="fp32-shift",
        mask=True,
        gelu="eager",
        frozen="compute",
        adapter_dtype="compute",
        optimizer="adamw-fused",
        buckets=False,
        unit="parameter",
        prefetch_bytes=5e7 * 2,
        flat=True,
        extra_communication=2 * 5e8 * 2 * 0.5,
    ),
    "accelerate": Profile(
        source="huggingface/accelerate: accelerator.py, utils/fsdp_utils.py", **{**_HF, "attention": "eager"}, flat=True
    ),
    "fms-fsdp": Profile(
        source="foundation-model-stack/fms-fsdp: main_training.py, fms_fsdp/policies",
        masters="model",
        logits="fp32",
        norm="eager",
        attention="flash",
        optimizer="adamw-foreach",
        flat=True,
        buckets=False,
    ),
    "llm-foundry": Profile(
        source="mosaicml/llm-foundry: scripts/train/yamls/pretrain (FULL_SHARD, low_precision_layernorm, fused_crossentropy)",
        masters="model",
        logits="compute",
        norm="fused",
        attention="flash",
        optimizer="adamw-foreach",
        flat=True,
        buckets=False,
    ),
    "torchtitan": Profile(
        source="pytorch/torchtitan: torchtitan/train.py, torchtitan/config/job_config.py",
        masters="model",
        logits="fp32",
        norm="fused",
        attention="flash",
        optimizer="adamw-fused",
        recompute="selective",
        buckets=False,
        reduce_dtype="fp32",
    ),
    "nanogpt": Profile(
        source="karpathy/nanoGPT: train.py, model.py",
        masters="model",
        logits="compute",
        norm="fused",
        attention="flash",
        optimizer="adamw-fused",
        fused_qkv=True,
    ),
}
SHARDED = ("zero1", "zero2", "zero3", "hybrid")
ALIASES = {
    "lit-gpt": "litgpt", "huggingface": "transformers", "hf": "transformers", "llama-factory": "llamafactory", "megatron-lm": "megatron",
    "nemo": "megatron", "fsdp": "accelerate",
}  # fmt: skip


def profile_of(name: str) -> Profile:
    """The row of a framework. Errors: UnknownName with the nearest one."""
    key = ALIASES.get(name.casefold(), name.casefold())
    if key not in FRAMEWORKS:
        raise unknown_name("framework", name, list(FRAMEWORKS))
    return FRAMEWORKS[key]


def filled(setup: Setup) -> tuple[Setup, Profile, tuple[str, ...]]:
    """The setup with every empty field filled by its framework, the profile with the setup's options, and what was filled."""
    profile = profile_of(setup.framework)
    if profile.pretraining and setup.objective == "causal" and setup.adapter == "full":
        profile = FRAMEWORKS[profile.pretraining]
    if setup.adapter == "full":
        profile = dataclasses.replace(profile, **profile.whole)
    if setup.precision in ("bf16", "fp16"):
        profile = dataclasses.replace(profile, **profile.mixed)
    if setup.strategy in SHARDED:
        profile = dataclasses.replace(profile, **profile.sharded)
    profile = dataclasses.replace(profile, **setup.options)
    sharded = setup.strategy in ("zero2", "zero3", "hybrid") and profile.recompute_sharded
    defaults: dict[str, Any] = {
        "precision": profile.precision, "optimizer": profile.optimizer, "attention": profile.attention,
        "recompute": profile.recompute_sharded if sharded else profile.recompute,
    }  # fmt: skip
    if setup.adapter != "full":
        defaults |= {"rank": profile.rank, "targets": profile.targets}
    if setup.adapter == "full" and setup.strategy == "single" and not setup.optimizer:
        defaults |= profile.single_full
    missing = {name: value for name, value in defaults.items() if not getattr(setup, name)}
    notes = tuple(
        f"{name} = {_plain(value)}: {setup.framework}'s default ({profile.source})" for name, value in missing.items()
    )
    optimizer = missing.get("optimizer", setup.optimizer)
    usual = profile.optimizer if profile.optimizer in ("adamw-foreach", "adamw-fused") else "adamw-foreach"
    missing["optimizer"] = usual if optimizer == "adamw" else optimizer
    if setup.chunked_loss is not None:
        profile = dataclasses.replace(profile, logits=_logits(profile.logits, setup.chunked_loss))
    return dataclasses.replace(setup, **missing), profile, notes


PIECEWISE = ("chunked", "chunked-fp32", "fused")


def _logits(usual: str, chunked: bool) -> str:
    """The framework's way where it is already as wanted; else in pieces, or all in float32."""
    if (usual in PIECEWISE) == chunked:
        return usual
    return "chunked" if chunked else "fp32"


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
