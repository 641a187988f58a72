"""The three families of models, the heads that can stand on them, and where logits, scores and values come from.

Legend: B rows, T tokens, S tokens of a source, N positions, D sequences, V vocabulary, C classes, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from genwright.base.errors import ModelError, RecipeError

FAMILIES = ("decoder", "encoder", "encoder-decoder")

LANGUAGE = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForMaskedLM, "encoder-decoder": AutoModelForSeq2SeqLM}
HEADS: dict[str, dict[str, Any]] = {
    "language": LANGUAGE,
    "value": {"decoder": AutoModelForCausalLM},
    "classes": dict.fromkeys(("decoder", "encoder"), AutoModelForSequenceClassification),
    "score": dict.fromkeys(("decoder", "encoder"), AutoModelForSequenceClassification),
    "tags": dict.fromkeys(("decoder", "encoder"), AutoModelForTokenClassification),
    "embedding": dict.fromkeys(("decoder", "encoder"), AutoModel),
}
"""For each head, the class of `transformers` that has it on a family's body."""

FRESH = {"classes": ("score", "classifier"), "score": ("score", "classifier"), "tags": ("score", "classifier")}
"""Modules that a pre-trained model lacks: they start at random and are trained whatever else is."""

IGNORED_BY_HEADS = ("pooler.",)
"""Weights that a checkpoint may lack besides: made anew like the head that reads them."""


@dataclass(frozen=True)
class Head:
    """What stands on the body. `labels` are the names of its classes; a score has one, without a name."""

    kind: str = "language"
    labels: tuple[str, ...] = ()

    def loader(self, family: str) -> Any:
        """The class of `transformers`. Errors: RecipeError where a family has no such head."""
        if family not in HEADS[self.kind]:
            raise RecipeError(
                f"An {family} has no {self.kind} head.", wanted=" or ".join(HEADS[self.kind]), found=family
            )
        return HEADS[self.kind][family]

    def configured(self, config: Any) -> Any:
        """The configuration with this head's classes."""
        if self.kind in ("classes", "tags"):
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: number for number, label in enumerate(self.labels)}
        if self.kind == "score":
            config.num_labels = 1
        return config

    def finish_(self, model: Any) -> Any:
        """After loading: name the fresh modules, read classes at given positions, add a value head where wanted."""
        model.genwright_heads = tuple(name for name, _ in model.named_children() if name in FRESH.get(self.kind, ()))
        for name in model.genwright_heads:
            model.get_submodule(name).float().register_forward_pre_hook(_in_its_own_type)
        if self.kind in ("classes", "score") and isinstance(getattr(model, "score", None), nn.Linear):
            model.forward = _PooledByPosition(model)
        if self.kind == "value":
            model.value_head = nn.Linear(model.config.get_text_config().hidden_size, 1, device=model.device)
            nn.init.zeros_(model.value_head.weight)
            nn.init.zeros_(model.value_head.bias)
        return model


def _in_its_own_type(head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A fresh head is float32; the body may compute in less."""
    return (arguments[0].to(next(head.parameters()).dtype), *arguments[1:])


READ_BY_A_BODY = ("input_ids", "inputs_embeds", "position_ids", "documents", "attention_mask")
"""What `peft` hands on besides, such as labels, is for the head it was written for."""


class _PooledByPosition:
    """A decoder's class scores where each sequence ends: `transformers` looks for padding by its id, which EOS may share."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, *, positions_D: Tensor, **inputs: Any) -> Tensor:
        kept = {name: value for name, value in inputs.items() if name in READ_BY_A_BODY}
        hidden_BTH = self.model.base_model(**kept, use_cache=False).last_hidden_state
        return self.model.score(hidden_BTH.flatten(0, 1).index_select(0, positions_D).float())


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


def _through_the_head(model: Any, inputs: dict[str, Any], positions_N: Tensor, head: nn.Module | None = None) -> Tensor:
    """The head is handed the wanted rows of what it would have been handed: right for every family and any B."""
    head = model.get_output_embeddings() if head is None else head
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


def scores_at(model: Any, inputs: dict[str, Any], positions_D: Tensor) -> Tensor:
    """The class head's scores of each sequence: [D, C], float32. An encoder pools its rows itself: D = B there."""
    if family_of(model.config) == "decoder":
        return model(**inputs, positions_D=positions_D).float()
    return model(**inputs).logits.float()


def tags_at(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> Tensor:
    """The tag head's scores at flat positions: [N, C]."""
    head = next(module for name, module in model.named_modules() if name.rpartition(".")[2] in FRESH["tags"])
    return _through_the_head(model, inputs, positions_N, head)


def logits_and_values_at(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, V] and values [N] in one pass: the value head reads what the output head reads."""
    logits_NV, hidden_NH = _logits_and_hidden(model, inputs, positions_N)
    value_head = next(module for name, module in model.named_modules() if name.rpartition(".")[2] == "value_head")
    return logits_NV, value_head(hidden_NH.float()).squeeze(-1)


def head_inputs_at(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> Tensor:
    """What the output head reads at flat positions: [N, H]."""
    return _logits_and_hidden(model, inputs, positions_N)[1]


def _logits_and_hidden(model: Any, inputs: dict[str, Any], positions_N: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        logits_NV = logits_at(model, inputs, positions_N)
    finally:
        handle.remove()
    return logits_NV, seen[-1].flatten(0, -2)


def hidden_of(model: Any, inputs: dict[str, Any]) -> Tensor:
    """The body's last hidden states at every position: [B*T, H]."""
    options = {} if family_of(model.config) == "encoder" else {"use_cache": False}
    return model(**inputs, **options).last_hidden_state.flatten(0, 1)
