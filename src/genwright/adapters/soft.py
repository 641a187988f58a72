"""Soft prompts: P virtual tokens in front of every document, learned while the model stays as it is.

`peft` keeps their configuration, modules and files. The computation is ours: `peft` lays them before every row, and so
can neither pack rows nor share the prompt. Here a packed row holds them once, every document sees them
(`Documents.behind`), and the documents' positions go on after them. For rows with a mask (scoring, generation) they are
computed once and stand in the cache of every row.

Only in decoders: an encoder would have to look back from the prompt to each document, so nothing could be shared.

Legend: P virtual tokens, T tokens of a row, B rows, D width, L layers, K key/value heads, H width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModelForCausalLM, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import DynamicCache

from genwright.adapters.base import fresh_heads
from genwright.adapters.wrapped import ADAPTER_NAME, save_tensors, task_type_of, wrapped
from genwright.base.errors import RecipeError
from genwright.models.attention import ordinary_attention
from genwright.models.load import load_tokenizer


@dataclass(frozen=True)
class PromptTuning:
    """P free embeddings in front of the text, nothing else is trained   (Lester 2021, arXiv 2104.08691, section 2).

    They start as the embeddings of `text`, or of random words of the vocabulary. P * D weights: 11,520 on SmolLM2-135M
    at P = 20.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 2e-2
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False

    tokens: int = 20
    """P, how many virtual tokens."""

    text: str = ""
    """What they start as: repeated or cut to P tokens. Empty: random words."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError for a model that is no decoder; ModelError where `text` needs a tokenizer that is not there."""
        adapted = prompt_model(model, PromptTuningConfig(num_virtual_tokens=self.tokens), "prompt-tuning")
        weight_PD = adapted.prompt_encoder[ADAPTER_NAME].embedding.weight
        if is_real(weight_PD):
            ids_P = start_ids(model, self.tokens, self.text, "prompt-tuning")
            weight_PD.data.copy_(model.get_input_embeddings()(ids_P))
        return adapted

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s folder of P embeddings."""
        save_embeddings(model, folder)


@dataclass(frozen=True)
class PTuning:
    """P embeddings made by a small network: MLP(E) or MLP(LSTM(E)), which is trained with E   (Liu 2021, arXiv 2103.10385, section 3.2).

    Saved as the P embeddings it makes, so that the network costs nothing to run. On SmolLM2-135M, 20 tokens through an
    MLP 128 wide train 176,192 weights.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 1e-2
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False

    tokens: int = 20
    """P, how many virtual tokens."""

    network: Literal["mlp", "lstm"] = "mlp"
    """What makes them: "mlp" (three layers), or "lstm" (both ways, then two layers)."""

    width: int = 128
    """Of the network's hidden layers."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError for a model that is no decoder, or a network that is none."""
        if self.network not in ("mlp", "lstm") or self.width < 1:
            raise RecipeError(
                "adapt.p-tuning has no such network.", wanted='"mlp" or "lstm", at least 1 wide',
                found=f"{self.network}, {self.width} wide", do="choose one",
            )  # fmt: skip
        config = PromptEncoderConfig(
            num_virtual_tokens=self.tokens, encoder_reparameterization_type=self.network.upper(), encoder_hidden_size=self.width,
            encoder_num_layers=2 if self.network == "mlp" else 1,
        )  # fmt: skip
        return prompt_model(model, config, "p-tuning")

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s folder of P embeddings, as prompt tuning leaves it."""
        save_embeddings(model, folder)


@dataclass(frozen=True)
class PrefixTuning:
    """P learned keys and values in front of every layer's own   (Li 2021, arXiv 2101.00190, section 4).

    They start as those of `text`, or of random words: 2 * L * K * H * P weights, 230,400 on SmolLM2-135M at P = 20. They cost
    no products but attention's. With `projection` they are made by an MLP from P embeddings, as in the paper, and folded
    when saved.
    """

    form: ClassVar[str] = "adapter"
    default_learning_rate: ClassVar[float] = 3e-2
    trains_base: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False

    tokens: int = 20
    """P, how many virtual tokens."""

    text: str = ""
    """What they start as: repeated or cut to P tokens. Empty: random words."""

    projection: int = 0
    """Hidden width of an MLP that makes them while training. 0: they are trained themselves."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError for a model that is no decoder, or `text` beside `projection`."""
        if self.text and self.projection:
            raise RecipeError(
                "adapt.prefix-tuning.text has no effect beside projection: an MLP starts at random.",
                do="give one of the two",
            )
        config = PrefixTuningConfig(
            num_virtual_tokens=self.tokens,
            prefix_projection=self.projection > 0,
            encoder_hidden_size=self.projection or None,
        )
        adapted = prompt_model(model, config, "prefix-tuning")
        weight = adapted.prompt_encoder[ADAPTER_NAME].embedding.weight
        if is_real(weight) and not self.projection:
            ids_P = start_ids(model, self.tokens, self.text, "prefix-tuning")
            weight.data.copy_(flat_prefix(cache_of(model, model.get_input_embeddings()(ids_P)[None])))
        return adapted

    def save(self, model: Any, folder: Path) -> None:
        """`peft`'s folder of P keys and values a layer."""
        mine = model.peft_config[ADAPTER_NAME]
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=mine.num_virtual_tokens, token_dim=mine.token_dim, num_layers=mine.num_layers,
            num_attention_heads=mine.num_attention_heads, num_transformer_submodules=1,
        )  # fmt: skip
        save_tensors({"prompt_embeddings": learned(model).detach()}, config, folder)


def prompt_model(model: Any, config: Any, method: str) -> Any:
    """`peft`'s model with our forward. Errors: RecipeError for a model that does not continue a text."""
    if task_type_of(model) != "CAUSAL_LM" or fresh_heads(model):
        raise RecipeError(
            f"{method} is for models that continue a text: only there can all documents share one prompt.",
            wanted="a decoder with its own output head", found=type(model).__name__, do='use method = "lora" or "ia3"',
        )  # fmt: skip
    if config.num_virtual_tokens < 1:
        raise RecipeError(
            f"adapt.{method}.tokens is too small.",
            wanted="at least 1",
            found=str(config.num_virtual_tokens),
            do="raise it",
        )
    adapted = wrapped(model, config)
    share_prompt_(adapted)
    return adapted


def share_prompt_(model: Any) -> bool:
    """Give a `peft` model with a soft prompt our forward; modules, names and files stay `peft`'s. Returns whether it has one."""
    if type(model) is PeftModelForCausalLM and model.active_peft_config.is_prompt_learning:
        model.__class__ = PromptedModel
        return True
    return False


class PromptedModel(PeftModelForCausalLM):
    """`peft`'s causal model with a soft prompt that is computed once for all documents or rows of a call."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None, *,
        documents: Any = None, past_key_values: Any = None, logits_to_keep: int | Tensor = 0, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """As the base model's: the caller never counts the virtual tokens, neither in positions nor in logits."""
        length = self.active_peft_config.num_virtual_tokens
        places = None if position_ids is None else position_ids + length
        if documents is not None:
            packed = {"position_ids": places, "documents": documents.behind(length), "logits_to_keep": logits_to_keep}
            return self._packed(input_ids, packed | kwargs)
        if past_key_values is None:
            past_key_values = DynamicCache(config=self.config.get_text_config())
        if past_key_values.get_seq_length() == 0:
            self._put_into_(past_key_values, input_ids.shape[0])
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask, (length, 0), value=1)
        return self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=places, past_key_values=past_key_values,
            logits_to_keep=logits_to_keep, **kwargs,
        )  # fmt: skip

    def _packed(self, ids_BT: Tensor, inputs: dict[str, Any]) -> Any:
        """One row of documents [1, T], the prompt in front of the first: as embeddings, or as keys and values alone."""
        if self._is_prefix():
            return self.base_model(input_ids=ids_BT, past_key_values=Standing(self._prefix()), **inputs)
        text_BTD = self.get_input_embeddings()(ids_BT)
        prompt_PD = learned(self).to(text_BTD.dtype)
        length, keep = prompt_PD.shape[0], inputs["logits_to_keep"]
        if not isinstance(keep, int) or keep == 0:
            keep = length + (keep if isinstance(keep, Tensor) else torch.arange(ids_BT.shape[1], device=ids_BT.device))
        before = torch.arange(length, device=ids_BT.device)[None]
        places = torch.cat([before, inputs["position_ids"]], dim=1)
        embeddings = torch.cat([prompt_PD[None], text_BTD], dim=1)
        return self.base_model(inputs_embeds=embeddings, **inputs | {"position_ids": places, "logits_to_keep": keep})

    def _put_into_(self, cache: Any, rows: int) -> None:
        """The prompt's keys and values, computed once, in front of every row."""
        if self._is_prefix():
            layers = self._prefix()
        else:
            embedded_PD = learned(self).to(self.get_input_embeddings().weight.dtype)
            layers = [(layer.keys, layer.values) for layer in cache_of(self.base_model, embedded_PD[None]).layers]
        for number, (key, value) in enumerate(layers):
            cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), number)

    def _is_prefix(self) -> bool:
        return bool(self.active_peft_config.peft_type == "PREFIX_TUNING")

    def _prefix(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Keys and values [1, K, P, H] of each layer."""
        config = self.active_peft_config
        flat = learned(self).to(self.get_input_embeddings().weight.dtype)
        heads = config.num_attention_heads
        split = flat.view(config.num_virtual_tokens, 2 * config.num_layers, heads, -1).permute(1, 2, 0, 3)[:, None]
        return list(zip(split[0::2], split[1::2]))


class Standing(DynamicCache):
    """Keys and values that stand in front of every layer's own and take nothing in, so that a layer may be recomputed."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.standing = layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """The layer's own behind the standing ones; all of them, whatever window the layer has: attention sees to that."""
        key, value = self.standing[layer_idx]
        return torch.cat([key, key_states], dim=2), torch.cat([value, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """P."""
        return self.standing[layer_idx][0].shape[2]


def learned(model: Any) -> Tensor:
    """What the active soft prompt is: embeddings [P, D], or keys and values [P, 2 L K H]; made by its network if it has one."""
    encoder, config = model.prompt_encoder[model.active_adapter], model.active_peft_config
    if config.inference_mode:
        return encoder.embedding.weight
    return encoder(torch.arange(config.num_virtual_tokens, device=encoder.embedding.weight.device))


def cache_of(model: Any, embedded_1PD: Tensor) -> Any:
    """The keys and values of every layer after these embeddings: the body only, no logits."""
    with ordinary_attention(model):
        return model.base_model(
            inputs_embeds=embedded_1PD, past_key_values=DynamicCache(), use_cache=True
        ).past_key_values


def flat_prefix(cache: Any) -> Tensor:
    """A cache of one row as prefix tuning keeps it [P, 2 L K H]: key and value of the first layer, of the second, ..."""
    both = torch.stack([tensor[0] for layer in cache.layers for tensor in (layer.keys, layer.values)])
    return both.permute(2, 0, 1, 3).flatten(1)


def start_ids(model: Any, tokens: int, text: str, method: str) -> Tensor:
    """The P tokens that a prompt starts as. Errors: RecipeError where the text has no tokens, or the model no folder."""
    device = model.get_input_embeddings().weight.device
    if not text:
        return torch.randint(0, model.get_input_embeddings().num_embeddings, (tokens,)).to(device)
    if not model.name_or_path:
        raise RecipeError(
            f"adapt.{method}.text needs the model's tokenizer, and this model comes from no folder.",
            do="leave text empty",
        )
    ids = load_tokenizer(Path(model.name_or_path))(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise RecipeError(f"adapt.{method}.text has no tokens.", found=repr(text), do="leave it empty, or write words")
    return torch.tensor([ids[place % len(ids)] for place in range(tokens)], device=device)


def is_real(tensor: Tensor) -> bool:
    """Whether there are values to set: not on the planner's fake tensors."""
    return not (isinstance(tensor, FakeTensor) or tensor.is_meta)


def save_embeddings(model: Any, folder: Path) -> None:
    """The P embeddings as prompt tuning's folder, whatever network made them."""
    mine = model.peft_config[ADAPTER_NAME]
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=mine.num_virtual_tokens, token_dim=mine.token_dim, num_layers=mine.num_layers,
        num_attention_heads=mine.num_attention_heads, num_transformer_submodules=1,
    )  # fmt: skip
    save_tensors({"prompt_embeddings": learned(model).detach()}, config, folder)
