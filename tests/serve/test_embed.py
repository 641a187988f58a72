"""The exported encoder is the torch one: a tiny random BERT with a vocabulary of its own, and MiniLM where its wheel is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genwright.base.errors import ModelError
from genwright.serve import embed
from genwright.serve.embed import Embedder, encoder_folder

WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of 2 layers and its tokenizer, as a hub's folder."""
    pytest.importorskip("onnxruntime")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("bert")
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The float32 and the int8 export."""
    from genwright.export.encoder import write_encoder

    outs = tmp_path_factory.mktemp("exported")
    for name in ("float32", "int8"):
        (outs / name).mkdir()
        write_encoder(folder, outs / name, quantize=name == "int8")
    return outs


def test_an_export_says_nothing_of_its_own(folder, tmp_path, caplog, capfd):
    """Also of a model with a head that is left behind, as a trained one has."""
    from transformers import BertConfig, BertForSequenceClassification

    from genwright.export.encoder import write_encoder

    config = BertConfig.from_pretrained(folder)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "out").mkdir()
    capfd.readouterr(), caplog.clear()
    write_encoder(tmp_path, tmp_path / "out")
    assert capfd.readouterr() == ("", "") and not caplog.records


def torch_vectors(folder, ids):
    import torch

    from genwright.export.encoder import load_encoder

    model = load_encoder(folder)
    with torch.no_grad():
        return np.stack(
            [model(torch.tensor([one]), torch.ones(1, len(one), dtype=torch.int64))[0].numpy() for one in ids]
        )


def test_vectors_are_those_of_the_torch_model(folder, exported):
    texts = ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w10 w11 w12"]
    ids = [[2, *(3 + int(word[1:]) + 1 for word in text.split()), 3] for text in texts]
    wanted = torch_vectors(folder, ids)
    whole, small = Embedder(exported / "float32"), Embedder(exported / "int8")
    assert np.abs(whole(texts) - wanted).max() < 1e-5
    assert ((small(texts) * wanted).sum(1) > 0.98).all()
    assert np.abs(whole(texts) - np.stack([whole.one(text) for text in texts])).max() < 1e-6, "a batch changes nothing"


def test_a_long_text_is_read_by_its_two_ends(exported):
    embedder = Embedder(exported / "float32", most_tokens=10)
    begin, end = "w1 w2 w3 w4", "w5 w6 w7 w8"
    assert np.allclose(embedder.one(f"{begin} {end}"), embedder.one(f"{begin} w20 w21 w22 {end}"), atol=1e-6)
    assert not np.allclose(embedder.one(f"{begin} {end}"), embedder.one(f"{begin} w9 w7 w8"), atol=1e-3)
    assert np.isfinite(embedder.one("w1 " * 1_000_000)).all() and np.isfinite(embedder.one("")).all()


def test_memory_is_bounded(exported, monkeypatch):
    monkeypatch.setattr(embed, "KEPT", 3)
    embedder = Embedder(exported / "int8")
    for word in WORDS[:9]:
        embedder.one(word)
    assert len(embedder._kept) == 3


def test_what_is_no_encoder_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be made ready"):
        encoder_folder("no-such-folder")


def test_no_folder_is_no_encoder(tmp_path):
    from genwright.export.encoder import load_encoder

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(ModelError, match="is no encoder that can be exported"):
        load_encoder(tmp_path)
