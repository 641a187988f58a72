"""The three families of models: what each is called, and where its logits come from."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from genwright.base.errors import ModelError, RecipeError

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
    raise ModelError(
        f"'{config.model_type}' is not a language model we know.", wanted="a decoder, encoder or encoder-decoder"
    )


def logits_at(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> Tensor:
    """Logits [N, V] at flat positions in B*T, through the model's own head: capped, scaled or tied as it is.

    Only these N positions reach the head. An encoder-decoder's positions are its decoder's. Errors: RecipeError for a
    model without a head, or with one that is not called as a module.
    """
    ids = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if ids is not None and ids.shape[0] == 1 and family_of(model.config) == "decoder":
        return model(**inputs, logits_to_keep=positions_N, use_cache=False).logits[0]
    return _through_the_head(model, inputs, positions_N)


def _through_the_head(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> Tensor:
    """The head is handed the wanted rows of what it would have been handed: right for every family and any B."""
    head = model.get_output_embeddings()
    if head is None:
        raise RecipeError(
            f"{type(model).__name__} has no output head, so it gives no logits.", do="choose a model with one"
        )
    called = []

    def keep(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        called.append(True)
        return (arguments[0].flatten(0, -2).index_select(0, positions_N)[None], *arguments[1:])

    handle = head.register_forward_pre_hook(keep)
    options = {} if family_of(model.config) == "encoder" else {"use_cache": False}
    try:
        logits = model(**inputs, **options).logits
    finally:
        handle.remove()
    if not called:
        raise RecipeError(
            f"{type(model).__name__} does not call its output head.", wanted="a head that is called as a module",
            do="use a batch of one row",
        )  # fmt: skip
    return logits[0]
