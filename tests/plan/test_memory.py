"""Memory that runs out: told by its peak, with two remedies computed from the recipe; nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genwright.adapters.full import Full
from genwright.adapters.lora import LoRA
from genwright.base.errors import OutOfMemory
from genwright.engine.recipe import Recipe
from genwright.objectives.contrast import Contrastive
from genwright.objectives.language import Instruction
from genwright.plan.here.memory import memory_is_an_error, remedies

GIB = 2**30


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**dict(objective=Instruction(), adapter=LoRA(rank=16), precision="fp32", steps=9, batch_size=4,
                            learning_rate=1e-2, pack_tokens=2048), **changes})  # fmt: skip


def test_torchs_own_words_are_understood() -> None:
    """A real refusal of the allocator: a thousand terabytes."""
    with (
        pytest.raises(OutOfMemory, match="lora ran out of memory while training: it is the plan's train peak") as told,
        memory_is_an_error("train", "lora", recipe()),
    ):
        torch.empty(2**50, dtype=torch.uint8)
    assert "allocate" in told.value.wanted and "iB" in told.value.found
    assert isinstance(told.value.__cause__, RuntimeError)


def test_the_cheapest_come_first() -> None:
    """Half a microbatch changes nothing but memory; half of rank 16 saves half of 4 x 1 GiB: weights, gradients, two moments."""
    first, second, *_ = remedies("train", recipe(), trained_bytes=GIB)
    assert first.startswith("adapt.pack_tokens = 1024") and "the same result" in first
    assert second.startswith("adapt.lora.rank = 8") and "2 GiB less" in second


def test_a_full_run_is_told_of_an_adapter() -> None:
    """Of 4 GiB of weights, 4 of gradients and 8 of moments an adapter needs hardly more than the weights."""
    assert any(
        'adapt.method = "lora"' in one and "12 GiB less" in one
        for one in remedies("train", recipe(adapter=Full()), trained_bytes=4 * GIB)
    )


def test_rows_that_are_compared_stay_in_one_microbatch() -> None:
    assert "adapt.pack_tokens" not in " ".join(remedies("train", recipe(objective=Contrastive())))


def test_what_is_small_already_is_not_halved() -> None:
    told = " ".join(remedies("train", recipe(pack_tokens=300, adapter=LoRA(rank=1))))
    assert "pack_tokens" not in told and "rank" not in told


@pytest.mark.parametrize("peak", ["train", "save", "resume", "evaluate", "merge"])
@pytest.mark.parametrize("known", [True, False])
def test_there_are_always_two(peak: Any, known: bool) -> None:
    assert len(remedies(peak, recipe(pack_tokens=300, adapter=LoRA(rank=1, base="int8")) if known else None)) >= 2


@pytest.mark.parametrize(
    ("peak", "words"), [("merge", "integrate.merge = false"), ("evaluate", "adapt.max_new_tokens")]
)
def test_the_other_peaks_have_their_own(peak: Any, words: str) -> None:
    with pytest.raises(OutOfMemory, match=words), memory_is_an_error(peak, "lora"):
        raise MemoryError


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_is_an_error("train", "lora"):
        raise RuntimeError("shape mismatch")
