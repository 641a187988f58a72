"""Which rows a step learns from: a pure function of seed and step, so a run resumes mid-epoch without any state.

Epoch e is a permutation of all rows; the epochs laid end to end are cut into steps. The permutation sorts the rows by
their 64-bit outputs of Philox 4x64 (Salmon 2011) keyed with (seed, e): numpy promises never to change that stream,
while `Generator.permutation` may change with a version.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def rows_of_step(step: int, *, num_rows: int, rows_per_step: int, seed: int) -> list[int]:
    """Row numbers of step 0, 1, ...; every row is taken exactly once in each epoch. A step may span two epochs."""
    if num_rows < 1 or rows_per_step < 1 or step < 0:
        raise ValueError(f"no rows of step {step}: {num_rows} rows, {rows_per_step} per step")
    places = range(step * rows_per_step, (step + 1) * rows_per_step)
    return [int(permutation(num_rows, seed, place // num_rows)[place % num_rows]) for place in places]


@lru_cache(maxsize=4)
def permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(num_rows), kind="stable")
