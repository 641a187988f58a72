"""A setup with what it leaves empty filled by its framework's documented defaults, and the framework's row for it. No torch here.

A row names the documented defaults. A Setup's own fields win; `options` of a Setup replaces fields of the row.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from genwright.base.registry import unknown_name
from genwright.plan.published.framework_rows import FRAMEWORKS
from genwright.plan.published.profile import Profile
from genwright.plan.traced.setup import RANKED, Setup

BF16_OPTIMIZER: dict[str, Any] = {
    "gradient_buffer": "fp32",
    "whole_gradients": True,
    "gradient_copies": (),
    "sharded": {},
}
"""DeepSpeed's runtime/bf16_optimizer.py: gradients are gathered in float32 beside a microbatch's own."""
BY_PRECISION = {(name, "bf16"): BF16_OPTIMIZER for name in ("megatron-deepspeed", "gpt-neox")}
"""Rows that a framework's other optimizer replaces where this precision is asked for."""
TIMED = ("eight_bit_products", "virtual_stages")
"""Options that change a step's time and nothing that is traced: a pipeline's parts of a stage, products in float8."""
SHARDED = ("zero1", "zero2", "zero3", "hybrid")
ALIASES = {
    "lit-gpt": "litgpt", "huggingface": "transformers", "hf": "transformers", "llama-factory": "llamafactory", "megatron-lm": "megatron",
    "nemo": "megatron", "fsdp": "accelerate", "colossal-ai": "colossalai", "neox": "gpt-neox", "ms-swift": "swift",
}  # fmt: skip


def key_of(name: str) -> str:
    """A name of FRAMEWORKS, or what is not one as it is."""
    return ALIASES.get(name.casefold(), name.casefold())


def profile_of(name: str) -> Profile:
    """The row of a framework. Errors: UnknownName with the nearest one."""
    key = key_of(name)
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
    profile = dataclasses.replace(profile, **BY_PRECISION.get((key_of(setup.framework), setup.precision), {}))
    if setup.precision in ("bf16", "fp16"):
        profile = dataclasses.replace(profile, **profile.mixed)
    if setup.strategy in SHARDED:
        profile = dataclasses.replace(profile, **profile.sharded)
    stated = {name: value for name, value in setup.options.items() if name not in TIMED}
    profile = dataclasses.replace(profile, **stated)
    sharded = setup.strategy in ("zero2", "zero3", "hybrid") and profile.recompute_sharded
    defaults: dict[str, Any] = {
        "precision": profile.precision, "optimizer": profile.optimizer, "attention": profile.attention,
        "recompute": profile.recompute_sharded if sharded else profile.recompute,
    }  # fmt: skip
    if setup.adapter in RANKED:
        defaults |= {"rank": profile.ranks.get(setup.adapter, profile.rank), "targets": profile.targets}
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


def lacks_bf16(device: Any) -> bool:
    """Whether a GPU has 16 bits of the other kind only (before Ampere)."""
    return device.vendor == "NVIDIA" and device.bf16_tflops is None and bool(device.fp16_tflops or device.fp32_tflops)


def on_device(setup: Setup, device: Any) -> tuple[Setup, tuple[str, ...]]:
    """A setup that states no precision, on a device without bf16: fp16, which frameworks fall back to there."""
    if setup.precision or not lacks_bf16(device) or not profile_of(setup.framework).precision.startswith("bf16"):
        return setup, ()
    return dataclasses.replace(setup, precision="fp16"), (f"precision = fp16: {device.title} has no bfloat16",)


PIECEWISE = ("chunked", "chunked-fp32", "fused")


def _logits(usual: str, chunked: bool) -> str:
    """The framework's way where it is already as wanted; else in pieces, or all in float32."""
    if (usual in PIECEWISE) == chunked:
        return usual
    return "chunked" if chunked else "fp32"


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
