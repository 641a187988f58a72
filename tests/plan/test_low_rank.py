"""What adapters keep, counted on real tensors by autograd's own hooks."""

import torch
from torch.autograd.graph import saved_tensors_hooks

from genwright.plan.traced.low_rank import FusedQKV, LowRank, Part, Scaled


def kept_bytes(module: torch.nn.Module, x: torch.Tensor) -> int:
    """Of distinct storages that a forward saves, weights and the input apart."""
    known = {tensor.untyped_storage().data_ptr() for tensor in [x, *module.parameters()]}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x)
    assert out.shape[:-1] == x.shape[:-1]
    return sum(found.values())


def low_rank(parts: tuple[int, ...] = ()) -> LowRank:
    base = torch.nn.Linear(32, 96, bias=False).requires_grad_(False)
    return LowRank(base, (32, 96), 4, 0.0, torch.float32, parts)


def test_a_padded_update_keeps_what_is_copied_and_where_to():
    x = torch.randn(2, 16, 32, requires_grad=True)
    plain, padded = kept_bytes(low_rank(), x), kept_bytes(low_rank((32, 32)), x)
    tokens = 2 * 16
    assert plain == tokens * 4 * 4  # what stands between A and B
    assert padded == tokens * 2 * 4 * 4 + tokens * 64 * 4 + 64 * 8


def test_three_parts_are_one_product():
    parts = [torch.nn.Linear(8, size) for size in (8, 4, 4)]
    whole = FusedQKV(parts)
    x = torch.randn(2, 3, 8)
    q, k, v = (Part(whole, number)(x) for number in range(3))
    assert torch.equal(torch.cat([q, k, v], -1), whole.qkv(x))
    assert q.untyped_storage().data_ptr() == v.untyped_storage().data_ptr()


def test_a_scaled_product_keeps_what_it_scales():
    x = torch.randn(2, 16, 32, requires_grad=True)
    base = torch.nn.Linear(32, 24).requires_grad_(False)
    assert kept_bytes(Scaled(base, 24, torch.float32), x) == 2 * 16 * 24 * 4
