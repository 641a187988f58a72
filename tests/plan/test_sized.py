"""`genwright estimate MODEL --objective NAME` without a device: each kind of objective is sized by its own step, on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genwright.catalogue.parts import LAYOUTS, OBJECTIVES
from genwright.outlook import estimate_model
from genwright.plan.here import rungs
from genwright.plan.priced.roofline import Rates

CONFIGS = {
    "decoder": {"model_type": "llama", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128},
    "encoder": {"model_type": "bert", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 128},
    "encoder-decoder": {"model_type": "t5", "vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
                        "decoder_start_token_id": 0, "is_encoder_decoder": True},
}  # fmt: skip


ONE_OF_A_LAYOUT = {OBJECTIVES[name].layout: name for name in OBJECTIVES if name != "rmu"}


@pytest.mark.parametrize("name", ONE_OF_A_LAYOUT.values())
def test_every_layout_is_sized(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first family that can learn it; one FLOP a weight and token is the least that a step can do."""
    monkeypatch.setattr(rungs, "calibrate", lambda *_, **__: Rates())
    family = next(one for one in CONFIGS if one in LAYOUTS[OBJECTIVES[name]().layout].families)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family]))
    found = estimate_model(
        str(tmp_path), base=tmp_path, adapter="full", objective=name, seq_len=32, batch_size=2, steps=2
    )
    assert found["planned"]["train_peak_bytes"] > 0 and found["planned"]["flops_per_step"] > 2 * 32 * 1000
