"""Watches every operation and every byte of whatever runs under it, on real and on fake tensors alike.

A storage lives from the operation that made it until its last tensor dies. What is counted is bytes of live storages
("active" memory); what the process shows besides (interpreter, libraries, allocator slack) is added by the estimate.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Event:
    """One operation, in the order of execution."""

    op: str
    """"aten.mm.default"."""
    signature: str
    """The operation with the shapes, strides and types of its tensors and its other arguments: equal text, equal work."""
    flops: int
    traffic: int
    """Bytes of all tensors read and written; 0 for views."""
    live: int
    """Bytes of live storages after it."""


@dataclass(frozen=True)
class Peak:
    """The highest live bytes of a phase, and what they were."""

    total: int
    parts: dict[str, int]


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    """2 * B * H * T * S * (D + Dv): the scores and the mixture, causal or not, as torch counts its other kernels."""
    (batch, heads, length, width), source, mixed = query.shape, key.shape[2], value.shape[3]
    return int(2 * batch * heads * length * source * (width + mixed))


def _attention_backward_flops(
    _: Any, query: Any, key: Any, value: Any, *__: Any, out_val: Any = None, **___: Any
) -> int:
    """Five products where the forward has two: scores again, and the gradients of value, weights, query, key."""
    return int(2.5 * _attention_flops(query, key, value))


UNCOUNTED: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm],
    torch.ops.aten.baddbmm_: flop_registry[torch.ops.aten.baddbmm],
}
"""torch's counter knows neither the CPU's attention kernel nor products added in place, a fused LoRA's."""


class Tracker(TorchDispatchMode):
    """Use as a context around what is to be watched; `track` first what exists already."""

    def __init__(self, *, vocabulary: int = 0) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.events: list[Event] = []
        self.arguments: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}
        """For each signature, the operation and a description of its arguments: enough to run it alone."""
        self.live = 0
        self.peak = Peak(0, {})
        self._sizes: dict[int, int] = {}
        self._parts: dict[int, str] = {}
        self._sums: dict[str, int] = {}
        self._part = "activations"

    def track(self, tensors: Iterator[Tensor] | list[Tensor], part: str) -> None:
        """Count tensors that exist already, or rename what they are counted as."""
        for tensor in tensors:
            key = self._see(tensor)
            self._move(key, part)

    def watch_gradients(self, parameters: dict[str, nn.Parameter]) -> None:
        """Gradients are named the moment they are accumulated."""
        for parameter in parameters.values():
            parameter.register_post_accumulate_grad_hook(lambda p: self.track([p.grad], "gradients"))

    @contextmanager
    def phase(self, part: str) -> Iterator[None]:
        """New storages count as `part`; the peak is measured anew from here."""
        before, self._part = self._part, part
        self.now()
        try:
            yield
        finally:
            self._part = before

    def now(self) -> Peak:
        """What is live; the peak is measured anew from here."""
        self.peak = Peak(self.live, dict(self._sums))
        return self.peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # half of what fake tensors are asked
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = [out] if isinstance(out, Tensor) else _tensors(out)
        known = len(self._sizes)
        for tensor in results:
            self._see(tensor)
        if len(self._sizes) == known and not func._schema.is_mutable:
            return out  # a view: no work, no bytes
        self._record(func, args, kwargs, out, results)
        return out

    def _record(self, func: Any, args: Any, kwargs: Any, out: Any, results: list[Tensor]) -> None:
        signature = f"{func}({_describe(args)};{_describe(kwargs)})"
        packet = func._overloadpacket
        count: Any = UNCOUNTED.get(packet) or flop_registry.get(packet)
        flops = count(*args, **kwargs, out_val=out) if count else 0
        inputs = [*_tensors(args), *_tensors([*kwargs.values()])]
        traffic = sum(tensor.numel() * tensor.element_size() for tensor in inputs + results)
        self.events.append(Event(str(func), signature, int(flops), traffic, self.live))
        if signature not in self.arguments:
            self.arguments[signature] = (func, _specs(args), _specs(kwargs))

    def _see(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            part = self._part
            if self.vocabulary and tensor.ndim >= 2 and tensor.shape[-1] == self.vocabulary and part == "activations":
                part = "logits and loss"
            self._sizes[key], self._parts[key] = storage.nbytes(), part
            weakref.finalize(storage, self._freed, key)
            self._add(part, storage.nbytes())
        return key

    def _add(self, part: str, size: int) -> None:
        self.live += size
        self._sums[part] = self._sums.get(part, 0) + size
        if self.live > self.peak.total:
            self.peak = Peak(self.live, dict(self._sums))

    def _freed(self, key: int) -> None:
        size = self._sizes.pop(key)
        part = self._parts.pop(key)
        self.live -= size
        self._sums[part] -= size

    def _move(self, key: int, part: str) -> None:
        size, before = self._sizes[key], self._parts[key]
        self._sums[before] -= size
        self._sums[part] = self._sums.get(part, 0) + size
        self._parts[key] = part


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's shape, strides and type: enough to make another for which an operation does the same work."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def _specs(values: Any) -> Any:
    if isinstance(values, Tensor):
        return TensorSpec(tuple(values.shape), tuple(values.stride()), values.dtype)
    if isinstance(values, (list, tuple)):
        return type(values)(_specs(value) for value in values)
    if isinstance(values, dict):
        return {name: _specs(value) for name, value in values.items()}
    return None if isinstance(values, torch.UntypedStorage) else values  # kept, its bytes would live on


def _tensors(values: Any) -> list[Tensor]:
    """All in it, lists in lists opened: what `tree_leaves` finds, several times as fast."""
    found: list[Tensor] = []
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _describe(values: Any) -> str:
    if isinstance(values, Tensor):
        return f"{str(values.dtype)[6:]}{list(values.shape)}{list(values.stride())}"
    if isinstance(values, (list, tuple)):
        return f"[{','.join(_describe(value) for value in values)}]"
    if isinstance(values, dict):
        return ",".join(f"{name}={_describe(value)}" for name, value in values.items())
    return f"{values.nbytes()} bytes" if isinstance(values, torch.UntypedStorage) else str(values)
