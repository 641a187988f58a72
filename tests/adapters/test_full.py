"""Training weights of the model's own: which, and what becomes of ties and of heads made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from genwright.adapters.base import trainable
from genwright.adapters.full import Full, Head, LastLayers
from genwright.base.errors import RecipeError


def test_full_trains_a_tied_weight_once(model_of: Any) -> None:
    model = Full().wrap(model_of("decoder", torch.bfloat16))
    assert set(trainable(model)) == {name for name, _ in model.named_parameters()}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_last_layers_are_the_top_ones_and_the_norm(model_of: Any) -> None:
    names = set(trainable(LastLayers(layers=1).wrap(model_of("decoder"))))
    assert names == {
        name for name, _ in model_of("decoder").named_parameters() if "layers.1." in name or name == "model.norm.weight"
    }


def test_more_layers_than_there_are(model_of: Any) -> None:
    with pytest.raises(RecipeError, match="wanted: 1 to 2\n  found:  3"):
        LastLayers(layers=3).wrap(model_of("decoder"))


def test_a_head_tied_to_the_embeddings_is_untied(model_of: Any) -> None:
    model = Head().wrap(model_of("decoder"))
    assert list(trainable(model)) == ["lm_head.weight"]
    assert model.lm_head.weight is not model.model.embed_tokens.weight and not model.config.tie_word_embeddings


@pytest.mark.parametrize(("family", "head"), [("classes", "classifier"), ("reward", "score")])
def test_a_head_made_anew_is_the_head(family: str, head: str, model_of: Any) -> None:
    names = set(trainable(Head().wrap(model_of(family))))
    assert names and all(name.startswith(f"{head}.") for name in names)
    below = set(trainable(LastLayers(layers=1).wrap(model_of(family))))
    assert names < below and any(".1." in name for name in below)


def test_a_bias_with_two_names_is_written_under_both(model_of: Any, tmp_path: Path) -> None:
    """BERT's output bias: read back from an untied head's folder it would be missing, and made of zeros."""
    model = Head().wrap(model_of("encoder"))
    with torch.no_grad():
        model.cls.predictions.decoder.bias.fill_(3.0)
    Head().save(model, tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert (loaded.cls.predictions.decoder.bias == 3).all()


def test_an_encoder_decoders_last_layers_are_its_decoders() -> None:
    config = AutoConfig.for_model("t5", vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    adapted = LastLayers(layers=1).wrap(AutoModelForSeq2SeqLM.from_config(config))
    assert {name.split(".")[0:3][0] for name in trainable(adapted)} == {"decoder"}
    assert any(name.startswith("decoder.block.1.") for name in trainable(adapted))
