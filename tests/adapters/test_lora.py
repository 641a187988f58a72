"""Our LoRA computation equals `peft`'s to the last digit that floats allow, and its files are `peft`'s."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.lora import DoRA, FusedLinear, LoRA, RsLoRA, use_fused_forward_
from genwright.base.errors import RecipeError
from genwright.precision.quantize import QuantizedLinear

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip


def base(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).to(dtype)


def adapted(adapter: LoRA, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """With B away from zero, so that the adapter does something."""
    model = adapter.wrap(base(dtype))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def as_peft_(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        if isinstance(module, FusedLinear):
            module.__class__ = lora.Linear
    return model


def gradients(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model(input_ids=ids).logits.float().square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_forward_and_every_gradient_equal_pefts() -> None:
    ids = torch.randint(0, 50, (2, 9))
    ours, theirs = adapted(LoRA(rank=4)), as_peft_(adapted(LoRA(rank=4)))
    assert not any(isinstance(module, FusedLinear) for module in theirs.modules())
    torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-6, rtol=1e-5)
    expected = gradients(theirs, ids)
    for name, gradient in gradients(ours, ids).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)
    assert len(expected) == 2 * 7 * 2


def test_gradients_equal_finite_differences_in_double_precision() -> None:
    from genwright.adapters.lora import LoRAFunction

    torch.manual_seed(0)
    x, weight, a, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 5), (4, 5), (2, 5), (4, 2)))
    bias = torch.randn(4, dtype=torch.float64)
    plain = lambda x, a, b: x @ weight.T + bias + 0.7 * (x @ a.T) @ b.T
    torch.testing.assert_close(LoRAFunction.apply(x, weight, bias, a, b, 0.7), plain(x, a, b))
    inputs = [tensor.requires_grad_() for tensor in (x, a, b)]
    upstream = torch.randn(3, 4, dtype=torch.float64)
    ours = torch.autograd.grad((LoRAFunction.apply(x, weight, bias, a, b, 0.7) * upstream).sum(), inputs)
    theirs = torch.autograd.grad((plain(x, a, b) * upstream).sum(), inputs)
    for mine, expected in zip(ours, theirs):
        torch.testing.assert_close(mine.double(), expected, atol=1e-5, rtol=1e-5)


def test_masters_stay_float32_over_a_bfloat16_base() -> None:
    model = adapted(LoRA(rank=4), torch.bfloat16)
    found = gradients(model, torch.randint(0, 50, (1, 7)))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {torch.bfloat16}


def test_an_adapter_at_its_start_changes_nothing() -> None:
    ids = torch.randint(0, 50, (2, 9))
    assert torch.equal(LoRA(rank=4).wrap(base())(input_ids=ids).logits, base()(input_ids=ids).logits)


def test_number_of_trained_weights_is_the_closed_form() -> None:
    model = LoRA(rank=4).wrap(base())
    linear = [
        module for name, module in base().named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    expected = sum(4 * (module.in_features + module.out_features) for module in linear)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == expected


def test_files_load_in_plain_peft_with_equal_logits(tmp_path: Path) -> None:
    ids = torch.randint(0, 50, (2, 9))
    model = adapted(LoRA(rank=4))
    LoRA(rank=4).save(model, tmp_path)
    plain = PeftModel.from_pretrained(base(), tmp_path)
    torch.testing.assert_close(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-6, rtol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_dropout_disabling_and_merging_are_left_to_peft() -> None:
    ids = torch.randint(0, 50, (1, 9))
    model = adapted(LoRA(rank=4))
    with_adapter = model(input_ids=ids).logits
    with model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, base()(input_ids=ids).logits)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, with_adapter, atol=1e-5, rtol=1e-4)
    dropping = adapted(LoRA(rank=4, dropout=0.5)).train()
    assert not torch.equal(dropping(input_ids=ids).logits, dropping(input_ids=ids).logits)


def test_only_plain_layers_get_our_forward() -> None:
    model = adapted(LoRA(rank=4))
    assert use_fused_forward_(model) == 0  # all 14 are fused already
    assert sum(isinstance(module, FusedLinear) for module in model.modules()) == 14


def test_targets_by_name_and_a_wrong_name() -> None:
    model = LoRA(rank=4, targets=("q_proj", "v_proj")).wrap(base())
    assert sum(isinstance(module, FusedLinear) for module in model.modules()) == 4
    with pytest.raises(RecipeError, match=r"names no layer of this model: w_q"):
        LoRA(targets=("w_q",)).wrap(base())


def layer_of(model: torch.nn.Module) -> lora.Linear:
    return model.base_model.model.model.layers[1].mlp.up_proj  # type: ignore[union-attr,return-value]


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    model = adapted(RsLoRA(rank=4, alpha=6.0))
    layer, x = layer_of(model), torch.randn(3, 32)
    a, b, w = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.get_base_layer().weight
    torch.testing.assert_close(layer(x), x @ w.T + 6.0 / 4**0.5 * x @ a.T @ b.T, atol=1e-5, rtol=1e-5)


def test_dora_is_its_equation() -> None:
    """W' = m (W + s B A) / |W + s B A|, the lengths taken row by row."""
    model = adapted(DoRA(rank=4, alpha=6.0))
    layer, x = layer_of(model), torch.randn(3, 32)
    m = layer.lora_magnitude_vector["default"].weight
    w = layer.get_base_layer().weight
    torch.testing.assert_close(m, w.norm(dim=1))
    moved = w + 6.0 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(
        layer(x), x @ (m[:, None] * moved / moved.norm(dim=1, keepdim=True)).T, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_over_a_base_of_few_bits_every_gradient_is_that_of_its_dense_weights(kind: str) -> None:
    ids = torch.randint(0, 50, (2, 9))
    ours = adapted(LoRA(rank=4, base=kind))
    dense = base()
    for name, module in ours.named_modules():
        if isinstance(module, QuantizedLinear):
            own = dense.get_submodule(name.removeprefix("base_model.model.").removesuffix(".base_layer"))
            own.weight.data = module.dense(module.codes, torch.float32)
    theirs = LoRA(rank=4).wrap(dense)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "lora_" in k}, strict=False)
    torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    expected = gradients(as_peft_(theirs), ids)
    found = gradients(ours, ids)
    assert set(found) == set(expected) and len(found) == 2 * 7 * 2
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)


def test_no_dense_copy_waits_for_the_backward() -> None:
    """What is kept from forward to backward is x, x A^T, A, B and the bytes themselves."""
    model = adapted(LoRA(rank=4, base="int8"))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer_of(model)(torch.randn(3, 32))
    assert sorted(tuple(tensor.shape) for tensor in kept) == [(3, 4), (3, 32), (4, 32), (48, 4), (48, 32)]
    assert [tensor.dtype for tensor in kept if tensor.shape == (48, 32)] == [torch.int8]


@pytest.mark.parametrize(("kind", "each"), [("int8", 1.0), ("int4", 0.5)])
def test_the_whole_frozen_base_in_bytes(kind: str, each: float) -> None:
    """Codes at 1 or half a byte a weight and their scales beside: 4 bytes a row, or 2 and 2 bytes a group of 32 or 16."""
    layers = [
        module for module in LoRA(base=kind).wrap(base(torch.bfloat16)).modules() if isinstance(module, QuantizedLinear)
    ]
    weights = sum(module.in_features * module.out_features for module in layers)
    assert len(layers) == 14 and sum(module.codes.nbytes for module in layers) == each * weights
    rows = sum(module.out_features for module in layers)
    groups = sum(module.in_features // {32: 32, 48: 16}[module.in_features] * module.out_features for module in layers)
    assert sum(module.scale.nbytes for module in layers) == (4 * rows if kind == "int8" else 2 * groups)
    assert sum(module.offset.nbytes for module in layers if module.offset is not None) == (
        0 if kind == "int8" else 2 * groups
    )


@pytest.mark.parametrize("adapter", [LoRA(rank=0), RsLoRA(rank=-1), DoRA(dropout=1.0)])
def test_a_rank_or_a_dropout_that_is_none(adapter: LoRA) -> None:
    with pytest.raises(RecipeError, match=r"no low-rank update.\n  wanted: rank >= 1 and 0 <= dropout < 1"):
        adapter.wrap(base())


def test_a_base_of_other_bits() -> None:
    with pytest.raises(RecipeError, match="cannot be kept in 'int2'"):
        LoRA(base="int2").wrap(base())


def test_all_linear_leaves_every_head_alone() -> None:
    model = base()
    model.value_head = torch.nn.Linear(32, 1)
    model = LoRA(rank=4, base="int8").wrap(model)
    assert type(model.base_model.model.value_head) is torch.nn.Linear
    assert type(model.base_model.model.lm_head) is torch.nn.Linear


def test_a_merged_layer_that_still_stands_does_not_add_its_update_twice() -> None:
    ids = torch.randint(0, 50, (2, 9))
    model = adapted(LoRA(rank=4)).eval()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model.merge_adapter()
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-5, rtol=1e-4)
        model.unmerge_adapter()
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-5, rtol=1e-4)


def test_a_bias_on_b_is_left_to_peft() -> None:
    ids = torch.randint(0, 50, (2, 9))
    biased = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, attention_bias=True))
    model = get_peft_model(biased, LoraConfig(r=4, lora_bias=True, target_modules=["q_proj"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        theirs = model(input_ids=ids).logits
        assert use_fused_forward_(model) == 2
        assert torch.equal(model(input_ids=ids).logits, theirs)
