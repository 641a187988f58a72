"""Merged equals adapted, in plain `transformers` without `peft`; the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from genwright.base.errors import ModelError
from genwright.export.merge import merge_adapter

PROMPTS = [[1, 2, 3, 4], [9], list(range(20, 40))]


def silent(_: str) -> None:
    """Nobody listens."""


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_merged_folder_is_the_adapted_model_for_plain_transformers(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    parity = merge_adapter(base, adapter, tmp_path / "merged", prompts=PROMPTS, say=told.append)
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base)
        before = plain(ids).logits
        adapted = PeftModel.from_pretrained(plain, adapter).eval()(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    assert (adapted - before).abs().max() > 1
    torch.testing.assert_close(merged, adapted, atol=1e-3, rtol=1e-4)
    assert 0 < parity.max_logit_difference < 1e-3
    assert parity.same_tokens and parity.prompts == 3
    assert told == ["merging adapter into its base in float32"]


def test_the_weights_are_the_closed_form(base: Path, adapter: Path, tmp_path: Path) -> None:
    """W + alpha / r * B A for what the adapter targets, and W itself for the rest."""
    merge_adapter(base, adapter, tmp_path / "merged", say=silent)
    old, new = load_file(base / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    low = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (low[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    torch.testing.assert_close(new[f"{name}.weight"], old[f"{name}.weight"] + 8 / 4 * b @ a)
    assert set(new) == set(old) and {tensor.dtype for tensor in new.values()} == {torch.float32}
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if "q_proj" in name or "down_proj" in name}


def test_parity_is_measured_on_what_lies_on_the_disk(base: Path, adapter: Path, tmp_path: Path, monkeypatch) -> None:
    """A merge that went wrong is seen: here every saved weight is a little off."""
    save = (
        LlamaConfig.save_pretrained,
        AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(base).config).save_pretrained.__func__,
    )

    def badly(self, folder: Path, **options: object) -> None:
        save[1](self, folder, **options)
        tensors = load_file(Path(folder) / "model.safetensors")
        save_file(
            {k: v * 1.1 for k, v in tensors.items()}, Path(folder) / "model.safetensors", metadata={"format": "pt"}
        )

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.save_pretrained", badly)
    assert merge_adapter(base, adapter, tmp_path / "merged", prompts=PROMPTS, say=silent).max_logit_difference > 0.05


def test_the_tokenizer_goes_along_as_it_is(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge_adapter(base, adapter, tmp_path / "merged", say=silent)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == "{{ messages }}"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes()


def test_the_same_inputs_give_the_same_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        merge_adapter(base, adapter, tmp_path / name, say=silent)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "one" / "config.json").read_text()


def test_inputs_are_left_alone_and_no_prompt_means_no_difference(base: Path, adapter: Path, tmp_path: Path) -> None:
    before = hashes(base), hashes(adapter)
    assert merge_adapter(base, adapter, tmp_path / "merged", say=silent).max_logit_difference == 0
    assert (hashes(base), hashes(adapter)) == before


def test_a_pickled_adapter_is_refused_unopened(base: Path, adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    nest = tmp_path / "hatched"
    canary = type("Canary", (), {"__reduce__": lambda self: (Path.touch, (nest,))})
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(canary()))
    with pytest.raises(ModelError, match=r"only as adapter_model\.bin"):
        merge_adapter(base, adapter, tmp_path / "merged", say=silent)
    assert not nest.exists() and not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=48, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    other = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=2, target_modules=["q_proj"]))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="other is no adapter of"):
        merge_adapter(base, tmp_path / "other", tmp_path / "merged", say=silent)
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".merged*"))


def test_nothing_is_written_over(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(ModelError, match="merged exists already"):
        merge_adapter(base, adapter, tmp_path / "merged", say=silent)


def test_an_adapter_that_asks_for_remote_code_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    values = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**values, "auto_map": {"x": "y.Z"}}))
    with pytest.raises(ModelError, match="asks to run code of its own"):
        merge_adapter(base, adapter, tmp_path / "merged", say=silent)
