"""Quantisation-aware training: torchao's rounding and gradients, nothing lost on the way to integers, better than rounding after."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from genwright.adapters.qat import QAT, RoundedLinear, rounded_weights
from genwright.base.errors import MissingExtra, RecipeError
from genwright.precision.quantize import quantize_base_


def ours(layer: nn.Linear) -> nn.Module:
    model = nn.Sequential(copy.deepcopy(layer))
    model[0].__class__ = RoundedLinear
    return model


def backward(model: nn.Module, x: torch.Tensor, upstream: torch.Tensor) -> list[torch.Tensor]:
    """y, dx, and the gradients of the model."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y * upstream).sum().backward()
    return [y, x.grad, *(parameter.grad for parameter in model.parameters())]


def theirs(layer: nn.Linear) -> nn.Module:
    """Of torchao, its own fake quantisation of the weights."""
    from torchao.quantization import PerGroup, quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
    from torchao.quantization.quant_primitives import ZeroPointDomain

    config = IntxFakeQuantizeConfig(
        torch.uint4, PerGroup(32), is_symmetric=False, scale_precision=torch.bfloat16, zero_point_precision=torch.bfloat16,
        zero_point_domain=ZeroPointDomain.FLOAT, eps=1e-6,
    )  # fmt: skip
    model = nn.Sequential(copy.deepcopy(layer))
    quantize_(model, QATConfig(weight_config=config, step="prepare"))
    return model


@pytest.fixture
def layer() -> nn.Linear:
    """Its weights are integers up to a power of two, so that torchao's bfloat16 sums round nothing either."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 24)
    weight = torch.randint(0, 16, (24, 2, 32)).float()
    weight[..., 0], weight[..., 1] = 0.0, 15.0
    layer.weight.data = (weight - 8 + 0.3 * torch.rand_like(weight) * (weight > 0) * (weight < 15)).flatten(1) / 64
    return layer


def test_forward_and_every_gradient_are_torchaos(layer: nn.Linear) -> None:
    x, upstream = torch.randn(3, 5, 64), torch.randn(3, 5, 24)
    for mine, their in zip(backward(ours(layer), x, upstream), backward(theirs(layer), x, upstream), strict=True):
        torch.testing.assert_close(mine, their)


def test_the_gradient_is_that_of_the_rounded_weights() -> None:
    """Closed form, in bfloat16 under autocast: dW = g^T x and dx = g Q(W), summed over rows; masters keep float32 gradients."""
    torch.manual_seed(1)
    layer = nn.Linear(64, 24)
    model, x, upstream = ours(layer), torch.randn(7, 64), torch.randn(7, 24)
    rounded = nn.Linear(64, 24)
    integers = model[0].integers()
    rounded.load_state_dict({"weight": integers.dense(integers.codes, torch.float32), "bias": layer.bias.detach()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, expected = backward(model, x, upstream), backward(rounded, x, upstream)
    assert mine[0].dtype == torch.bfloat16 and mine[2].dtype == torch.float32
    for left, right in zip(mine, expected, strict=True):
        torch.testing.assert_close(left, right, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_converted_differs_by_nothing(precision: torch.dtype, model_of: Any, tmp_path: Path) -> None:
    """Trained, made integers, and saved: one forward in three forms, and rounding what was saved changes nothing."""
    model = QAT().wrap(model_of("decoder"))
    ids = torch.arange(1, 13)[None]
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32), torch.no_grad():
        prepared = model(ids).logits
        QAT().save(model, tmp_path)
        saved = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(saved(ids).logits, prepared)
        converted = copy.deepcopy(saved)
        quantize_base_(converted, "int4", keep=["lm_head"])
        assert torch.equal(converted(ids).logits, prepared)
        assert not torch.equal(model_of("decoder")(ids).logits, prepared)


def test_saving_leaves_the_masters(model_of: Any) -> None:
    model = QAT().wrap(model_of("decoder"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with rounded_weights(model):
        changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 2 * 7 and all("proj" in name for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_undoes_a_third_of_what_rounding_after_training_costs(model_of: Any) -> None:
    """To say what the model itself says is learned to the end, so whoever is not the model has lost it by rounding.

    KL from the model in 4 bits to the model, on rows that neither has seen. Measured: 8.4e-4 rounded, 5.1e-4 trained so.
    """
    torch.manual_seed(1)
    teacher, rounded, held_out = model_of("decoder"), model_of("decoder"), torch.randint(1, 50, (64, 16))
    quantize_base_(rounded, "int4", keep=["lm_head"])
    aware = QAT().wrap(model_of("decoder"))

    def divergence(model: Any, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            expected = teacher(ids).logits.log_softmax(-1)
        said = model(ids).logits.log_softmax(-1)
        return nn.functional.kl_div(said, expected, log_target=True, reduction="none").sum(-1).mean()

    optimizer = torch.optim.AdamW(aware.parameters(), weight_decay=0.0)
    with torch.no_grad():
        cost = divergence(rounded, held_out)
        assert divergence(aware, held_out) == cost > 1e-4
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / 60)
        optimizer.zero_grad()
        divergence(aware, torch.randint(1, 50, (16, 16))).backward()
        optimizer.step()
    with torch.no_grad():
        assert divergence(aware, held_out) < 2 / 3 * cost


def test_heads_are_not_rounded(model_of: Any) -> None:
    for family, head in (("decoder", "lm_head"), ("classes", "classifier"), ("reward", "score")):
        model = QAT().wrap(model_of(family))
        assert type(model.get_submodule(head)) is nn.Linear
        assert sum(isinstance(module, RoundedLinear) for module in model.modules()) >= 12


def test_a_layer_that_cannot_be_packed() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = nn.Linear(7, 4)
            self.get_output_embeddings = lambda: None

    with pytest.raises(RecipeError, match=r"odd cannot be kept in 4 bits.\n  wanted: an even number of inputs"):
        QAT().wrap(Odd())


def test_without_torchao_the_install_command_is_told(model_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.quant_primitives", None)
    with pytest.raises(MissingExtra, match=r"pip install 'genwright\[quant\]'"):
        QAT().wrap(model_of("decoder"))
