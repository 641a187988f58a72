"""Logits at positions are the full logits there, and only those rows reach the head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses import FakeTensorMode
from transformers import AutoConfig, AutoModel

from genwright.base.errors import ModelError, RecipeError
from genwright.models.families import family_of, logits_at
from genwright.models.load import build_model

FAMILY = {
    "llama": "decoder", "gemma2": "decoder", "granite": "decoder", "cohere": "decoder", "gpt2": "decoder",
    "bert": "encoder", "t5": "encoder-decoder",
}  # fmt: skip


def inputs_of(kind: str, num_rows: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(4, 48, (num_rows, 9))
    if FAMILY[kind] == "encoder-decoder":
        return {"input_ids": torch.randint(4, 48, (num_rows, 6)), "decoder_input_ids": ids}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("num_rows", [1, 3])
def test_logits_at_positions_equal_the_full_logits_there(kind: str, num_rows: int, model_of) -> None:
    model, inputs = model_of(kind), inputs_of(kind, num_rows)
    positions = torch.tensor([0, 5, 3, 3, 8]) if num_rows == 1 else torch.tensor([26, 0, 10, 9, 17])
    with torch.no_grad():
        everywhere = model(**inputs).logits.flatten(0, 1)
        found = logits_at(model, inputs, positions)
    assert everywhere.std() > 0.1
    torch.testing.assert_close(found, everywhere[positions])


def test_a_cap_on_logits_is_kept(model_of) -> None:
    found = logits_at(model_of("gemma2"), inputs_of("gemma2", 3), torch.arange(27))
    assert 1.0 < found.abs().max() <= 1.5


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_only_the_wanted_rows_reach_the_head(kind: str, num_rows: int, model_of) -> None:
    model, seen = model_of(kind), []
    model.get_output_embeddings().register_forward_hook(lambda _, arguments, output: seen.append(output.shape))
    logits_at(model, inputs_of(kind, num_rows), torch.tensor([1, 4]))
    assert [shape.numel() for shape in seen] == [2 * 48]


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_peft_model_gives_its_adapted_logits_and_gradients(num_rows: int, model_of) -> None:
    model = get_peft_model(
        model_of("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    inputs, positions = inputs_of("llama", num_rows), torch.tensor([2, 7])
    found = logits_at(model, inputs, positions)
    torch.testing.assert_close(found, model(**inputs).logits.flatten(0, 1)[positions])
    found.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_head_is_left_as_it_was(model_of) -> None:
    model = model_of("llama")
    before = model(**inputs_of("llama", 3)).logits
    logits_at(model, inputs_of("llama", 3), torch.tensor([1]))
    torch.testing.assert_close(model(**inputs_of("llama", 3)).logits, before)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "bert", "t5"])
def test_it_runs_on_fake_tensors(kind: str, model_of) -> None:
    config = model_of(kind).config
    with FakeTensorMode():
        model = build_model(config, torch.bfloat16)
        inputs = {name: torch.zeros(value.shape, dtype=torch.int64) for name, value in inputs_of(kind, 3).items()}
        found = logits_at(model, inputs, torch.zeros(5, dtype=torch.int64))
    assert found.shape == (5, 48) and found.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", FAMILY)
def test_family(kind: str, model_of) -> None:
    assert family_of(model_of(kind).config) == FAMILY[kind]


def test_a_family_nobody_knows_is_an_error() -> None:
    with pytest.raises(ModelError, match="'vit' is not a language model we know"):
        family_of(AutoConfig.for_model("vit"))


def test_a_model_without_a_head_is_an_error(model_of) -> None:
    body = AutoModel.from_config(model_of("bert").config)
    with pytest.raises(RecipeError, match="BertModel has no output head"):
        logits_at(body, inputs_of("bert", 1), torch.tensor([0]))


def test_a_head_that_is_not_called_is_an_error(model_of) -> None:
    class Direct(torch.nn.Module):
        config = SimpleNamespace(model_type="bert", architectures=None)
        head = torch.nn.Linear(2, 2)

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.head

        def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=torch.zeros(1, 1, 2) @ self.head.weight)

    with pytest.raises(RecipeError, match="Direct does not call its output head"):
        logits_at(Direct(), {"input_ids": torch.zeros(1, 1)}, torch.tensor([0]))
