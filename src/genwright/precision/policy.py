"""The precision policy: what frozen weights are kept in, what is computed in, and where autocast is needed.

Weights that are trained are always float32 masters: in pure bfloat16 an AdamW step at rate 1e-5 changed 1.7 % of the
weights of SmolLM2 (float32: all of them; methods survey, section 1.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from genwright.base.errors import RecipeError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Policy:
    """`compute` is the type of products and of frozen weights; masters are float32."""

    name: str
    compute: torch.dtype

    def around(self, objective: Callable[..., Any], *, trains_base: bool, device: str = "cpu") -> Callable[..., Any]:
        """The objective in this precision. Autocast only where masters of the base must be cast for each product."""
        if self.compute == torch.float32 or not trains_base:
            return objective

        def in_precision(model: Any, batch: Any) -> Any:
            with torch.autocast(torch.device(device).type, dtype=self.compute):
                return objective(model, batch)

        return in_precision


def resolve(name: str, device: str = "cpu") -> Policy:
    """ "auto" is bf16 where the device multiplies it natively, else fp16 on CUDA and fp32 on a CPU. Errors: RecipeError with the reason.

    float16 on a CPU is refused: its products run at 0.15 to 0.2 of float32's speed there.
    """
    kind = torch.device(device).type
    if name == "auto":
        name = "bf16" if has_native_bf16(device) else "fp16" if kind == "cuda" else "fp32"
    if name == "fp16" and kind == "cpu":
        raise RecipeError(
            "fp16 is not computed on a CPU: its products run at a fifth of float32's speed there.",
            wanted='"auto", "bf16" or "fp32"',
            found='adapt.precision = "fp16"',
            do='set adapt.precision = "auto"',
        )
    if name not in PRECISIONS:
        raise RecipeError(
            "adapt.precision is not one we have.", wanted=f"auto, {', '.join(PRECISIONS)}", found=name, do="choose one"
        )
    return Policy(name, PRECISIONS[name])


def has_native_bf16(device: str = "cpu") -> bool:
    """Whether bfloat16 products run in hardware: AVX512-BF16 or AMX on a CPU, compute capability 8 on CUDA."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_has("avx512_bf16", "amx_bf16")


def _cpu_has(*flags: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            words = set(file.read().split())
    except OSError:
        return False
    return any(flag in words for flag in flags)
