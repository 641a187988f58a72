"""Finding and changing the parts of a model that adapters speak of: its blocks, its final norm, its head."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from genwright.base.errors import RecipeError


def layers_of(model: Any) -> tuple[list[nn.Module], nn.Module | None]:
    """The model's blocks from bottom to top, and the norm after them if there is one.

    The blocks are the outermost list of modules in the body, the longest of those; an encoder-decoder's are its encoder's,
    then its decoder's.
    Errors: RecipeError for a body without one.
    """
    body = model.base_model
    parts = [body.get_encoder(), body.get_decoder()] if getattr(model.config, "is_encoder_decoder", False) else [body]
    stacks = [
        [(name.count("."), -len(module), module) for name, module in part.named_modules() if isinstance(module, nn.ModuleList)]
        for part in parts
    ]  # fmt: skip
    if not all(stacks):
        raise RecipeError(f"{type(model).__name__} has no list of layers.", do='use method = "full" or "lora"')
    norms = [child for name, child in parts[-1].named_children() if "norm" in name or name == "ln_f"]
    return [block for lists in stacks for block in min(lists, key=lambda item: item[:2])[2]], norms[
        -1
    ] if norms else None


def untie_head_(model: Any) -> nn.Module:
    """The output head, with weights of its own: a tied one is copied, and the config says so. Bytes: V x D x element size.

    Errors: RecipeError for a model without a head.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise RecipeError(f"{type(model).__name__} has no output head.", do='use method = "full" or "lora"')
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False
    return head


def cast_frozen_(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen floating-point weights in `dtype`; trained ones stay float32 masters."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
