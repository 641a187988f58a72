"""Our computation for a `peft` model that was loaded from its files."""

from __future__ import annotations

from torch import nn

from genwright.adapters.lora import use_fused_forward_
from genwright.adapters.soft import share_prompt_


def use_our_forward_(model: nn.Module) -> None:
    """LoRA layers written as one function, soft prompts computed once; whatever else there is stays `peft`'s."""
    use_fused_forward_(model)
    share_prompt_(model)
