"""The precision policy: auto is resolved, fp16 on a CPU is refused with its reason, autocast is used only where needed."""

from __future__ import annotations

import pytest
import torch

from genwright.base.errors import RecipeError
from genwright.precision.policy import has_native_bf16, resolve


def test_auto_is_bf16_exactly_where_the_device_has_it() -> None:
    assert resolve("auto").name == ("bf16" if has_native_bf16() else "fp32")


def test_fp16_on_a_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(RecipeError, match=r"fp16 is not computed on a CPU: its products run at a fifth"):
        resolve("fp16")


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu(native: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genwright.precision.policy.has_native_bf16", lambda device: native)
    assert resolve("auto", "cuda:0").name == resolve("auto", "cuda").name == name
    assert resolve("fp16", "cuda").compute == torch.float16


def test_an_unknown_precision_names_those_we_have() -> None:
    with pytest.raises(RecipeError, match=r"auto, fp32, bf16, fp16"):
        resolve("fp7")


def test_masters_of_the_base_are_computed_in_bf16_and_keep_float32_gradients() -> None:
    layer = torch.nn.Linear(4, 4)
    seen: list[torch.dtype] = []

    def objective(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        out = model(batch)
        seen.append(out.dtype)
        return out.float().sum()

    resolve("bf16").around(objective, trains_base=True)(layer, torch.ones(2, 4)).backward()
    assert seen == [torch.bfloat16]
    assert layer.weight.grad.dtype == torch.float32


def test_nothing_is_wrapped_where_nothing_must_be_cast() -> None:
    objective = lambda model, batch: None
    assert resolve("bf16").around(objective, trains_base=False) is objective
    assert resolve("fp32").around(objective, trains_base=True) is objective
