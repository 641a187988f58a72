"""Operations that cannot be traced: named with their module, stood in for, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from genwright.base.errors import RecipeError
from genwright.plan.traced.left_out import stand_in
from genwright.plan.traced.recorder import Recorder


class Routed(nn.Module):
    """Reads a number and looks for what is not zero, as older mixtures of experts do."""

    def forward(self, x: Tensor) -> Tensor:
        found = (x > 0).nonzero()
        return x * float(found.shape[0]) if x.sum().item() else x


def test_what_depends_on_values_is_said_with_its_module() -> None:
    with FakeTensorMode():
        x, model = torch.empty(4, 3), Routed()
        with Recorder([x], vocabulary=0) as recorder:
            out = model(x)
    assert out.shape == (4, 3)
    assert recorder.left_out == [
        "aten.nonzero.default in Routed: it is taken to find everything",
        "aten._local_scalar_dense.default in Routed: the number it reads is taken as 1",
    ]


def test_another_operation_gives_what_its_first_tensor_is() -> None:
    out, said = stand_in(torch.ops.aten.relu.default, (torch.empty(2, 5),), {})
    assert out.shape == (2, 5) and said.startswith("aten.relu.default in the loss or the optimizer: its work")


def test_what_has_no_plausible_result_is_refused() -> None:
    operation: Any = torch.ops.aten._unique2.default
    with pytest.raises(RecipeError, match=r"aten._unique2.default in .* cannot be traced"):
        stand_in(operation, (torch.empty(3),), {})
