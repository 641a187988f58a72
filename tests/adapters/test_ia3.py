"""IA3 scales keys, values and inner activations, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.ia3 import Linear
from transformers import AutoConfig, AutoModelForCausalLM

from genwright.adapters.ia3 import IA3
from genwright.base.errors import RecipeError


def test_a_scaled_output_and_a_scaled_input(model_of: Any) -> None:
    model = IA3().wrap(model_of("decoder"))
    scaled = {name.rpartition(".")[2]: module for name, module in model.named_modules() if isinstance(module, Linear)}
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
