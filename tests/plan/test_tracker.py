"""The tracker counts the same bytes and the same work on real and on fake tensors, and the bytes are right by hand."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.plan.here.tracker import Tracker

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2}  # fmt: skip


def test_bytes_by_hand() -> None:
    """x: 4 KiB; y = x + x: 4 KiB; y dies; z = x * 2: 4 KiB. Peak 8 KiB; a view costs nothing."""
    with Tracker() as tracker:
        x = torch.zeros(1024)
        y = x + x
        del y
        z = x * 2
        view = z.view(32, 32)
    assert tracker.peak.total == 8192
    assert tracker.live == 8192
    assert [event.op for event in tracker.events] == ["aten.zeros.default", "aten.add.Tensor", "aten.mul.Tensor"]
    del x, z, view
    assert tracker.live == 0


def test_products_by_hand() -> None:
    with Tracker() as tracker:
        torch.zeros(8, 16) @ torch.zeros(16, 4)
    assert sum(event.flops for event in tracker.events) == 2 * 8 * 16 * 4


def _two_steps(tracker: Tracker) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation="sdpa")
    tracker.track([*model.parameters(), *model.buffers()], "weights")
    tracker.watch_gradients(dict(model.named_parameters()))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(2, 24, dtype=torch.long)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids).logits.square().sum().backward()
        optimizer.step()


def test_fake_and_real_steps_have_the_same_events_and_the_same_peak() -> None:
    with Tracker(vocabulary=64) as real:
        _two_steps(real)
    with FakeTensorMode(), Tracker(vocabulary=64) as fake:
        _two_steps(fake)
    work = lambda tracker: [
        (event.op, event.flops, event.traffic)
        for event in tracker.events
        if "aten.mm" in event.op or "adamw" in event.op
    ]
    assert work(fake) == work(real)
    assert fake.peak == real.peak
    assert fake.peak.total > 0


def test_gradients_are_counted_as_what_they_are() -> None:
    layer = torch.nn.Linear(8, 8, bias=False)
    with Tracker() as tracker:
        tracker.track(list(layer.parameters()), "weights")
        tracker.watch_gradients(dict(layer.named_parameters()))
        with tracker.phase("activations"):
            layer(torch.zeros(4, 8)).sum().backward()
            held = torch.zeros(256)
    assert held.numel() == 256
    assert tracker.peak.parts["gradients"] == tracker.peak.parts["weights"] == 8 * 8 * 4


def test_flops_equal_torchs_counter_where_it_counts() -> None:
    """Torch's counter misses the CPU attention kernel: eager attention is the common ground."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation="eager")
    ids = torch.zeros(2, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as oracle:
        model(input_ids=ids).logits.sum().backward()
    with Tracker() as tracker:
        model(input_ids=ids).logits.sum().backward()
    assert sum(event.flops for event in tracker.events) == oracle.get_total_flops() > 0


def test_the_cpus_attention_kernel_is_counted() -> None:
    """Scores and mixture: 2 * B H T S (D + D) forward; two and a half times that backward."""
    q = torch.randn(2, 4, 16, 8, requires_grad=True)
    with Tracker() as tracker:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    forward = 2 * 2 * 4 * 16 * 16 * (8 + 8)
    assert sum(event.flops for event in tracker.events) == forward + int(2.5 * forward)
