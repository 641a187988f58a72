"""A frozen base in 8 or 4 bits: torchao's rounding, the right input gradient, and really 1 or half a byte a weight."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from genwright.base.errors import MissingExtra, RecipeError
from genwright.precision.quantize import QuantizedLinear, packed, quantize_base_, quantized, unpacked


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(128, 24)


def numbers(module: QuantizedLinear) -> torch.Tensor:
    return module.dense(module.codes, module.dense_dtype)


def nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def test_int8_is_torchaos_int8_weight_only(layer: nn.Linear) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    expected = nn.Sequential(nn.Linear(128, 24))
    expected.load_state_dict({"0.weight": layer.weight.detach(), "0.bias": layer.bias.detach()})
    quantize_(expected, Int8WeightOnlyConfig(version=2))
    torch.testing.assert_close(numbers(quantized(layer, "int8")), expected[0].weight.dequantize(), atol=1e-7, rtol=0)


def test_int4_is_torchaos_own_dequantised(layer: nn.Linear) -> None:
    """Its tinygemm numbers: scale and offset in bfloat16, one for 32 inputs."""
    from torchao.quantization.quant_primitives import _dequantize_affine_tinygemm

    mine = quantized(layer, "int4")
    codes = (unpacked(mine.codes) + 8).to(torch.uint8)
    theirs = _dequantize_affine_tinygemm(
        codes, (1, 32), mine.scale.float(), mine.offset.float(), torch.uint8, 0, 15, output_dtype=torch.float32
    )  # fmt: skip
    torch.testing.assert_close(numbers(mine), theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("base", "group"), [("int8", 128), ("int4", 32)])
def test_no_weight_is_further_off_than_half_a_step(layer: nn.Linear, base: str, group: int) -> None:
    """Closed form: a step is the row's largest absolute weight / 127.5, or (a group's largest - its smallest) / 15.

    A scale and an offset in bfloat16 add 1/256 of what they scale.
    """
    mine = quantized(layer, base)
    groups = layer.weight.detach().view(24, -1, group)
    most, least = groups.amax(-1, keepdim=True), groups.amin(-1, keepdim=True)
    step = groups.abs().amax(-1, keepdim=True) / 127.5 if base == "int8" else (most - least) / 15
    error = (numbers(mine).view_as(groups) - groups).abs()
    assert (error <= step / 2 * 1.01 + (most - least) / 128 * (base == "int4")).all()
    assert error.max() > 0.3 * step.min()


def test_a_group_that_lies_to_one_side_uses_all_its_codes() -> None:
    layer = nn.Linear(32, 1)
    layer.weight.data = torch.linspace(1.0, 1.15, 32)[None]
    mine = quantized(layer, "int4")
    assert len(set(unpacked(mine.codes).flatten().tolist())) == 16
    assert (numbers(mine) - layer.weight).abs().max() < 0.01


@pytest.mark.parametrize(("base", "each"), [("int8", 1 + 4 / 128), ("int4", 0.5 + 4 / 32)])
def test_the_bytes_of_a_weight(layer: nn.Linear, base: str, each: float) -> None:
    assert nbytes(quantized(layer, base)) == each * 128 * 24 + layer.bias.nbytes


@pytest.mark.parametrize("base", ["int8", "int4"])
def test_forward_and_input_gradient_are_those_of_the_dense_weights(layer: nn.Linear, base: str) -> None:
    mine = quantized(layer, base)
    dense = nn.Linear(128, 24)
    dense.load_state_dict({"weight": numbers(mine), "bias": layer.bias.detach()})
    x, upstream = torch.randn(3, 5, 128), torch.randn(3, 5, 24)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = mine(ours)
    torch.testing.assert_close(y, dense(theirs))
    (y * upstream).sum().backward()
    (dense(theirs) * upstream).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in mine.parameters())


def test_its_weight_has_a_shape_and_no_numbers(layer: nn.Linear) -> None:
    weight = quantized(layer.bfloat16(), "int4").weight
    assert weight.shape == (24, 128) and weight.dtype == torch.bfloat16 and weight.isnan().all()
    assert weight.untyped_storage().nbytes() == 2


def test_nothing_dense_is_kept_between_forward_and_backward(layer: nn.Linear) -> None:
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        quantized(layer, "int4")(torch.randn(2, 128, requires_grad=True))
    assert not kept


def test_packing_is_exact_for_every_pair() -> None:
    codes = torch.tensor([[low, high] for low in range(16) for high in range(16)], dtype=torch.uint8)
    assert packed(codes).shape == (256, 1) and packed(codes).dtype == torch.uint8
    assert len(set(packed(codes).flatten().tolist())) == 256
    assert torch.equal(unpacked(packed(codes)), codes.to(torch.int8) - 8)


def test_smaller_groups_where_32_does_not_divide() -> None:
    assert quantized(nn.Linear(48, 4), "int4").scale.shape == (4, 3)


def test_layers_that_are_kept_stay() -> None:
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), "head": nn.Linear(8, 3)})
    head = model["head"]
    quantize_base_(model, "int8", keep={"head"})
    assert isinstance(model["body"][0], QuantizedLinear) and model["head"] is head


def test_integers_survive_a_change_of_type(layer: nn.Linear) -> None:
    mine = quantized(layer, "int8").to(torch.bfloat16)
    assert mine.codes.dtype == torch.int8 and mine(torch.zeros(1, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_base_of_a_trillion_weights_costs_nothing_to_plan() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        layer = quantized(nn.Linear(2**20, 2**20), "int4")
        assert layer(torch.empty(2, 2**20)).shape == (2, 2**20)
        assert layer.codes.nbytes == 2**39


def test_an_unknown_kind() -> None:
    with pytest.raises(RecipeError, match="cannot be kept in 'int2'"):
        quantize_base_(nn.Linear(4, 4), "int2")


def test_an_odd_number_of_inputs() -> None:
    with pytest.raises(RecipeError, match=r"an even number of inputs\n  found:  7"):
        quantized(nn.Linear(7, 4), "int4")


def test_without_torchao_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.quant_primitives", None)
    with pytest.raises(MissingExtra, match=r"pip install 'genwright\[quant\]'"):
        quantized(nn.Linear(8, 4), "int8")
