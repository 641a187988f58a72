"""The step: sums and counts make microbatches of unequal length equal one batch; a bad gradient changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from genwright.engine.step import StepReport, train_step
from genwright.parallel.norm import global_norm


@dataclass(frozen=True)
class Term:
    total: Tensor
    count: Tensor
    weight: float = 1.0
    per: str = "rows"


def squared_error(model: nn.Module, batch: SimpleNamespace) -> SimpleNamespace:
    errors = (model(batch.x) - batch.y).square()
    return SimpleNamespace(terms={"rows": Term(errors.sum(), torch.tensor(float(len(batch.x))))})


def batches(sizes: list[int]) -> list[SimpleNamespace]:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(sum(sizes), 3, generator=generator).double(),
        torch.randn(sum(sizes), 1, generator=generator).double(),
    )
    count = {"rows": torch.tensor(float(sum(sizes)))}
    return [SimpleNamespace(x=a, y=b, counts=count) for a, b in zip(x.split(sizes), y.split(sizes))]


def run(sizes: list[int], *, max_norm: float = 0.0, spoil: bool = False) -> tuple[nn.Module, StepReport]:
    torch.manual_seed(1)
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    microbatches = batches(sizes)
    if spoil:
        microbatches[-1].x[0, 0] = math.nan
    report = train_step(model, optimizer, squared_error, microbatches, max_norm=max_norm, global_norm=global_norm)
    return model, report


@pytest.mark.parametrize("sizes", [[1] * 8, [5, 2, 1], [7, 1]])
def test_any_cut_into_microbatches_equals_one_batch(sizes: list[int]) -> None:
    whole, whole_report = run([8])
    cut, cut_report = run(sizes)
    torch.testing.assert_close(cut_report.loss, whole_report.loss)
    torch.testing.assert_close(cut_report.grad_norm, whole_report.grad_norm)
    for ours, theirs in zip(cut.parameters(), whole.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(ours, theirs)


def test_loss_is_the_mean_over_the_whole_step() -> None:
    torch.manual_seed(1)
    model, batch = nn.Linear(3, 1).double(), batches([8])[0]
    expected = (model(batch.x) - batch.y).square().mean()
    torch.testing.assert_close(run([3, 5])[1].loss, expected.detach())


def test_gradients_are_clipped_to_the_norm_and_small_ones_left() -> None:
    free, report = run([8])
    clipped, _ = run([8], max_norm=0.5)
    assert report.grad_norm > 0.5
    norm = torch.cat([parameter.grad.flatten() for parameter in clipped.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-5)
    generous, _ = run([8], max_norm=1e6)
    for ours, theirs in zip(generous.parameters(), free.parameters()):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_gradient_that_is_not_a_number_changes_nothing_and_is_reported() -> None:
    torch.manual_seed(1)
    untouched = nn.Linear(3, 1).double()
    model, report = run([7, 1], spoil=True)
    assert report.skipped == 1
    for ours, theirs in zip(model.parameters(), untouched.parameters()):
        assert torch.equal(ours, theirs)
    assert run([8])[1].skipped == 0


def test_the_step_imports_nothing_of_ours() -> None:
    import ast
    import inspect

    import genwright.engine.step as module

    imported = {
        node.module or "" for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)
    }
    assert not [name for name in imported if name.startswith("genwright")]
