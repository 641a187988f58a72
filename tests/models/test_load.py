"""Folders become models; what could run code, or is broken, does not."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses import FakeTensorMode
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from genwright.base.errors import ModelError
from genwright.models.load import build_model, load_config, load_model, load_tokenizer, quiet


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


class Canary:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.nest,))


def test_the_model_that_was_saved_is_the_model_that_is_loaded(tiny_folder: Path, model_of) -> None:
    ids = torch.arange(4, 14)[None]
    expected = model_of("llama")(ids).logits
    loaded = load_model(tiny_folder, dtype=torch.float32)
    assert not loaded.training
    torch.testing.assert_close(loaded(ids).logits, expected)
    assert load_model(tiny_folder, dtype=torch.bfloat16).lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "ids"), [("bert", {"input_ids"}), ("t5", {"input_ids", "decoder_input_ids"}), ("gemma2", {"input_ids"})]
)
def test_every_family_is_loaded_with_its_own_head(kind: str, ids: set[str], model_of, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path)
    inputs = {name: torch.arange(4, 12)[None] for name in ids}
    loaded = load_model(tmp_path, dtype=torch.float32)
    assert type(loaded) is type(model)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_tokenizer(tiny_folder: Path) -> None:
    assert load_tokenizer(tiny_folder)("w0 w43").input_ids == [4, 47]


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "adapter_model.bin", "model.pt", "optimizer.pt", "rng_state.pth"]
)
@pytest.mark.parametrize("beside", [True, False])
def test_no_pickle_is_ever_opened(folder: Path, name: str, beside: bool, tmp_path: Path) -> None:
    nest = tmp_path / "hatched"
    (folder / name).write_bytes(pickle.dumps(Canary(nest)))
    torch.save(Canary(nest), folder / f"training_{name}")
    if beside:
        load_tokenizer(folder)
        load_model(folder, dtype=torch.float32)
    else:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="reading one can run any code"):
            load_model(folder, dtype=torch.float32)
    assert not nest.exists()
    pickle.loads((folder / name).read_bytes())
    assert nest.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_generate"])
def test_remote_code_is_refused(folder: Path, file: str, key: str) -> None:
    edit(folder / file, **{key: {"AutoModelForCausalLM": "modeling.Mine"}})
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match=f"asks to run code of its own \\({key} in {file}\\)"):
        load_model(folder, dtype=torch.float32)


def test_an_attention_that_would_be_downloaded_is_dropped(folder: Path) -> None:
    edit(folder / "config.json", _attn_implementation="someone/kernel", _attn_implementation_internal="someone/kernel")
    config = load_config(folder)
    assert "someone" not in json.dumps(config.to_dict()) and config._attn_implementation is None
    assert load_model(folder, dtype=torch.float32).config._attn_implementation == "sdpa"


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model folder"):
        load_config(tmp_path)


def test_a_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        load_config(folder)


def test_a_value_of_a_wrong_type_is_named_with_its_file(folder: Path) -> None:
    edit(folder / "config.json", hidden_size="big")
    with pytest.raises(ModelError, match=r"config\.json: a wrong value of 'hidden_size'[\s\S]*expected int"):
        load_config(folder)
    with pytest.raises(ModelError, match=r"a wrong value of 'hidden_size'"):
        load_tokenizer(folder)


def test_an_architecture_nobody_knows(folder: Path) -> None:
    edit(folder / "config.json", model_type="brand-new")
    with pytest.raises(ModelError, match="is a 'brand-new' model, which this transformers"):
        load_config(folder)


def test_a_missing_weight_is_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the weights[\s\S]*up_proj"):
        load_model(folder, dtype=torch.float32)


def test_a_weight_of_another_shape(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=40)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder, dtype=torch.float32)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(folder)


def test_smollm2_is_built_on_fake_tensors_within_a_second() -> None:
    config = AutoConfig.for_model(
        "llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    with FakeTensorMode():
        build_model(config, torch.bfloat16)
        started = time.process_time()
        model = build_model(config, torch.bfloat16)
        assert time.process_time() - started < 1
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert config._attn_implementation is None


def test_quiet_puts_the_library_back_as_it_was() -> None:
    before = transformers_logging.get_verbosity()
    with quiet():
        assert transformers_logging.get_verbosity() == logging.ERROR
    assert transformers_logging.get_verbosity() == before
