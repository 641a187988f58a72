"""The catalogue's own adapters in a traced model: the classes that `apply` wraps with, around a fake model of few layers.

What cannot stand in a few layers as it is written stands so that each layer has its own: prefix tuning's keys and values, which
`peft` keeps in one table for all layers, are a parameter of each layer. LoRA is traced as frameworks compute it (`low_rank.py`).

Legend: B rows, T tokens, P virtual tokens, D width, K key/value heads, H width of a head.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from genwright.adapters.wrapped import ADAPTER_NAME
from genwright.base.errors import RecipeError
from genwright.catalogue.parts import ADAPTERS
from genwright.models.surgery import layers_of
from genwright.plan.here.trace import fake_weights_can_be_cast
from genwright.plan.published.profile import Profile
from genwright.plan.traced.low_rank import adapter_parameter, mark_
from genwright.plan.traced.setup import ELSEWHERE, LOW_RANK, ROLES, TRAINS_BASE, Setup


def is_wrapped(setup: Setup, profile: Profile, config: Any) -> bool:
    """Whether the catalogue's class itself is traced: all but LoRA, and LoRA where ours reaches into a mixture's experts."""
    if setup.adapter in LOW_RANK:
        return profile.own_forward and experts_of(config) > 0 and _is_all(setup.targets)
    return setup.adapter != "full" and setup.adapter not in ELSEWHERE


def experts_of(config: Any) -> int:
    """Of a mixture's layer; 0: none."""
    text = config.get_text_config()
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((int(found) for name in names if (found := getattr(text, name, 0))), 0)


def _is_all(targets: tuple[str, ...]) -> bool:
    return "all-linear" in targets or {*targets} >= {*ROLES}


def wrap_(model: Any, setup: Setup, profile: Profile, masters: torch.dtype, dtype: torch.dtype) -> None:
    """Set the adapter into `model`: weights of the base that it trains become `masters`, weights of its own `dtype`.

    Errors: RecipeError, as the adapter's own `wrap`, and for settings that it does not have.
    """
    before = {id(parameter) for parameter in model.parameters()}
    adapted = _adapted(model, setup.adapter, _made(model, setup, profile))
    if hasattr(adapted, "prompt_encoder"):
        _prompt_(model, adapted)
    if not profile.own_forward:
        _as_peft_(model)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) not in before and setup.adapter not in TRAINS_BASE:
            mark_(parameter, genwright_adapter=True)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(masters if setup.adapter in TRAINS_BASE else dtype)


def _adapted(model: Any, name: str, adapter: Any) -> Any:
    try:
        with fake_weights_can_be_cast():
            return adapter.wrap(model)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise RecipeError(
            f"{name} cannot be set into a {type(model).__name__}.", wanted="layers that peft knows how to adapt", found=str(error),
            do='plan another adapter, such as "lora" or "last-layers"',
        ) from error  # fmt: skip


def _made(model: Any, setup: Setup, profile: Profile) -> Any:
    """The adapter with this setup's rank, targets and settings. Errors: RecipeError naming the settings there are."""
    kind = ADAPTERS[setup.adapter]
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := [name for name in setup.settings if name not in known]:
        raise RecipeError(
            f"{setup.adapter} has no setting '{unknown[0]}'.", wanted=", ".join(sorted(known)) or "none", found=unknown[0],
            do="leave it out",
        )  # fmt: skip
    if setup.settings.get("projection"):
        raise RecipeError(
            "prefix-tuning.projection cannot be cut at layers: its MLP makes the keys and values of all layers at once.",
            wanted="projection 0", found=str(setup.settings["projection"]), do="plan it with `genwright plan`, which traces the whole",
        )  # fmt: skip
    values: dict[str, Any] = {}
    if "rank" in known and setup.rank:
        values["rank"] = setup.rank
    if "targets" in known and setup.targets:
        values["targets"] = _targets(model, setup.targets)
    if "dropout" in known:
        values["dropout"] = profile.dropout
    return kind(**values | setup.settings)


def _targets(model: Any, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The last parts of the names of these kinds of layers. Errors: RecipeError where a name is of another kind too."""
    from genwright.plan.traced.surgery import is_linear, role_of

    if _is_all(wanted):
        return ("all-linear",)
    roles: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        if is_linear(module):
            roles.setdefault(name.rpartition(".")[2], set()).add(role_of(name))
    found = tuple(sorted(name for name, kinds in roles.items() if kinds & {*wanted}))
    if mixed := next((name for name in found if not roles[name] <= {*wanted}), ""):
        raise RecipeError(
            f"This model calls layers of several kinds '{mixed}'.", wanted='targets "all-linear"', found=", ".join(wanted), do="adapt all"
        )  # fmt: skip
    return found


def _as_peft_(model: nn.Module) -> None:
    """`peft`'s own forward in place of ours."""
    from peft.tuners import ia3, lora

    module: Any
    for module in model.modules():
        for kind in (lora.Linear, ia3.Linear):
            if isinstance(module, kind):
                module.__class__ = kind


def _prompt_(model: Any, adapted: Any) -> None:
    """Virtual tokens: their network beside the model, or their keys and values in each layer."""
    encoder, config = adapted.prompt_encoder[ADAPTER_NAME], adapted.peft_config[ADAPTER_NAME]
    length = config.num_virtual_tokens
    if config.peft_type != "PREFIX_TUNING":
        model.genwright_prompt, model.genwright_length = encoder, length
        return
    layers, heads = layers_of(model)[0], config.num_attention_heads
    width = encoder.embedding.weight.shape[1] // (2 * len(layers) * heads)
    for layer in layers:
        layer.genwright_prefix = adapter_parameter(2, 1, heads, length, width, dtype=torch.float32)
    model.genwright_length = length


class LayerPrefixes(DynamicCache):
    """Each layer's own learned keys and values in front of what it makes; takes nothing in."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.standing, self.length = layers_of(model)[0], model.genwright_length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """[B, K, P + T, H] of keys and of values."""
        both: Any = self.standing[layer_idx].genwright_prefix
        key, value = both.to(key_states.dtype).expand(-1, key_states.shape[0], -1, -1, -1)
        return torch.cat([key, key_states], dim=2), torch.cat([value, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """P."""
        return int(self.length)


def hidden_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What the head reads [B, T, D], virtual tokens left out; of a model whose body has no name of its own, the logits."""
    length = getattr(model, "genwright_length", 0)
    if not length:
        return _states(model.base_model(**inputs))
    if not hasattr(model, "genwright_prompt"):
        return _states(model.base_model(**inputs, past_key_values=LayerPrefixes(model)))
    text_BTD = model.get_input_embeddings()(inputs["input_ids"])
    prompt_PD = model.genwright_prompt(torch.arange(length)).to(text_BTD.dtype)
    whole = torch.cat([prompt_PD.expand(text_BTD.shape[0], -1, -1), text_BTD], dim=1)
    return _states(model.base_model(inputs_embeds=whole))[:, length:]


def _states(out: Any) -> Tensor:
    found: Tensor = out.last_hidden_state if hasattr(out, "last_hidden_state") else out[0]
    return found
