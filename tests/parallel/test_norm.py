"""The global norm is that of all gradients together, sharded or not."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from genwright.parallel.norm import global_norm


def test_norm_by_hand() -> None:
    """sqrt(3^2 + 4^2 + 12^2) = 13."""
    assert global_norm([torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]).item() == pytest.approx(13.0)


def test_a_number_that_is_not_finite_shows() -> None:
    assert not torch.isfinite(global_norm([torch.tensor([1.0, float("inf")])]))


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    whole = torch.arange(6.0)
    sharded = distribute_tensor(whole, init_device_mesh("cpu", (2,)), [Shard(0)])
    torch.testing.assert_close(global_norm([sharded]), whole.norm())
    assert sharded.to_local().norm() < whole.norm()
    torch.distributed.destroy_process_group()


def test_shards_on_two_processes_have_the_norm_of_the_whole(tmp_path: object) -> None:
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
