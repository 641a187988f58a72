"""A few layers tell a deep model: the plan of the whole against the plan by layers, and models that must not be shortened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from genwright.adapters.full import Full, Head, LastLayers
from genwright.adapters.lora import LoRA
from genwright.adapters.soft import PrefixTuning
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine.recipe import Recipe
from genwright.models.load import build_model
from genwright.objectives.classify import Classification
from genwright.objectives.language import Instruction
from genwright.plan.here import rungs
from genwright.plan.here.kernels import Kernels
from genwright.plan.here.layers import SHALLOW, by_layers, layers_are_alike, told_by_few
from genwright.plan.here.repeated import DEPTH, Repeated, by_few
from genwright.plan.here.rungs import Asking, Machine, plan_prompting, plan_training
from genwright.plan.here.tracker import Tracker
from genwright.plan.priced.roofline import Rates

ROWS = [Encoded([1] * length, [place > 3 for place in range(length)], 0, str(length)) for length in range(5, 25)]
ASKING = Asking([10, 20, 12], [5, 6, 7], 8)


def llama(**changes: Any) -> Any:
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 10, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 128}  # fmt: skip
    return AutoConfig.for_model(changes.pop("kind", "llama"), **{**sizes, **changes})


def t5() -> Any:
    return AutoConfig.for_model(
        "t5", vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=10, num_heads=2, decoder_start_token_id=0
    )


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation costs what its bytes and FLOPs say, so that two plans can be compared to the last digit."""
    monkeypatch.setattr(rungs, "calibrate", lambda *_, **__: Rates())
    monkeypatch.setattr(rungs, "process_bytes", lambda kernels: 0.0)
    monkeypatch.setattr(rungs, "kernels_of", lambda *_: Kernels())


def alike(config: Any) -> bool:
    with FakeTensorMode():
        return layers_are_alike(build_model(config, torch.float32))


def plans(monkeypatch: pytest.MonkeyPatch, plan: Any) -> list[dict[str, float]]:
    """By layers, then the whole: every quantity, and every part of the training peak."""
    found = [plan()]
    for asked in ("layers_are_alike", "told_by_few"):
        monkeypatch.setattr(rungs, asked, lambda *_: False)
    return [
        {name: one.value for name, one in estimate.quantities.items()} | estimate.breakdown
        for estimate in (*found, plan())
    ]


@pytest.mark.parametrize("config", [llama(), llama(kind="gpt_neox"), t5()], ids=lambda config: config.model_type)
def test_answering_by_layers_is_answering(
    config: Any, steady: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert alike(config)
    plan = lambda: plan_prompting(config, ASKING, Machine(tmp_path), precision="fp32", weights_bytes=0)
    short, whole = plans(monkeypatch, plan)
    assert short == pytest.approx(whole, rel=1e-9)


TRAININGS = [
    (LoRA(rank=2), {"precision": "bf16", "pack_tokens": 64}, True), (Full(), {"precision": "bf16", "max_norm": 0.0}, True),
    (Full(), {"pack_tokens": 24, "batch_size": 3}, True), (Head(), {}, True), (LastLayers(layers=3), {}, False),
    (PrefixTuning(tokens=2), {}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "changes", "few"),
    TRAININGS,
    ids=lambda value: type(value).__name__ if value not in (True, False) else "",
)
def test_training_by_layers_is_training(
    adapter: Any, changes: Any, few: bool, steady: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every quantity: peaks and their parts, FLOPs, seconds. Last layers and prefixes are not told by few, and planned whole."""
    recipe = Recipe(
        Instruction(), adapter, **{"precision": "fp32", "steps": 3, "batch_size": 4, "learning_rate": 1e-3, **changes}
    )
    assert told_by_few(recipe, llama()) is few
    plan = lambda: plan_training(recipe, llama(), plain_feed(ROWS), ASKING, Machine(tmp_path), weights_bytes=0)
    short, whole = plans(monkeypatch, plan)
    assert short == pytest.approx(whole, rel=1e-9)


def test_heads_made_anew_change_nothing_of_the_layers() -> None:
    recipe = Recipe(Classification(), LoRA(rank=2), "fp32", 3, 4, 1e-3, labels=("no", "yes"))
    assert told_by_few(recipe, llama())


def test_equal_shapes_that_do_different_work_are_traced_whole() -> None:
    """The third layer's work would be counted for the second kind too: it is refused, and the whole is asked for."""
    model = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(DEPTH)])
    asked: list[Any] = []

    def trace(one: Any, more: Any) -> int:
        asked.append(list(more))
        if more:
            tracker = Tracker()
            repeated = Repeated(tracker, torch.nn.Module(), [])
            repeated.stacks, repeated.more = [list(model)], more
            with tracker, repeated.watch():
                x = torch.ones(2, 4)
                for number, layer in enumerate(model):
                    x = layer(x) if number % 2 else layer(x).relu()
                repeated.told()
        return len(asked)

    assert by_few(llama(), True, trace) == 2 and asked == [[10 - DEPTH], []]


def test_what_is_not_alike_is_measured_whole() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"] * 4
    assert not alike(llama(kind="gemma3_text", layer_types=kinds, head_dim=8))
    assert not alike(llama(num_hidden_layers=3))
    asked: list[int] = []
    depth_squared = lambda one: asked.append(one.num_hidden_layers) or (one.num_hidden_layers**2,)
    assert by_layers(llama(), depth_squared, alike=True) == (100,)
    assert asked == [*SHALLOW, 10]
