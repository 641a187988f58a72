"""The rate is a pure function of the step; vectors are not decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genwright.engine.optim import SCHEDULES, adamw, rate_at, set_rate_


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_rises_to_the_top_and_the_schedule_never_exceeds_it(schedule: str) -> None:
    rates = [rate_at(step, steps=100, top=2.0, schedule=schedule, warmup_fraction=0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert max(rates) == 2.0


def test_cosine_and_linear_by_hand() -> None:
    assert rate_at(50, steps=100, top=1.0, schedule="cosine", warmup_fraction=0.0) == pytest.approx(0.5)
    assert rate_at(25, steps=100, top=1.0, schedule="linear", warmup_fraction=0.0) == pytest.approx(0.75)
    assert rate_at(99, steps=100, top=1.0, schedule="constant", warmup_fraction=0.0) == 1.0


def test_cosine_equals_torchs_own_schedule() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert rate_at(step, steps=20, top=3.0, schedule="cosine", warmup_fraction=0.0) == pytest.approx(
            oracle.get_last_lr()[0]
        )
        optimizer.step()
        oracle.step()


def test_only_matrices_are_decayed_and_the_rate_is_set_everywhere() -> None:
    layer = nn.Linear(2, 2)
    optimizer = adamw(dict(layer.named_parameters()), learning_rate=0.1, weight_decay=0.5)
    set_rate_(optimizer, 0.01)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.01 * 0.5))
    assert torch.equal(layer.bias.detach(), bias)
