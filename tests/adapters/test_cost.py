"""The products that a step really does, counted: at most 1.02 of each adapter's floor, attention and elementwise work apart.

The page docs/adapters.md has the floors of SmolLM2-135M.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genwright.adapters.base import trainable
from genwright.catalogue.parts import ADAPTERS
from genwright.models.attention import NAME, documents

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
T, LABELS = 96, 24
PRODUCTS = ("aten.mm", "aten.addmm")
"""Linear layers multiply by these; attention by `bmm`."""


@dataclass(frozen=True)
class Sizes:
    """What a floor is made of, in FLOPs per token."""

    N: float
    """Body weights."""
    fH: float
    """Head weights, times the share of positions that have a label."""
    a: float
    """The adapter's own weights."""
    out: float
    """Outputs of all adapted layers."""
    both: float
    """Inputs and outputs of all adapted layers."""
    square: float
    """Sum over adapted layers of inputs * (inputs + outputs)."""
    T: float
    """Tokens of a microbatch."""
    P: float
    """Virtual tokens."""


CASES: list[tuple[str, dict[str, Any], Callable[[Sizes], float]]] = [
    ("full", {}, lambda s: 6 * s.N + 6 * s.fH),
    ("last-layers", {"layers": 1}, lambda s: 2 * s.N + 4 * s.a + 4 * s.fH),
    ("head", {}, lambda s: 2 * s.N + 4 * s.fH),
    ("qat", {}, lambda s: 6 * s.N + 6 * s.fH),
    ("lora", {"rank": 4}, lambda s: 4 * s.N + 4 * s.fH + 6 * s.a),
    ("lora", {"rank": 4, "base": "int8"}, lambda s: 4 * s.N + 4 * s.fH + 6 * s.a),
    ("rslora", {"rank": 4}, lambda s: 4 * s.N + 4 * s.fH + 6 * s.a),
    (
        "dora",
        {"rank": 4},
        lambda s: 4 * s.N + 4 * s.fH + 6 * (s.a - s.out) + 2 * (s.a - s.out) / s.both * s.square / s.T,
    ),
    ("multilora", {"parallel": 2, "rank": 2}, lambda s: 4 * s.N + 4 * s.fH + 6 * (s.a - 2 * s.out)),
    ("ia3", {}, lambda s: 4 * s.N + 4 * s.fH),
    ("prompt-tuning", {"tokens": 8}, lambda s: 4 * s.N * (1 + s.P / s.T) + 4 * s.fH),
    ("p-tuning", {"tokens": 8, "width": 8}, lambda s: 4 * s.N * (1 + s.P / s.T) + 4 * s.fH + 6 * s.a * s.P / s.T),
    ("prefix-tuning", {"tokens": 8}, lambda s: 4 * s.N + 4 * s.fH),
]


def sizes(layers: list[tuple[int, int]], head: float, own: int, tokens: int, virtual: int) -> Sizes:
    """Of linear layers (inputs, outputs), where a quarter of the positions has a label."""
    return Sizes(
        N=sum(i * o for i, o in layers), fH=head / 4, a=own, out=sum(o for _, o in layers), both=sum(i + o for i, o in layers),
        square=sum(i * (i + o) for i, o in layers), T=tokens, P=virtual,
    )  # fmt: skip


def step_products(name: str, settings: dict[str, Any], model_of: Any) -> tuple[float, Sizes]:
    """(counted FLOPs per token, what the floor is made of)."""
    base = model_of("decoder", attention=NAME)
    layers = [(p.shape[1], p.shape[0]) for name, p in base.named_parameters() if p.dim() == 2 and "embed" not in name]
    model = ADAPTERS[name](**settings).wrap(base)
    own = sum(parameter.numel() for parameter in trainable(model).values())
    lengths = (40, 36, 20)
    inputs = {
        "input_ids": torch.randint(1, 50, (1, T)), "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "documents": documents([lengths], T), "logits_to_keep": torch.arange(0, T, T // LABELS), "use_cache": False,
    }  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        model(**inputs).logits.logsumexp(-1).sum().backward()
    done = counter.get_flop_counts()["Global"]
    counted = sum(flops for operation, flops in done.items() if str(operation) in PRODUCTS)
    return counted / T, sizes(layers, 50 * 32, own, T, settings.get("tokens", 0))


@pytest.mark.parametrize(("name", "settings", "floor"), CASES, ids=[f"{name}{settings}" for name, settings, _ in CASES])
def test_products_are_at_the_floor(
    name: str, settings: dict[str, Any], floor: Callable[[Sizes], float], model_of: Any
) -> None:
    counted, made_of = step_products(name, settings, model_of)
    assert counted <= 1.02 * floor(made_of)
    assert counted > 0.85 * floor(
        made_of
    )  # the lowest layer's input needs no gradient: half of all layers, in a model of two


def test_every_adapter_has_a_floor() -> None:
    assert {name for name, *_ in CASES} == set(ADAPTERS)


D, F, KV, V = 576, 1536, 192, 49152
"""SmolLM2-135M: width, inner width, keys of a layer, vocabulary; 30 layers."""
LAYERS = 30 * [(D, D), (D, KV), (D, KV), (D, D), (D, F), (D, F), (F, D)]


def test_the_numbers_on_the_page_are_these() -> None:
    """MFLOP per token of SmolLM2-135M in microbatches of 1,024 tokens, a quarter of them learned, at the default settings."""
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    floors = {name: floor for name, settings, floor in CASES if "base" not in settings}
    shown = {row[1].strip("`"): row for row in rows}
    assert set(shown) == set(floors)
    for name, floor in floors.items():
        _, _, _, weights, flops, mergeable, *_ = shown[name]
        adapter = ADAPTERS[name]()
        made_of = sizes(LAYERS, V * D, int(weights.replace(",", "")), 1024, getattr(adapter, "tokens", 0))
        assert flops == f"{floor(made_of) / 1e6:.0f}", name
        assert mergeable == {True: "yes", False: "no"}[adapter.mergeable], name
