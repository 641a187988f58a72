"""How many weights each adapter trains on SmolLM2-135M: closed forms, and the numbers that `peft` itself counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig

from genwright.adapters.base import trainable
from genwright.catalogue.parts import ADAPTERS
from genwright.models.load import build_model
from genwright.plan.here.trace import fake_weights_can_be_cast

L, D, F, KV, V = 30, 576, 1536, 192, 49152
"""Layers, width, inner width, keys of a layer, vocabulary."""
LINEAR = [(D, D), (D, KV), (D, KV), (D, D), (D, F), (D, F), (F, D)]
BOTH = L * sum(inputs + outputs for inputs, outputs in LINEAR)
OUTPUTS = L * sum(outputs for _, outputs in LINEAR)
BODY = L * (sum(inputs * outputs for inputs, outputs in LINEAR) + 2 * D) + D

SIZES: list[tuple[str, dict[str, Any], int, int]] = [
    ("full", {}, BODY + V * D, 134_515_008),
    ("last-layers", {"layers": 2}, BODY // 30 * 2 + D - D // 30 * 2, 7_080_768),
    ("head", {}, V * D, 28_311_552),
    ("qat", {}, BODY + V * D, 134_515_008),
    ("lora", {"rank": 8}, 8 * BOTH, 2_442_240),
    ("lora", {"rank": 16}, 16 * BOTH, 4_884_480),
    ("lora", {"rank": 16, "base": "int4"}, 16 * BOTH, 4_884_480),
    ("lora", {"rank": 8, "targets": ("q_proj", "v_proj")}, 8 * L * (D + D + D + KV), 460_800),
    ("rslora", {"rank": 64}, 64 * BOTH, 19_537_920),
    ("dora", {"rank": 16}, 16 * BOTH + OUTPUTS, 5_040_000),
    ("multilora", {"parallel": 4, "rank": 4}, 4 * (4 * BOTH + OUTPUTS), 5_506_560),
    ("ia3", {}, L * (KV + KV + F), 57_600),
    ("prompt-tuning", {"tokens": 20}, 20 * D, 11_520),
    ("p-tuning", {"tokens": 20, "width": 128}, 20 * D + (D + 1) * 128 + 129 * 128 + 129 * D, 176_192),
    ("prefix-tuning", {"tokens": 20}, 20 * L * 2 * KV, 230_400),
    ("prefix-tuning", {"tokens": 20, "projection": 128}, 20 * KV + (KV + 1) * 128 + 129 * L * 2 * KV, 1_514_624),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "closed", "counted"), SIZES, ids=lambda value: str(value)[:30])
def test_number_of_trained_weights(name: str, settings: dict[str, Any], closed: int, counted: int) -> None:
    config = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=9, num_key_value_heads=3,
        tie_word_embeddings=True,
    )  # fmt: skip
    with fake_weights_can_be_cast(), FakeTensorMode():
        model = ADAPTERS[name](**settings).wrap(build_model(config, torch.bfloat16))
        found = sum(parameter.numel() for parameter in trainable(model).values())
    assert found == closed == counted


def test_the_numbers_on_the_page_are_these() -> None:
    """Each method's default settings are one of the cases above."""
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    shown = {
        row[0]: int(row[1].replace(",", ""))
        for row in re.findall(r"^\| `([\w-]+)` \|[^|]*\| ([\d,]+) \|", page, re.MULTILINE)
    }
    defaults = {name: vars(ADAPTERS[name]()) for name in ADAPTERS}
    mine = {name: counted for name, settings, _, counted in SIZES if defaults[name] == defaults[name] | settings}
    assert shown == mine


def test_every_adapter_has_its_number() -> None:
    assert {name for name, *_ in SIZES} == set(ADAPTERS)
