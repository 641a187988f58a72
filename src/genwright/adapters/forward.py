"""Our computation for a `peft` model that was loaded from its files."""

from __future__ import annotations

from torch import nn

from genwright.adapters.ia3 import use_scaled_forward_
from genwright.adapters.lora import use_fused_forward_
from genwright.adapters.soft import share_prompt_


def use_our_forward_(model: nn.Module) -> None:
    """LoRA and IA3 without detours through float32, soft prompts computed once; whatever else there is stays `peft`'s."""
    use_fused_forward_(model)
    use_scaled_forward_(model)
    share_prompt_(model)
