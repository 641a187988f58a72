"""Around `peft`: tasks by family, heads beside adapters, and equal bytes for equal adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForTokenClassification

from genwright.adapters.lora import LoRA
from genwright.adapters.soft import PromptTuning
from genwright.adapters.wrapped import checked_targets, heads_of, linear_names, task_type_of
from genwright.base.errors import RecipeError


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("decoder", "CAUSAL_LM"),
        ("encoder", None),
        ("encoder-decoder", "SEQ_2_SEQ_LM"),
        ("classes", "SEQ_CLS"),
        ("reward", "SEQ_CLS"),
    ],
)
def test_the_task_of_each_family(family: str, task: str | None, model_of: Any) -> None:
    assert task_type_of(model_of(family)) == task


def test_the_task_of_a_bare_body_and_of_tags(model_of: Any) -> None:
    assert task_type_of(AutoModel.from_config(model_of("encoder").config)) == "FEATURE_EXTRACTION"
    assert task_type_of(AutoModel.from_config(model_of("decoder").config)) == "FEATURE_EXTRACTION"
    assert task_type_of(AutoModelForTokenClassification.from_config(model_of("encoder").config)) == "TOKEN_CLS"


def test_an_embedding_model_without_a_head(model_of: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    torch.manual_seed(0)
    body = AutoModel.from_config(model_of("decoder").config)
    model = LoRA(rank=2).wrap(body)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.tensor([[3, 4, 5]])
    expected = model(input_ids=ids).last_hidden_state
    LoRA(rank=2).save(model, tmp_path)
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(AutoModel.from_config(model_of("decoder").config), tmp_path)
    torch.testing.assert_close(loaded(input_ids=ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_heads_are_told_from_the_body(model_of: Any) -> None:
    assert heads_of(model_of("decoder")) == ["lm_head"]
    assert heads_of(model_of("encoder")) == ["cls.predictions.decoder"]
    assert heads_of(model_of("classes")) == ["classifier"]


@pytest.mark.parametrize("adapter", [LoRA(rank=2), PromptTuning(tokens=3)], ids=["lora", "prompt"])
def test_equal_adapters_are_equal_files(adapter: Any, model_of: Any, tmp_path: Path) -> None:
    found = []
    for folder in ("one", "two"):
        model = model_of("decoder")
        model.name_or_path = ""
        torch.manual_seed(3)
        adapter.save(adapter.wrap(model), tmp_path / folder)
        found.append({path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())})
    assert found[0] == found[1] and set(found[0]) == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads(found[0]["adapter_config.json"])
    assert config["base_model_name_or_path"] is None and config["inference_mode"] is True


def test_no_path_of_this_machine_is_written(model_of: Any, tmp_path: Path) -> None:
    model_of("decoder").save_pretrained(tmp_path / "base")
    from transformers import AutoModelForCausalLM

    for number, adapter in enumerate((LoRA(rank=2), PromptTuning(tokens=3))):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        adapter.save(adapter.wrap(model), tmp_path / str(number))
        assert str(tmp_path) not in (tmp_path / str(number) / "adapter_config.json").read_text()


def test_no_target_at_all(model_of: Any) -> None:
    assert linear_names(model_of("decoder")) == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "lm_head",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    with pytest.raises(RecipeError, match=r"adapt.lora.targets names no layer of this model: it is empty"):
        checked_targets(model_of("decoder"), (), "adapt.lora.targets")
