"""The work of a real optimiser step, counted, against its floor (`plan.floor`); and that it never asks the host.

The cases stand in benchmarks/work.py, which writes them down; docs/speed.md has the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks import work  # noqa: E402
from genwright.plan import floor  # noqa: E402
from genwright.plan.here.trace import fake_weights_can_be_cast  # noqa: E402
from genwright.plan.here.tracker import Tracker  # noqa: E402

CASES = {case.name: case for case in work.cases()}
ABOVE = {"grpo, lora", "ragged, padded", "long"}
"""Above 1.05, each by exactly what it says that it pays."""
SYNCS = (
    "_local_scalar_dense",
    "nonzero",
    "item",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
    "_unique2",
    "bincount",
)


class Names(TorchDispatchMode):
    """Every operation by name, those that give no tensor too, which a Tracker passes over."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_a_step_does_at_most_a_twentieth_more_than_it_must_and_never_asks_the_host(name: str) -> None:
    case = CASES[name]
    built, batches = work.built_for(case)
    with Names() as names, Tracker() as tracker:
        work.run(built, batches, trains=case.trains)
    counted = sum(event.flops for event in tracker.events)
    assert not names.seen & set(SYNCS)
    assert counted >= case.floor  # else the floor is not one, or something runs uncounted
    assert (counted <= 1.05 * case.floor) == (name not in ABOVE)
    if case.pays:
        assert counted == pytest.approx(case.floor + case.pays, rel=0.005)


def test_a_value_that_is_asked_for_would_be_seen() -> None:
    with Names() as names:
        torch.ones(2).sum().item()
    assert names.seen & set(SYNCS)


@pytest.mark.parametrize("name", ["evaluation", "classification, head", "prefix-tuning", "grpo, lora", "masked"])
def test_the_same_step_runs_on_fake_tensors_with_the_same_work(name: str) -> None:
    case, fake = CASES[name], FakeTensorMode(allow_non_fake_inputs=True)
    with fake_weights_can_be_cast(), fake:
        built, batches = work.built_for(case)
        with Tracker() as tracker:
            work.run(built, batches, trains=case.trains)
    done = sum(event.flops for event in tracker.events)
    assert case.floor <= done <= 1.05 * case.floor or done == pytest.approx(case.floor + case.pays, rel=0.005)


def test_packed_rows_do_less_than_padded_ones() -> None:
    packed, padded = (CASES[f"ragged, {how}"] for how in ("packed", "padded"))
    assert packed.pays < 0.05 * packed.floor < padded.pays


def test_a_product_added_in_place_is_counted() -> None:
    """A fused LoRA adds its update in place: 2 * 3 * 4 * 5."""
    with Tracker() as tracker:
        torch.zeros(3, 5).addmm_(torch.ones(3, 4), torch.ones(4, 5))
    assert sum(event.flops for event in tracker.events) == 120


def test_floors_by_hand() -> None:
    """One block of two layers (2 x 3, 3 x 2), N = 12, attended 4, head 10; documents of 3 and 2 tokens, 4 labels: k = 6 + 3."""
    body, done = floor.Body(((2, 3), (3, 2)), 1, 4, 10, lowest=6), floor.work_of([3, 2], 4)
    assert (done.tokens, done.labels, done.pairs) == (5, 4, 9)
    assert floor.forward(body, done) == 2 * 12 * 5 + 2 * 10 * 4 + 4 * 4 * 9 == 344
    assert floor.full(body, done) == 3 * 344
    assert floor.adapted(body, done, 7, lowest=6) == 4 * 12 * 5 + 4 * 10 * 4 + 12 * 4 * 9 + 6 * 7 * 5 - 2 * 6 * 5
    assert floor.head_only(body, done) == 344 + 80 and floor.head_only(body, done, kept=True) == 160
    assert floor.last_layers(body, done, 1) == 3 * 344 - 80  # the head stands still: no gradient of its weights
    assert floor.seen_pairs((3, 2, 2)) == 6 + 2 * (2 * 3 + 3)
    assert floor.seen_pairs(3, causal=False) == 9 and floor.work_of([3], 0, prefix=2).pairs == 6 + 6


def test_a_shared_prompt_is_cheaper_than_two_whole_rows() -> None:
    """At a prompt three times an answer the naive step, p + c twice and a reference's forward, does 2.1 times as much."""
    shared, whole = floor.work_of([(96, 32, 32)], 64), floor.work_of([128, 128], 64)
    naive = floor.full(work.LLAMA, whole) + floor.forward(work.LLAMA, whole)
    assert naive / floor.full(work.LLAMA, shared) == pytest.approx(2.1, abs=0.05)
