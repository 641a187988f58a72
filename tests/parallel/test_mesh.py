"""Degrees are checked before anything is loaded, and what is refused is told the nearest that would work."""

from __future__ import annotations

from typing import Any

import pytest

from genwright.base.errors import RecipeError
from genwright.parallel.mesh import SINGLE, STRATEGIES, fake_ranks, mesh_of, placement


@pytest.mark.parametrize(
    ("strategy", "ranks", "factor", "expected"),
    [
        ("single", 1, 0, (1, 1)), ("ddp", 4, 0, (4, 1)), ("zero1", 4, 0, (1, 4)), ("zero3", 6, 0, (1, 6)),
        ("hybrid", 8, 1, (8, 1)), ("hybrid", 8, 2, (4, 2)), ("hybrid", 8, 8, (1, 8)),
    ],
)  # fmt: skip
def test_replicas_and_shards(strategy: str, ranks: int, factor: int, expected: tuple[int, int]) -> None:
    place = placement(strategy, ranks=ranks, sharding_factor=factor)
    assert (place.replicas, place.shards) == expected


def test_one_shard_is_a_whole() -> None:
    assert placement("hybrid", ranks=4, sharding_factor=1).splits == STRATEGIES["ddp"] == SINGLE.splits


@pytest.mark.parametrize(
    ("strategy", "options", "words"),
    [
        ("zero4", {"ranks": 2}, "wanted: auto, single, ddp(.|\n)*found:  zero4"),
        ("zero3", {"ranks": 1}, "needs at least 2 devices(.|\n)*found:  1(.|\n)*single"),
        ("single", {"ranks": 4}, "4 are given(.|\n)*ddp"),
        ("hybrid", {"ranks": 8, "sharding_factor": 3}, "groups of 3(.|\n)*1, 2, 4, 8(.|\n)*set it to 2"),
        ("hybrid", {"ranks": 8, "sharding_factor": 100}, "set it to 8"),
        ("hybrid", {"ranks": 6}, "groups of 0(.|\n)*1, 2, 3, 6(.|\n)*set it to 1"),
        ("zero2", {"ranks": 4, "sharding_factor": 2}, "no effect(.|\n)*hybrid"),
        ("ddp", {"ranks": 6, "tensor_degree": 4}, "groups of 4(.|\\n)*1, 2, 3, 6(.|\\n)*set it to 3"),
        ("zero3", {"ranks": 4, "tensor_degree": 2}, 'goes with "ddp"(.|\\n)*tensor_degree = 2'),
        ("ddp", {"ranks": 2, "offload": True, "device": "cuda"}, "has none(.|\n)*zero3"),
        ("zero3", {"ranks": 2, "offload": True}, "the CPU is the device"),
    ],
)
def test_what_cannot_be_is_refused_with_the_nearest(strategy: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        placement(strategy, **options)


def test_a_placement_of_another_size_than_the_group() -> None:
    with fake_ranks(4), pytest.raises(RecipeError, match=r"for 2 processes(.|\n)*found:  4"):
        mesh_of(placement("zero3", ranks=2))


@pytest.mark.parametrize("ranks", [2, 1024, 2])
def test_fake_ranks_come_and_go(ranks: int) -> None:
    with fake_ranks(ranks):
        mesh = mesh_of(placement("hybrid", ranks=ranks, sharding_factor=2))
        assert mesh.shape == (ranks // 2, 2, 1) and mesh.mesh_dim_names == ("replicas", "shards", "tensor")
