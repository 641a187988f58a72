"""The order of rows: every row once an epoch, and nothing remembered."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.data.order import permutation, rows_of_step

SIZES = {"num_rows": st.integers(1, 40), "rows_per_step": st.integers(1, 12), "seed": st.integers(-5, 2**70)}


@given(**SIZES)
def test_every_row_once_in_each_epoch(num_rows: int, rows_per_step: int, seed: int) -> None:
    steps = -(-3 * num_rows // rows_per_step)
    taken = [
        row
        for step in range(steps)
        for row in rows_of_step(step, num_rows=num_rows, rows_per_step=rows_per_step, seed=seed)
    ]
    for epoch in range(3):
        assert sorted(taken[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(step=st.integers(0, 1000), **SIZES)
def test_nothing_but_its_arguments_matters(step: int, num_rows: int, rows_per_step: int, seed: int) -> None:
    sizes = {"num_rows": num_rows, "rows_per_step": rows_per_step, "seed": seed}
    first = rows_of_step(step, **sizes)
    states = random.getstate(), np.random.get_state()[1].tolist()
    permutation.cache_clear()
    rows_of_step(step + 7, **sizes)
    assert rows_of_step(step, **sizes) == first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert all(type(row) is int for row in first)


def test_seeds_and_epochs_differ() -> None:
    orders = {tuple(permutation(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_for_ever() -> None:
    """Golden: a run begun with an older version must resume with the same rows."""
    assert rows_of_step(0, num_rows=10, rows_per_step=10, seed=0) == GOLDEN


GOLDEN = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


@pytest.mark.parametrize(("step", "num_rows", "rows_per_step"), [(-1, 5, 1), (0, 0, 1), (0, 5, 0)])
def test_impossible_steps_are_refused(step: int, num_rows: int, rows_per_step: int) -> None:
    with pytest.raises(ValueError, match=f"no rows of step {step}: {num_rows} rows, {rows_per_step} per step"):
        rows_of_step(step, num_rows=num_rows, rows_per_step=rows_per_step, seed=0)
