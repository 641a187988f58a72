"""IA3 scales keys, values and inner activations, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.ia3 import Linear
from transformers import AutoConfig, AutoModelForCausalLM

from genwright.adapters.ia3 import IA3, ScaledLinear
from genwright.base.errors import RecipeError


def test_a_scaled_output_and_a_scaled_input(model_of: Any) -> None:
    model = IA3().wrap(model_of("decoder"))
    scaled = {
        name.rpartition(".")[2]: module for name, module in model.named_modules() if isinstance(module, ScaledLinear)
    }
    assert {name: module.is_feedforward for name, module in scaled.items()} == {
        "k_proj": False,
        "v_proj": False,
        "down_proj": True,
    }
    for module in scaled.values():
        torch.nn.init.normal_(module.ia3_l["default"])
    x, h = torch.randn(3, 32), torch.randn(3, 48)
    k, down = scaled["k_proj"], scaled["down_proj"]
    torch.testing.assert_close(k(x), k.ia3_l["default"].flatten() * (x @ k.base_layer.weight.T))
    torch.testing.assert_close(down(h), (down.ia3_l["default"].flatten() * h) @ down.base_layer.weight.T)


@pytest.mark.parametrize(
    ("family", "number"), [("encoder", 2 * (32 + 32 + 32 + 48)), ("encoder-decoder", 2 * (64 + 48) + 2 * (128 + 48))]
)
def test_the_other_families(family: str, number: int, model_of: Any) -> None:
    """BERT: key, value, and the inputs of both dense layers behind; T5: k, v of every attention, and wo."""
    model = IA3().wrap(model_of(family))
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == number


def unknown_kind() -> Any:
    config = AutoConfig.for_model(
        "granite", vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    return AutoModelForCausalLM.from_config(config)


def test_a_kind_of_model_without_a_table_asks_for_names() -> None:
    with pytest.raises(RecipeError, match=r"of a 'granite' model(.|\n)*down_proj, gate_proj, k_proj"):
        IA3().wrap(unknown_kind())
    model = IA3(outputs=("k_proj", "v_proj"), inputs=("down_proj",)).wrap(unknown_kind())
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 2 * (32 + 32 + 48)


def test_a_name_that_is_no_layer() -> None:
    with pytest.raises(RecipeError, match=r"adapt\.ia3 names no layer of this model: w_k"):
        IA3(outputs=("w_k",)).wrap(unknown_kind())


def moved(model: Any) -> Any:
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "ia3_l" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model


def as_peft_(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, ScaledLinear):
            module.__class__ = Linear
    return model


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_forward_and_every_gradient_equal_pefts(family: str, model_of: Any) -> None:
    ours, theirs = moved(IA3().wrap(model_of(family))), as_peft_(moved(IA3().wrap(model_of(family))))
    ids = torch.randint(0, 50, (2, 9))
    found, expected = {}, {}
    for model, gradients in ((ours, found), (theirs, expected)):
        gradients["logits"] = model(input_ids=ids).logits
        gradients["logits"].logsumexp(-1).sum().backward()
        gradients |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys() and len(found) > 4
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=2e-5)


def test_bfloat16_keeps_what_was_learned(model_of: Any) -> None:
    """Nearly every output is what `peft`'s float32 product rounds to; with l itself in bfloat16 half of them are not."""
    layer: Any = next(
        m for m in moved(IA3().wrap(model_of("decoder", torch.bfloat16))).modules() if isinstance(m, ScaledLinear)
    )
    x = torch.randn(64, 32, dtype=torch.bfloat16)
    y, factor = layer.base_layer(x), layer.ia3_l["default"].flatten()
    expected = (y.float() * factor).bfloat16()
    assert (layer(x) == expected).float().mean() > 0.9
    assert ((y * factor.bfloat16()) == expected).float().mean() < 0.8
