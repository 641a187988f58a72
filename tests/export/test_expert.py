"""The profile that the training stage makes: of its own questions, or nothing lost where it cannot."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tests.serve.texts import WordEmbedder, asked

from genwright.data.formats import Row
from genwright.export import expert
from genwright.serve.expert_profile import read_profile


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


def test_training_questions_and_held_out_ones_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(expert, "encoder_at_hand", lambda: True)
    monkeypatch.setattr(expert, "packaged_embedder", WordEmbedder)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny"}))
    texts = asked("bread", 60)
    assert expert.write_expert(workshop(texts[:50], texts[50:]), tmp_path, "lora", print)
    made = read_profile(tmp_path)
    assert made.held_out == tuple(texts[50:]) and len(made.train_VD) == 50
    assert (made.card["name"], made.card["base"], made.card["rows"]) == ("baker", "tiny", 50)


def test_without_the_encoder_or_rows_the_adapter_is_handed_over_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(expert, "encoder_at_hand", lambda: False)
    said = []
    assert not expert.write_expert(workshop(asked("bread", 40), []), tmp_path, "lora", said.append)
    assert "experts add --texts" in said[0]
    assert not expert.write_expert(workshop(asked("bread", 3), []), tmp_path, "lora", said.append)
    assert read_profile(tmp_path) is None
