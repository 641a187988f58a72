"""Sequence parallelism: what a layer keeps against the paper's formula, and ranks' shares against the whole."""

from __future__ import annotations

from typing import Any

import pytest

from genwright.base.errors import RecipeError
from genwright.plan.architectures import config_of
from genwright.plan.priced.allocator import live_peak
from genwright.plan.published.frameworks import filled
from genwright.plan.traced.compose import compose
from genwright.plan.traced.pieces import Pieces
from genwright.plan.traced.record import Trace
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.standing import placed_weights
from genwright.plan.traced.trace_setup import trace_pieces

LLAMA = {
    "model_type": "llama", "vocab_size": 640, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
TOKENS, ROWS, WIDTH, INNER, HEADS = 64, 2, 128, 320, 8
KEPT = 2 * (10 * WIDTH + 3 * INNER)
"""Bytes a token of a Llama's layer in 16 bits: two norms' inputs and results, what one product makes of q, k and v, the turned q and k,
what attention gives; the gate, `up` and their product."""
STATISTICS = {"rows of norms": 2 * 4, "rows of attention": 4 * HEADS}
"""Bytes a token, float32: a root mean square, and the logarithm of a softmax's sum for each head."""


def setup(framework: str = "megatron", degree: int = 1, **changes: Any) -> Setup:
    parallel = {"strategy": "ddp", "count": degree, "tensor_degree": degree} if degree > 1 else {}
    plain = {"model": LLAMA, "precision": "bf16-true", "recompute": "none", "seq_len": TOKENS, "micro_batch": ROWS}
    return Setup(framework=framework, **plain | parallel | changes)


def pieces(framework: str = "megatron", degree: int = 1, **changes: Any) -> Pieces:
    one, profile, _ = filled(setup(framework, degree, **changes).check())
    return trace_pieces(one, profile, config_of(one.model))


def traced(framework: str, degree: int = 1, **changes: Any) -> Trace:
    one, profile, _ = filled(setup(framework, degree, **changes).check())
    return compose(trace_pieces(one, profile, config_of(one.model)), one, profile)


def activations(trace: Trace) -> int:
    """Bytes at the moment that most of them are live."""
    mine = {one.storage for one in trace.allocations if one.part == "activations"}
    return live_peak([one for one in trace.allocations if one.storage in mine])[0]


def kept(found: Pieces) -> int:
    """Bytes that the middle layer's forward leaves for its backward."""
    alive: dict[tuple[int, int], int] = {}
    mine = {number for number, one in enumerate(found.segments) if one[:3] == ("forward", 0, 1)}
    for segment in found.segments:
        if segment.name != "forward":
            break
        for change in segment.changes:
            if change.owner in mine:
                alive[change[:2]] = change.bytes
    return sum(alive.values())


def test_a_layer_keeps_what_the_formula_says() -> None:
    """Korthikanti 2022, table 2, for a Llama: all of it divided by t where sequence parallelism is used, to one head a rank."""
    whole = ROWS * TOKENS * (KEPT + sum(STATISTICS.values()))
    assert kept(pieces()) == whole
    assert [kept(pieces(degree=degree)) for degree in (2, 4, 8)] == [whole // 2, whole // 4, whole // 8]


def test_without_it_the_stream_stays_whole() -> None:
    """A framework without: 8 bytes a number of the stream and the norms' rows are on every rank."""
    stream = ROWS * TOKENS * (8 * WIDTH + STATISTICS["rows of norms"])
    whole = kept(pieces("gpt-neox"))
    assert kept(pieces("gpt-neox", 4)) == stream + (whole - stream) // 4


def test_what_is_gathered_is_kept_where_a_framework_keeps_it() -> None:
    """DTensor: each of two parts keeps all tokens of its input instead of this rank's; q, k and v are three products; the gate
    and what it becomes are two tensors.
    """
    whole = ROWS * TOKENS * 2 * WIDTH
    assert (
        kept(pieces("torchtitan", 4))
        == kept(pieces(degree=4)) + 2 * (whole - whole // 4) - 2 * whole // 4 + ROWS * TOKENS * 2 * INNER // 4
    )


@pytest.mark.parametrize("framework", ["megatron", "torchtitan"])
def test_a_recomputed_layer_keeps_its_share_of_the_input(framework: str) -> None:
    """2 bytes a number of the stream, divided by t."""
    found = pieces(framework, 4, recompute="full")
    assert kept(found) == ROWS * TOKENS * 2 * WIDTH // 4


@pytest.mark.parametrize("changes", [
    {}, {"recompute": "full"}, {"recompute": "selective"}, {"adapter": "lora"}, {"seq_len": 63},
    {"model": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}},
    {"model": {**LLAMA, "model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 16}},
])  # fmt: skip
def test_a_rank_has_its_share(changes: dict[str, Any]) -> None:
    """Of a layer's temporaries a rank has all tokens, so its peak is over the share."""
    alone, split = (traced("megatron", degree, **changes) for degree in (1, 4))
    assert activations(alone) / 4 < activations(split) < activations(alone) / 2


def test_a_rank_does_the_same_products() -> None:
    """Gathering and scattering are messages, not operations."""
    alone, split = (traced("megatron", degree) for degree in (1, 4))
    products = [sum(op.flops * op.count for op in trace.ops if op.kind == "matmul") for trace in (alone, split)]
    assert products[1] * 4 == products[0]
    assert sum(op.bytes * op.count for op in split.ops) < sum(op.bytes * op.count for op in alone.ops) / 2


def test_virtual_tokens_are_planned_without_it() -> None:
    alone, split = (traced("torchtitan", degree, adapter="prompt-tuning") for degree in (1, 4))
    assert activations(split) < activations(alone)


@pytest.mark.parametrize("framework", ["torchtitan", "megatron"])
def test_ranks_of_a_split_row_hold_shares_of_the_state(framework: str) -> None:
    """Eight devices hold one copy, however many of them split a row; and each reduces its gradients with the seven others."""
    found = [
        traced(framework, strategy="zero3", count=8, context_degree=degree, precision="bf16") for degree in (1, 2, 8)
    ]
    states = {
        (one.part, sum(other.bytes for other in trace.allocations if other.part == one.part))
        for trace in found
        for one in trace.allocations
        if one.part in ("weights", "optimizer")
    }
    assert len(states) == 2
    assert {one.group for trace in found for one in trace.collectives if one.axis == "shards"} == {8}
    assert activations(found[2]) < activations(found[0]) / 4


def test_copies_of_a_split_row_add_their_gradients() -> None:
    """Replicas that see parts of one row: without shards, gradients are summed over data x context."""
    (summed,) = {one.group for one in traced("torchtitan", strategy="ddp", count=8, context_degree=4).collectives}
    assert summed == 8


def test_groups_that_split_state_are_of_all_replicas() -> None:
    assert setup("torchtitan", strategy="hybrid", count=8, context_degree=2, sharding_factor=8).check().shards == 8
    with pytest.raises(RecipeError, match="8 devices do not split into groups of 3"):
        setup("torchtitan", strategy="hybrid", count=8, context_degree=2, sharding_factor=3).check()


def most(trace: Trace, part: str) -> int:
    """Bytes of a part at the moment that most of it is live."""
    mine = {one.storage for one in trace.allocations if one.part == part}
    return live_peak([one for one in trace.allocations if one.storage in mine])[0]


def test_a_stage_keeps_its_weights_gathered_and_its_gradients_whole() -> None:
    """As torchtitan pipelines: 2 bytes of a gathered weight and 4 of a summed gradient stand from the first microbatch to the last."""
    staged = {"strategy": "zero3", "count": 4, "pipeline_degree": 2, "precision": "bf16", "accumulate": 4}
    found = traced("torchtitan", **staged)
    one, profile, _ = filled(setup("torchtitan", **staged).check())
    parts = trace_pieces(one, profile, config_of(LLAMA))
    mine, whole = (sum(placed.weight.numel for placed in placed_weights(parts, stages)) for stages in (2, 1))
    assert most(found, "all-gather buffers") == 2 * mine
    assert 4 * mine <= most(found, "gradients") <= 4 * mine + 2 * 640 * WIDTH
    alone = traced("torchtitan", **staged | {"pipeline_degree": 1})
    assert most(alone, "all-gather buffers") < 2 * whole and most(alone, "gradients") < 4 * whole
