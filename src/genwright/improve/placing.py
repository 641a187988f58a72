"""Where a project trains: the devices of this machine, how its training is laid over them, and the memory it may use."""

from __future__ import annotations

import os
from typing import Any

import torch

from genwright.base.errors import RecipeError
from genwright.base.units import Bytes
from genwright.parallel.mesh import Placement, placement

AUTO = ("ddp", "zero1", "zero2", "zero3")
"""Strategies from what sends least to what keeps least."""


def placement_of(spec: Any, strategy: str = "") -> Placement:
    """Where the project trains: this machine's CPU or its CUDA devices. `strategy` decides where the project says "auto".

    Errors: RecipeError for another machine, more devices than there are, or degrees that do not go together.
    """
    hardware = spec.hardware
    if hardware.device != "auto":
        raise RecipeError(
            "Genwright trains on this machine.", wanted='hardware.device = "auto"', found=f'device = "{hardware.device}"',
            do="leave it out; `genwright devices` lists what the catalogue knows of other devices",
        )  # fmt: skip
    device, here = devices_here()
    if hardware.count > here:
        raise RecipeError(
            f"This machine has {here} {'CUDA devices' if device == 'cuda' else 'CPU cores, and a process takes at least one'}.",
            wanted=f"hardware.count of at most {here}", found=str(hardware.count), do="lower it",
        )  # fmt: skip
    if hardware.strategy != "auto":
        strategy = hardware.strategy
    return placement(
        strategy or ("single" if hardware.count == 1 else "ddp"), ranks=hardware.count, sharding_factor=hardware.sharding_factor,
        tensor_degree=hardware.tensor_degree, offload=hardware.offload, recompute=spec.adapt.recompute, device=device,
    )  # fmt: skip


def devices_here() -> tuple[str, int]:
    """("cuda", how many) where there are any, else ("cpu", cores)."""
    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return "cpu", len(os.sched_getaffinity(0))


def memory_bytes(spec: Any) -> float:
    """What may be used: the project's figure, or what this machine has."""
    stated = spec.hardware.memory
    return Bytes.parse(stated).value if stated else float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
