"""The three families of models: what each is called, and where its logits come from."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from genwright.base.errors import ModelError

FAMILIES = ("decoder", "encoder", "encoder-decoder")


def family_of(config: Any) -> str:
    """By the configuration: encoder-decoder where it says so, decoder where a causal head is its own, else encoder.

    Errors: ModelError for an architecture that writes no text.
    """
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    architectures = getattr(config, "architectures", None) or []
    if any("MaskedLM" in name for name in architectures) or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    raise ModelError(f"'{config.model_type}' is not a language model we know.", wanted="a decoder, encoder or encoder-decoder")


def logits_at(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> Tensor:
    """Logits [N, V] at positions of a batch of one row, through the model's own head: capped, scaled or tied as it is."""
    return model(**inputs, logits_to_keep=positions_N, use_cache=False).logits[0]
