"""The profile that the training stage makes: of its own questions, or nothing lost where it cannot."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tests.serve.texts import WordEmbedder, asked

from genwright.base.errors import ModelError
from genwright.data.formats import Row
from genwright.export import expert
from genwright.serve.expert_profile import profile_here, read_profile, write_profile


def workshop(texts, held_out):
    row = lambda text: Row(
        "chat", messages=({"role": "user", "content": text}, {"role": "assistant", "content": "yes"})
    )
    rows = {"train": [row(text) for text in texts], "validation": [row(text) for text in held_out]}
    spec = SimpleNamespace(
        project=SimpleNamespace(name="baker"),
        scope=SimpleNamespace(task="chat"),
        adapt=SimpleNamespace(objective="sft"),
    )
    return SimpleNamespace(rows=rows.__getitem__, spec=spec)


CARD = {"base": "tiny", "base_digest": "abc"}


def test_training_questions_and_held_out_ones_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(expert, "encoder_at_hand", lambda: True)
    monkeypatch.setattr(expert, "packaged_embedder", WordEmbedder)
    texts = asked("bread", 60)
    assert expert.write_expert(workshop(texts[:50], texts[50:]), tmp_path, CARD, print)
    made = read_profile(tmp_path)
    assert made.held_out == tuple(texts[50:]) and len(made.train_VD) == 50
    assert (made.card["name"], made.card["base"], made.card["rows"]) == ("baker", "tiny", 50)


def test_without_the_encoder_the_server_makes_the_same_profile_of_the_kept_questions(tmp_path, monkeypatch):
    texts, said = asked("bread", 60), []
    for folder, there in (("kept", False), ("made", True)):
        monkeypatch.setattr(expert, "encoder_at_hand", lambda there=there: there)
        monkeypatch.setattr(expert, "packaged_embedder", WordEmbedder)
        assert expert.write_expert(workshop(texts[:50], texts[50:]), tmp_path / folder, CARD, said.append)
    assert "genwright serve" in said[0] and read_profile(tmp_path / "kept") is None
    later, now = profile_here(tmp_path / "kept", WordEmbedder()), profile_here(tmp_path / "made", WordEmbedder())
    assert later.held_out == now.held_out and later.card["base_digest"] == "abc"
    np.testing.assert_allclose(later.centroids_KD, now.centroids_KD, atol=1e-6)
    write_profile(later, tmp_path / "kept")
    assert read_profile(tmp_path / "kept").held_out == now.held_out
    (tmp_path / "made" / "expert" / "texts.json").write_text("{")
    with pytest.raises(ModelError, match=r"texts in .* are damaged"):
        profile_here(tmp_path / "made", WordEmbedder())


def test_too_few_rows_make_no_profile(tmp_path):
    assert not expert.write_expert(workshop(asked("bread", 3), []), tmp_path, CARD, print)
    assert profile_here(tmp_path, WordEmbedder()) is None
