"""Loss scaling: torch's own rule, a step that overflows changes nothing but the scale, and training is float32's to tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.full import Full
from genwright.adapters.lora import LoRA
from genwright.data.layouts import Feed, plain_feed
from genwright.data.templates import Encoded
from genwright.engine import build as engine_build
from genwright.engine import checkpoint
from genwright.engine.build import Built, build
from genwright.engine.loop import train
from genwright.engine.recipe import Recipe
from genwright.engine.step import StepReport, train_step
from genwright.objectives.language import Instruction
from genwright.parallel.norm import global_norm
from genwright.precision.policy import Policy
from genwright.precision.scaling import FIRST_SCALE, GROWTH_INTERVAL, LossScale, loss_scale


def test_only_float16_is_scaled() -> None:
    assert loss_scale(torch.bfloat16) is None and loss_scale(torch.float32) is None
    scaling = loss_scale(torch.float16)
    assert scaling is not None and scaling.scale == 2**16 and scaling.good_steps == 0


def test_the_rule_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch._amp_update_scale_`, which torch.amp.GradScaler calls, over steps good and bad."""
    monkeypatch.setattr("genwright.precision.scaling.GROWTH_INTERVAL", 5)
    scaling, scale, tracker = loss_scale(torch.float16), torch.tensor(FIRST_SCALE), torch.tensor(0, dtype=torch.int32)
    assert scaling is not None
    chance = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(200):
        skipped = (torch.rand((), generator=chance) < 0.12).float()
        scaling.update_(skipped)
        torch._amp_update_scale_(scale, tracker, skipped, 2.0, 0.5, 5)
        assert scaling.scale == scale and scaling.good_steps == tracker
        seen.add(float(scale))
    assert len(seen) > 3


def test_two_thousand_good_steps_double_it_and_not_one_fewer() -> None:
    scaling, good = LossScale(torch.tensor(4.0), torch.tensor(float(GROWTH_INTERVAL - 2))), torch.zeros(())
    assert GROWTH_INTERVAL == 2000
    scaling.update_(good)
    assert scaling.scale == 4
    scaling.update_(good)
    assert scaling.scale == 8 and scaling.good_steps == 0


@dataclass(frozen=True)
class Term:
    total: Tensor
    weight: float = 1.0
    per: str = "rows"


class Square(torch.autograd.Function):
    """x^2 whose gradient passes through float16, as that of a float16 product does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (g.half() * 2 * x.half()).float()


def one_step(factor: float, scaling: LossScale | None, parts: int = 2) -> tuple[nn.Linear, StepReport]:
    """A step over eight rows in `parts` microbatches, of a loss times `factor`."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(8, 3)
    batches = [SimpleNamespace(x=piece, counts={"rows": torch.tensor(8.0)}) for piece in x.chunk(parts)]
    objective = lambda model, batch: SimpleNamespace(terms={"rows": Term(Square.apply(model(batch.x)).sum(), factor)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    report = train_step(model, optimizer, objective, batches, max_norm=1.0, global_norm=global_norm, scaling=scaling)
    return model, report


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_small_gradients_survive_only_where_they_are_scaled(parts: int) -> None:
    """A loss of 1e-8 has gradients below float16's smallest number, 6e-8; loss, norm and weights are as if they had not."""
    _, lost_report = one_step(1e-8, None, parts)
    kept, report = one_step(1e-8, loss_scale(torch.float16), parts)
    exact, exact_report = one_step(1.0, None, parts)
    assert lost_report.grad_norm == 0
    torch.testing.assert_close(report.grad_norm * 1e8, exact_report.grad_norm, rtol=2e-3, atol=0)
    torch.testing.assert_close(report.loss * 1e8, exact_report.loss)
    torch.testing.assert_close(kept.weight.grad * 1e8, kept_before_clipping(exact, exact_report), rtol=2e-3, atol=0)


def kept_before_clipping(model: nn.Linear, report: StepReport) -> Tensor:
    return model.weight.grad / torch.clamp(1 / (report.grad_norm + 1e-6), max=1.0)


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    scaling = loss_scale(torch.float16)
    assert scaling is not None
    scaling.good_steps.fill_(7)
    torch.manual_seed(0)
    untouched = nn.Linear(3, 1)
    model, report = one_step(1.0, LossScale(torch.tensor(2.0**20), scaling.good_steps))
    assert report.skipped == 1 and torch.isfinite(report.loss)
    assert torch.equal(model.weight, untouched.weight) and torch.equal(model.bias, untouched.bias)
    assert scaling.good_steps == 0
    scale = LossScale(torch.tensor(2.0**20), torch.tensor(0.0))
    for expected in (2.0**19, 2.0**18):
        one_step(1.0, scale)
        assert scale.scale == expected


def load(dtype: torch.dtype, attention: str) -> Any:
    torch.manual_seed(7)
    sizes = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    return AutoModelForCausalLM.from_config(sizes, attn_implementation=attention).to(dtype)


@pytest.fixture
def feed() -> Feed:
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (9, 12), generator=chance).tolist()
    return plain_feed([Encoded(row, [place > 3 for place in range(12)], 0, str(at)) for at, row in enumerate(ids)])


def recipe(precision: str, adapter: Any) -> Recipe:
    return Recipe(Instruction(), adapter, precision, steps=8, batch_size=3, learning_rate=1e-2, pack_tokens=30)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recipe], Built]:
    """float16 on a CPU, which the policy refuses to a user."""
    policies = {"fp16": Policy("fp16", torch.float16), "fp32": Policy("fp32", torch.float32)}
    monkeypatch.setattr(engine_build, "resolve", lambda name, device: policies[name])
    return lambda recipe: build(recipe, load)


@pytest.mark.parametrize("adapter", [Full(), LoRA(rank=4)], ids=["full", "lora"])
def test_training_is_float32s_to_tolerance(adapter: Any, built: Callable[[Recipe], Built], feed: Feed) -> None:
    losses = {}
    for precision in ("fp32", "fp16"):
        one = recipe(precision, adapter)
        model = built(one)
        losses[precision] = [done.loss for done in train(model, one, feed)]
        assert {parameter.dtype for parameter in model.parameters.values()} == {torch.float32}
        assert (model.scaling is None) == (precision == "fp32")
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=5e-3)
    assert losses["fp16"] != losses["fp32"] and losses["fp16"][-1] < losses["fp16"][0] - 0.05


def test_the_scale_is_part_of_what_is_resumed(built: Callable[[Recipe], Built], feed: Feed, tmp_path: Path) -> None:
    """Bit for bit, with a scale that changed before the checkpoint and changes again after it."""
    one = recipe("fp16", LoRA(rank=4))

    def run(model: Built, start: int = 0, stop: int = 8) -> list[float]:
        losses = []
        for done in train(model, one, feed, start=start):
            losses.append(done.loss)
            if done.step == stop:
                break
        return losses

    whole, first, second = built(one), built(one), built(one)
    for model in (whole, first):
        assert model.scaling is not None
        model.scaling.scale.fill_(2.0**40)  # far too high: every step up to the seventh and beyond is skipped
    losses = run(whole)
    run(first, stop=3)
    checkpoint.save(tmp_path, first, step=3, recipe=one.identity(), state={})
    found = checkpoint.latest(tmp_path, recipe=one.identity(), say=print)
    assert found is not None and second.scaling is not None and whole.scaling is not None
    checkpoint.restore_(second, found)
    assert second.scaling.scale == 2.0**37
    assert run(second, start=3) == losses[3:]
    assert second.scaling.scale == whole.scaling.scale and second.scaling.good_steps == whole.scaling.good_steps
    assert all(torch.equal(mine, whole.parameters[name]) for name, mine in second.parameters.items())
