"""MultiLoRA: N modules side by side are one wide LoRA with scaled B, in every direction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genwright.adapters.lora import FusedLinear
from genwright.adapters.multilora import MultiLoRA, ScaledUp
from genwright.base.errors import RecipeError

N, R = 3, 2


def adapted(model_of: Any) -> Any:
    model = MultiLoRA(parallel=N, rank=R, alpha=5.0).wrap(model_of("decoder"))
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, ScaledUp):
            nn.init.normal_(module.scale_ON, std=0.5)
    return model


def test_a_layer_is_the_papers_sum_over_modules(model_of: Any) -> None:
    """A layer is x W^T + alpha / R sum_n s_n * (B_n (A_n x)), term by term in double precision."""
    model = adapted(model_of)
    layer: Any = model.base_model.model.model.layers[1].mlp.up_proj
    x = torch.randn(4, 32)
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"]
    expected = x.double() @ layer.get_base_layer().weight.double().T
    for n in range(N):
        part = slice(n * R, (n + 1) * R)
        expected = expected + 5.0 / R * b.scale_ON.double()[:, n] * (
            x.double() @ a[part].T @ b.side_OM.double()[:, part].T
        )
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_all_gradients_are_autograds(model_of: Any) -> None:
    """Our forward with the folded B against the sum written out."""
    model = adapted(model_of)
    layer: Any = model.base_model.model.model.layers[0].self_attn.v_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"]
    x, g = torch.randn(6, 32, requires_grad=True), torch.randn(6, 16)
    inputs = [x, a, b.side_OM, b.scale_ON]
    ours = torch.autograd.grad((layer(x) * g).sum(), inputs)
    parts = [slice(n * R, (n + 1) * R) for n in range(N)]
    update = sum(b.scale_ON[:, n] * (x @ a[part].T @ b.side_OM[:, part].T) for n, part in enumerate(parts))
    theirs = torch.autograd.grad(((x @ layer.get_base_layer().weight.T + 5.0 / R * update) * g).sum(), inputs)
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def test_it_starts_as_the_paper_says(model_of: Any) -> None:
    """A and B Kaiming-uniform with a = sqrt(5), so |A| <= 1/sqrt(I) and |B| <= 1/sqrt(R); scales at zero, one an output."""
    model = MultiLoRA(parallel=N, rank=R).wrap(model_of("decoder"))
    for module in model.modules():
        if isinstance(module, FusedLinear):
            a, b = module.lora_A["default"].weight, module.lora_B["default"]
            assert 0.8 * module.in_features**-0.5 < a.abs().max() <= module.in_features**-0.5
            assert 0.8 * R**-0.5 < b.side_OM.abs().max() <= R**-0.5
            assert b.scale_ON.shape == (module.out_features, N) and not b.scale_ON.any()


def test_all_modules_learn_in_the_first_step(model_of: Any) -> None:
    """At the start the scales alone have gradients, and each module's its own; a LoRA's B would be as zero as its update."""
    model = MultiLoRA(parallel=N, rank=R).wrap(model_of("decoder"))
    model(input_ids=torch.tensor([[3, 4, 5]])).logits.square().sum().backward()
    for module in model.modules():
        if isinstance(module, ScaledUp):
            assert module.scale_ON.grad.abs().sum(0).gt(0).all() and not module.side_OM.grad.any()


def test_its_file_is_one_wide_lora_with_its_factor(model_of: Any, tmp_path: Path) -> None:
    MultiLoRA(parallel=N, rank=R, alpha=5.0).save(adapted(model_of), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == N * R and config["lora_alpha"] / config["r"] == pytest.approx(5.0 / R)
    assert config["peft_type"] == "LORA"


def test_beside_another_adapter_it_is_pefts_sum(model_of: Any) -> None:
    """Two active adapters are `peft`'s own sum: the scales are in it."""
    model = adapted(model_of)
    ids = torch.tensor([[3, 4, 5, 6]])
    alone = model(input_ids=ids).logits
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])  # the other's B is zero: it adds nothing
    torch.testing.assert_close(model(input_ids=ids).logits, alone, atol=1e-5, rtol=1e-5)


def test_a_wrong_target(model_of: Any) -> None:
    with pytest.raises(RecipeError, match=r"adapt.multilora.targets names no layer of this model: w_q"):
        MultiLoRA(targets=("w_q",)).wrap(model_of("decoder"))
