"""Architectures: their sizes give the count that is published, and names as papers write them find them."""

from __future__ import annotations

import pytest

from genwright.base.errors import UnknownName
from genwright.catalogue.architectures import architecture, architectures, stated
from genwright.plan.dims import dims_of

DECODERS = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "phi", "phi3", "gemma", "gemma2", "gemma3_text", "gpt_neox",
    "stablelm", "gpt2", "gptj", "gpt_neo", "gpt_bigcode", "starcoder2", "opt", "bloom", "falcon", "mpt", "olmo", "olmo2", "olmoe", "granite",
)  # fmt: skip
ODD = ("opt-350m",)
"""Its embedding is narrower than its layers."""


@pytest.mark.parametrize(
    "name", [n for n, one in architectures().items() if one.config["model_type"] in DECODERS and n not in ODD]
)
def test_the_sizes_give_the_published_count(name: str) -> None:
    one = architectures()[name]
    assert dims_of(one.config).parameters == pytest.approx(one.parameters, rel=0.01)
    assert one.source


@pytest.mark.parametrize(
    "name", ("opt-350m", "blenderbot-400m", "deberta-v2-xlarge", "t5-3b", "falcon-7b", "phi-1.5", "gpt-j-6b")
)
def test_the_model_that_transformers_builds_has_the_published_count(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    one = architecture(name)
    values = dict(one.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    kind = (
        AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else AutoModel
        if config.model_type == "deberta-v2"
        else AutoModelForCausalLM
    )
    with torch.device("meta"):
        built = kind.from_config(config)
    assert sum(weight.numel() for weight in built.parameters()) == pytest.approx(one.parameters, rel=0.01)


@pytest.mark.parametrize(
    ("said", "name"),
    [("Llama 3.1 8B", "llama-3.1-8b"), ("meta-llama/Llama-2-70b-chat-hf", "llama-2-70b"), ("LLaMA-3 8B", "llama-3-8b"), ("tiny-llama", "tinyllama-1.1b"),
     ("Qwen-7B-Chat (BF16)", "qwen-7b"), ("Yi-34B-Chat-4bits", "yi-34b"), ("phi-1.5 1.3B", "phi-1.5"), ("Llama 33B", "llama-30b"), ("bigscience/bloom", "bloom-176b")],
)  # fmt: skip
def test_names_as_papers_write_them(said: str, name: str) -> None:
    assert architecture(said).name == name


def test_an_unknown_model_has_its_nearest() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'llama-3\.1-8b'"):
        architecture("llama-3.1-8bb")


def test_a_gpt_of_stated_sizes_is_built_from_them() -> None:
    one = stated("GPT 176B", "NHIDDEN=14336; NLAYERS=70")
    assert (one.config["n_embd"], one.config["n_layer"]) == (14336, 70)
    assert one.parameters == pytest.approx(176e9, rel=0.02)
    assert "not stated" in stated("GPT 200B").note


@pytest.mark.parametrize(
    ("said", "text"),
    [("GPT 187B", "nhidden = 108*8*c = 864*c which gives 13824"), ("GPT 196B", "another setup: NHIDDEN=13")],
)
def test_a_number_that_cannot_be_a_width_is_not_taken_for_one(said: str, text: str) -> None:
    found = stated(said, text)
    assert found.config["n_layer"] < 200 and abs(found.parameters / (float(said[4:-1]) * 1e9) - 1) < 0.05


def test_those_that_were_held_against_another_table_say_so() -> None:
    checked = [one for one in architectures().values() if one.checked]
    assert len(checked) >= 40 and all("LitGPT" in one.checked for one in checked)
    assert architecture("llama-3.1-8b").checked and not architecture("gpt-3-175b").checked
