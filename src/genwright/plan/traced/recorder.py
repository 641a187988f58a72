"""Records every operation and every byte of a microbatch on fake tensors, cut at the model's layers.

The trace is taken on the CPU and told as a GPU would run it: attention by its fused kernel keeps queries, keys, values,
its result and a logarithm a row; its backward takes a float32 copy of the queries' gradient.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from genwright.plan.here.tracker import UNCOUNTED
from genwright.plan.traced.left_out import UNTRACED, stand_in
from genwright.plan.traced.pieces import HELD, Change, PieceOp, Segment

DTYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "int8",
    torch.float64: "fp32",
}
MATMULS = frozenset(["mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "convolution", "mv", "dot", "_int_mm"])
COPY_NAMES = """_to_copy copy_ clone cat constant_pad_nd index_select gather scatter index_copy stack slice_backward select_backward
    fill_ zero_ zeros zeros_like new_zeros full full_like empty _unsafe_index index"""
REDUCTION_NAMES = """sum mean amax _softmax _log_softmax _softmax_backward_data _log_softmax_backward_data native_layer_norm var_mean
    native_layer_norm_backward logsumexp nll_loss_forward nll_loss_backward _fused_rms_norm argmax cumsum"""
COPIES, REDUCTIONS = frozenset(COPY_NAMES.split()), frozenset(REDUCTION_NAMES.split())
EMBEDDINGS = {"embedding", "embedding_dense_backward"}
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Recorder(TorchDispatchMode):
    """Use as a context around one microbatch. `segment` says where it is."""

    current: ClassVar[Recorder | None] = None

    def __init__(self, known: list[Tensor], *, vocabulary: int) -> None:
        super().__init__()
        self.segments: list[Segment] = []
        self.left_out: list[str] = []
        self.again = False
        self.dequantizing = False
        self._vocabulary = vocabulary
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._kept = known
        self._live: dict[int, tuple[int, int]] = {}
        self._counts: list[Counter[Any]] = []
        self._taken: list[int] = []
        self.cut("forward", -1, 0)

    def cut(self, name: str, stack: int, layer: int) -> None:
        """From here on everything belongs to a new segment."""
        self.segments.append(Segment(name, stack, layer, [], []))
        self._counts.append(Counter())
        self._taken.append(0)

    def __enter__(self) -> Any:
        Recorder.current = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Recorder.current = None
        super().__exit__(*error)

    def finish(self) -> list[Segment]:
        """All segments, with their operations counted."""
        for segment, counts in zip(self.segments, self._counts, strict=True):
            segment.ops[:] = [
                PieceOp(op, kind, dtype, flops, traffic, float(count), again, shape)
                for (op, kind, dtype, flops, traffic, again, shape), count in counts.items()
            ]
        self._live.clear()
        return self.segments

    def complete(self, gradient: Tensor, weight: int) -> None:
        """A weight's gradient is whole."""
        where = self._live.get(gradient.untyped_storage()._cdata)
        if where:
            size = gradient.untyped_storage().nbytes()
            self.segments[-1].changes.append(Change(*where, size, "gradients", weight))
            self._remake(where, part="gradients")

    def hold(self, tensor: Tensor | None) -> None:
        """A tensor that lives as long as its graph, whatever the backward frees."""
        where = self._live.get(tensor.untyped_storage()._cdata) if tensor is not None else None
        if where:
            self._remake(where, weight=HELD)

    def _remake(self, where: tuple[int, int], **fields: Any) -> None:
        made = self.segments[where[0]].changes
        at = next(number for number, change in enumerate(made) if change[:2] == where and change.bytes)
        made[at] = made[at]._replace(**fields)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except UNTRACED:
            out, said = stand_in(func, args, kwargs)
            self.left_out += [said] if said not in self.left_out else []
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        name = func._overloadpacket.__name__
        fresh = False
        for tensor in results:
            fresh |= self._see(tensor)
        if (fresh or func._schema.is_mutable) and name not in EMPTY:
            self._record(func, name, args, kwargs, out, results)
        return out

    def _see(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or key in self._known:
            return False
        segment = len(self.segments) - 1
        ordinal = self._taken[segment]
        self._taken[segment] += 1
        self._live[key] = (segment, ordinal)
        wide = self._vocabulary and tensor.ndim >= 2 and tensor.shape[-1] == self._vocabulary
        part = "temporaries" if self.dequantizing else "logits and loss" if wide else "activations"
        self.segments[segment].changes.append(Change(segment, ordinal, storage.nbytes(), part))
        weakref.finalize(storage, self._freed, key)
        return True

    def _freed(self, key: int) -> None:
        where = self._live.pop(key, None)
        if where:
            self.segments[-1].changes.append(Change(*where, 0))

    def _transient(self, size: int) -> None:
        """Taken and given back within one operation."""
        segment = len(self.segments) - 1
        ordinal = self._taken[segment]
        self._taken[segment] += 1
        changes = self.segments[segment].changes
        changes += [Change(segment, ordinal, size, "temporaries"), Change(segment, ordinal, 0)]

    def _record(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, results: list[Tensor]) -> None:
        packet = func._overloadpacket
        count: Any = UNCOUNTED.get(packet) or flop_registry.get(packet)
        flops = float(count(*args, **kwargs, out_val=out)) if count else 0.0
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        traffic = sum(_bytes(tensor) for tensor in {id(tensor): tensor for tensor in inputs + results}.values())
        kind = "dequantize" if self.dequantizing else _kind(name)
        largest = max(inputs + results, key=_bytes)
        shape = _shape(name, kind, inputs, results)
        if name == ATTENTION + "_backward":
            self._attention_backward(inputs[1])
        key = (f"aten.{name}", kind, DTYPES.get(largest.dtype, "fp32"), flops, float(traffic), self.again, shape)
        self._counts[-1][key] += 1

    def _attention_backward(self, query_BHTD: Tensor) -> None:
        batch, heads, length, width = query_BHTD.shape
        self._transient(batch * heads * math.ceil(length / 128) * 128 * (4 * math.ceil(width / 32) * 32 + 4))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _kind(name: str) -> str:
    if name in MATMULS:
        return "matmul"
    if "scaled_dot_product" in name:
        return "attention"
    if name in EMBEDDINGS:
        return "embedding"
    if name in COPIES:
        return "copy"
    return "reduction" if name in REDUCTIONS else "elementwise"


def _shape(name: str, kind: str, inputs: list[Tensor], results: list[Tensor]) -> tuple[int, int, int, int]:
    if kind == "attention":
        query, key = (inputs[1], inputs[2]) if name.endswith("_backward") else (inputs[0], inputs[1])
        return (query.shape[2], key.shape[2], query.shape[3], query.shape[0] * query.shape[1])
    if kind != "matmul":
        return (0, 0, 0, 0)
    matrices = [tensor for tensor in inputs if tensor.ndim >= 2]
    if len(matrices) < 2 or not results or results[0].ndim < 2:
        return (0, 0, 0, 0)
    left, product = matrices[-2], results[0]
    batch = product.shape[0] if product.ndim == 3 else 1
    return (product.shape[-2], product.shape[-1], left.shape[-1], batch)


class Cutter(Protocol):
    """Whoever wants to know where a layer begins."""

    def cut(self, name: str, stack: int, layer: int) -> None:
        """From here on everything belongs to that layer's "forward" or "backward"; -1: to what stands between them."""


class Cuts:
    """Hooks that tell a recorder which layer is at work, on the way there and back."""

    def __init__(self, recorder: Cutter, stacks: list[list[nn.Module]]) -> None:
        self._recorder = recorder
        self._handles: list[Any] = []
        for stack, layers in enumerate(stacks):
            for number, layer in enumerate(layers):
                self._around(layer, stack, number, last=number == len(layers) - 1)

    def remove(self) -> None:
        """All of them."""
        for handle in self._handles:
            handle.remove()

    def _around(self, layer: nn.Module, stack: int, number: int, *, last: bool) -> None:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            self._recorder.cut("forward", stack, number)
            given = args[0] if args else kwargs.get("hidden_states")
            if number == 0 and isinstance(given, Tensor) and given.requires_grad:
                given.register_hook(lambda _: self._recorder.cut("backward", -1, 0))

        def after(_: Any, __: Any, out: Any) -> None:
            hidden = out[0] if isinstance(out, tuple) else out
            if isinstance(hidden, Tensor) and hidden.requires_grad:
                hidden.register_hook(lambda _: self._recorder.cut("backward", stack, number))
            if last:
                self._recorder.cut("forward", -1, 0)

        self._handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(layer.register_forward_hook(after))
