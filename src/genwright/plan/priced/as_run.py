"""A trace as a framework runs it: what one of its kernels does at once, a stage's own layers, what is repeated. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from genwright.plan.architectures import config_of
from genwright.plan.traced.record import Op, Trace
from genwright.plan.traced.setup import Setup

BETWEEN = ("elementwise", "reduction", "copy")
"""Kinds of operations that a compiler fuses."""
FUSED_SOFTMAX = ("megatron", "megatron-deepspeed")
"""Frameworks whose scores are scaled, masked and made to probabilities by one kernel in 16 bits (Megatron-LM:
megatron/fused_kernels/scaled_upper_triang_masked_softmax.h), where the traced model takes six operations and float32."""
SCORE_BYTES = {
    "_softmax": 4.0,
    "_softmax_backward_data": 6.0,
    "bernoulli_": 1.0,
    "mul": 4.0,
}
"""Moved for each score by what is left of them: the softmax there and back, and dropout's mask with its product."""
CORE_ALONE = ("megatron", "megatron-deepspeed")
"""Frameworks whose selective recomputing repeats attention's core alone (Korthikanti et al. 2022, arXiv 2205.05198)."""
TRACED_LAYERS = 3
"""A trace plays at least so many layers of a device."""


def as_run(phase: str, trace: Trace, setup: Setup) -> Iterator[Op]:
    """The operations of a phase, each with the bytes and the count that are left of it."""
    scores, shallow = scores_of(trace, setup), of_a_stage(trace, setup)
    opened = _opened(trace, setup)
    core = phase == "recompute" and setup.recompute == "selective" and setup.framework in CORE_ALONE
    for op in trace.ops:
        if op.phase != phase or (core and op.kind != "attention"):
            continue
        if opened and op.phase != "loss":
            if op.kind in BETWEEN and op.bytes >= opened:
                continue
            op = _in_one_kernel(op, opened)
        if op.op == GROUPED and not op.flops:
            op = _by_experts(op, setup)
        if op.kind == "attention" and setup.context_degree > 1:
            op = _around_the_ring(op, setup.context_degree)
        share = scores.share(op) if op.kind in BETWEEN else 1.0
        layered = op.count >= TRACED_LAYERS * setup.accumulate
        if share:
            yield op._replace(bytes=op.bytes * share, count=op.count * (shallow if layered else 1.0))


def _opened(trace: Trace, setup: Setup) -> float:
    """Bytes of one block's float32 scores where the trace wrote them out though a kernel takes them; else 0.

    torch on a CPU does so where values' heads are narrower than queries' (DeepSeek's latent attention); a GPU's kernel pads them.
    """
    if setup.attention == "eager" or setup.precision == "fp32":
        return 0.0
    tokens = setup.seq_len // setup.context_degree
    sizes = (4.0 * tokens * tokens * op.shape[3] for op in trace.ops if _is_scores(op, tokens))
    return max(sizes, default=0.0)


def _is_scores(op: Op, tokens: int) -> bool:
    return op.op == "aten.bmm" and op.dtype == "fp32" and op.phase != "loss" and op.shape[:3].count(tokens) == 2


def _in_one_kernel(op: Op, scores: float) -> Op:
    """A product of such scores as its share of the kernel that makes all of them: their FLOPs, and what goes in and comes out."""
    m, n, k, several = op.shape
    tokens = round(math.sqrt(scores / 4 / several)) if several > 1 else 0
    if not tokens or not _is_scores(op, tokens):
        return op
    width = m + n + k - 2 * tokens
    name = "attention_backward" if op.phase == "backward" else "attention"
    moved = 2.0 * several * tokens * width
    return op._replace(op=name, kind="attention", dtype="bf16", bytes=moved, shape=(tokens, tokens, width, several))


GROUPED = "aten._grouped_mm"
"""Products of tokens with the weights of the expert that each was drawn to: torch's counter of FLOPs has no formula for them."""
ROWS_TOGETHER = 8
"""Kernels take an expert's rows by so many at least."""
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def _by_experts(op: Op, setup: Setup) -> Op:
    """2 m n k FLOPs over all of a device's experts, each with an even share of the rows, or of what is summed for its gradient."""
    m, n, k, several = op.shape
    config = config_of(setup.model)
    config = config.get("text_config") or config
    known = next((int(config[name]) for name in EXPERTS if config.get(name)), 1)
    experts = max(1, (several if several > 1 else known) // setup.expert_degree)
    rows = lambda size: max(ROWS_TOGETHER, math.ceil(size / experts / ROWS_TOGETHER) * ROWS_TOGETHER)
    shape = (m, n, rows(k), experts) if several > 1 else (rows(m), n, k, experts)
    return op._replace(flops=2.0 * math.prod(shape), shape=shape)


def _around_the_ring(op: Op, ranks: int) -> Op:
    """Attention of a row that several devices share: each one's queries meet the keys of all (Liu et al. 2023, arXiv 2310.01889).

    The trace has a device's own tokens alone. Messages go on beside, and each of a causal row's devices has an equal share.
    """
    queries, keys, width, rows = op.shape
    return op._replace(
        flops=op.flops * ranks, bytes=op.bytes * (1 + ranks) / 2, shape=(queries, keys * ranks, width, rows)
    )


@dataclass(frozen=True)
class Scores:
    """Attention's scores of one block, where they are written out."""

    traced: float = 0.0
    """Elements that the trace's bytes are of."""
    held: float = 0.0
    """Elements that this device has."""

    def share(self, op: Op) -> float:
        """Of an operation's traced bytes, what one fused kernel moves; 1 where it is not about scores."""
        each = op.bytes / self.traced if self.traced else 0.0
        name = op.op.removeprefix("aten.")
        whole = name in ("_softmax", "_softmax_backward_data") or min(abs(each - much) for much in (2, 4, 6)) < 0.02
        if not self.traced or op.phase == "loss" or not whole:
            return 1.0
        left = SCORE_BYTES.get(name, 0.0) if name != "mul" or abs(each - 6) < 0.02 else 0.0
        return left * self.held / op.bytes


def scores_of(trace: Trace, setup: Setup) -> Scores:
    """Read from the products of scores, whose FLOPs are this device's while their shape may be the whole model's."""
    if setup.framework not in FUSED_SOFTMAX or setup.attention != "eager":
        return Scores()
    product = next((op for op in trace.ops if op.op == "aten.bmm" and setup.seq_len in op.shape[:3]), None)
    softmax = next((op for op in trace.ops if op.op == "aten._softmax"), None)
    if product is None or softmax is None:
        return Scores()
    m, n, k, batch = product.shape
    share = product.flops / (2.0 * m * n * k * batch)
    return Scores(softmax.bytes / (8 if softmax.dtype == "fp32" else 4), share * setup.seq_len**2 * batch)


def of_a_stage(trace: Trace, setup: Setup) -> float:
    """Share of a trace's layers that a pipeline's stage has, where it has fewer than were traced.

    >>> from genwright.plan.traced.setup import Setup
    >>> round(of_a_stage(Trace((), (), (), 0, 0, 0, 128, 1, 1, 1, 0.0, 0.0, 0.0), Setup(model="", pipeline_degree=64)), 3)
    0.667
    """
    if setup.pipeline_degree == 1:
        return 1.0
    return min(1.0, math.ceil(trace.layers / setup.pipeline_degree) / TRACED_LAYERS)
