"""A step's price: parts by hand on a made-up trace, laws that any device obeys, what the strategies' order must be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genwright.base.errors import RecipeError
from genwright.catalogue.device_names import place
from genwright.plan.priced.as_run import scores_of
from genwright.plan.priced.roofline import basis, seconds
from genwright.plan.priced.speeds import STEADY, speeds_of
from genwright.plan.priced.step_time import HOOK_SECONDS, STEP_SECONDS, op_seconds, step_time
from genwright.plan.traced.record import Collective, Op, Trace
from genwright.plan.traced.setup import Setup

SETUP = Setup(model="made up", precision="bf16", recompute="none")
A100 = place("A100 80GB")
PRODUCT = Op("aten.mm", "matmul", "bf16", 2.0 * 8192 * 4096 * 4096, 1.7e8, 100.0, "forward", (8192, 4096, 4096, 1))
NORM = Op("aten.mul", "elementwise", "bf16", 0.0, 1e8, 200.0, "forward")
UPDATE = Op("optimizer.step", "optimizer", "fp32", 0.0, 1e9, 1.0, "optimizer")


def traced(*ops: Op, collectives: tuple[Collective, ...] = (), **changes: object) -> Trace:
    made = Trace(
        ops=ops, collectives=collectives, allocations=(), parameters=10**9, trainable=10**9, active_parameters=10**9, layers=10, width=4096,
        tokens=8192, tokens_per_step=8192, model_flops=6e9 * 8192, attention_flops=0.0, launches=0.0,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_parts_add_up_to_the_step() -> None:
    found = step_time(traced(PRODUCT, NORM, UPDATE), A100, SETUP)
    assert sum(found.parts.values()) == pytest.approx(found.total)
    assert found.parts["matmul"] == pytest.approx(
        100 * speeds_of(A100).matmul(8192, 4096, 4096, traffic=1.7e8, share=STEADY)
    )
    assert found.parts["between steps"] == STEP_SECONDS
    assert found.compute_bound == found.parts["matmul"] and 0 < found.memory_bound < found.total


def test_many_small_operations_wait_for_the_host() -> None:
    tiny = NORM._replace(bytes=1e2, count=10_000.0)
    found = step_time(traced(tiny), A100, SETUP)
    assert found.parts["waiting for the host"] > 0.9 * found.parts["elementwise"]
    faster = step_time(traced(tiny), place("H100"), SETUP)
    assert faster.total == pytest.approx(0.67 * (found.total - STEP_SECONDS) + STEP_SECONDS, rel=0.01)
    assert step_time(traced(tiny), A100, replace(SETUP, compile=True)).total < found.total / 2


def test_messages_are_hidden_or_not() -> None:
    """1 GB gathers inside a machine: beside computing they cost little, alone all of their time."""
    message = Collective("all-gather", 1e9, 8, 10.0, "forward", True)
    eight = replace(SETUP, strategy="zero3", count=8)
    price = lambda ops, one: step_time(traced(*ops, collectives=(one,)), A100, eight).parts["communication"]
    busy = tuple(PRODUCT._replace(count=1000.0) for _ in range(1))
    assert price(busy, message) < 0.5 * price((), message._replace(overlappable=False))
    assert price((), message) == pytest.approx(price((), message._replace(overlappable=False)))


def test_frameworks_that_wait_for_each_gather_hide_nothing() -> None:
    message = Collective("all-gather", 1e9, 8, 10.0, "forward", True)
    trace = traced(PRODUCT._replace(count=1000.0), collectives=(message,))
    ours, theirs = (
        step_time(trace, A100, Setup(model="x", precision="bf16", strategy="zero3", count=8, framework=name))
        for name in ("torchtitan", "deepspeed")
    )
    assert theirs.parts["communication"] > 3 * ours.parts["communication"]


def test_hooks_are_the_hosts_time_and_hidden_by_a_longer_device() -> None:
    """Ten blocks of twelve hooked modules: Qwen's full rows take as long at 256 tokens as at 1,024."""
    theirs = Setup(model="x", precision="bf16", strategy="zero3", count=8, framework="deepspeed")
    short, long = (
        step_time(traced(PRODUCT._replace(count=count)), A100, theirs).parts.get("waiting for the host", 0.0)
        for count in (1.0, 1000.0)
    )
    assert short == pytest.approx(HOOK_SECONDS * 12 * 10, rel=0.2) and long == 0.0


def test_each_microbatch_after_the_first_adds_its_gradients() -> None:
    """1e9 weights: two read and one written in 16 bits, or a buffer in float32 beside them; shared where gradients are split."""
    back = PRODUCT._replace(phase="backward")
    price = lambda **changes: step_time(traced(back), A100, replace(SETUP, **changes)).parts.get("accumulation", 0.0)
    bandwidth = speeds_of(A100).bandwidth
    assert price() == 0.0
    assert price(accumulate=5) == pytest.approx(4 * 6e9 / bandwidth, rel=0.01)
    assert price(accumulate=5, framework="megatron-deepspeed", tensor_degree=2, count=2) == pytest.approx(
        4 * 5e9 / bandwidth, rel=0.01
    )
    assert price(accumulate=5, strategy="zero3", count=8) == pytest.approx(price(accumulate=5) / 8, rel=0.01)


def test_a_stage_has_no_more_layers_than_its_share() -> None:
    """Ten layers on five stages are two each, where a trace plays three; a head's operations run once whatever the depth."""
    block, head = PRODUCT._replace(count=3.0), PRODUCT._replace(count=1.0)
    spent = lambda op, stages: step_time(
        traced(op), A100, replace(SETUP, count=5, strategy="ddp", pipeline_degree=stages)
    ).parts["matmul"]
    assert spent(block, 5) == pytest.approx(2 / 3 * spent(block, 1)) and spent(head, 5) == pytest.approx(spent(head, 1))


def test_each_of_a_tensor_parallel_group_sends_its_part_to_the_next_stage() -> None:
    message = Collective("send", 1e9, 2, 10.0, "forward", False, "pipeline")
    price = lambda tensor: step_time(
        traced(PRODUCT, collectives=(message,)), A100,
        replace(SETUP, count=64, strategy="ddp", pipeline_degree=8, tensor_degree=tensor),
    ).parts["communication"]  # fmt: skip
    assert price(8) < 0.3 * price(1)


def test_megatron_repeats_attentions_core_alone() -> None:
    again = PRODUCT._replace(phase="recompute")
    some = replace(SETUP, recompute="selective")
    plain, core = (
        step_time(traced(PRODUCT, again), A100, replace(some, framework=name)) for name in ("torchtitan", "megatron")
    )
    assert core.parts["matmul"] == pytest.approx(plain.parts["matmul"] / 2)


def test_heads_that_are_no_multiple_of_eight_wide_miss_the_matrix_units() -> None:
    """2,048 queries and keys in 32 heads of 108: A100's 19.5 TFLOP/s outside its matrix units; 104 and 112 are multiples."""
    head = lambda width: Op(
        "aten.bmm", "matmul", "bf16", 2.0 * 32 * width * 2048**2, 1e8, 1.0, "forward", (2048, 2048, width, 32)
    )
    price = lambda width: op_seconds(head(width), speeds_of(A100), SETUP) / head(width).flops
    assert 1 / price(108) == pytest.approx(19.5e12, rel=0.02)
    assert price(108) > 4 * price(112) and price(108) > 4 * price(104)


def test_one_kernel_makes_scores_to_probabilities_in_megatron() -> None:
    """Of 4 heads x 2,048^2 scores: 4 bytes of softmax and 5 of dropout each, where the traced model moves 32."""
    scores = 4 * 2048.0**2
    moved = {"_to_copy": 6, "_softmax": 8, "bernoulli_": 2, "div_": 2, "add": 4}
    ops = [
        Op(f"aten.{name}", "elementwise", "fp32", 0.0, each * scores, 1.0, "forward") for name, each in moved.items()
    ]
    ops += [Op("aten.mul", "elementwise", "bf16", 0.0, each * scores, 1.0, "forward") for each in (4, 6)]
    ops += [Op("aten.bmm", "matmul", "bf16", 2.0 * 128 * scores, 1e8, 1.0, "forward", (2048, 2048, 128, 4)), NORM]
    eager = replace(SETUP, seq_len=2048, attention="eager")
    left = lambda name: sum(
        op.bytes * scores_of(traced(*ops), replace(eager, framework=name)).share(op)
        for op in ops
        if op.kind == "elementwise"
    )
    assert left("megatron-deepspeed") == pytest.approx(9 * scores + NORM.bytes)
    assert left("transformers") == pytest.approx(32 * scores + NORM.bytes)
    price = lambda name: step_time(traced(*ops), A100, replace(eager, framework=name)).parts["elementwise"]
    assert price("megatron-deepspeed") < price("transformers")


def test_a_host_updates_as_fast_as_was_measured() -> None:
    """ZeRO-Offload's table: 2.57 s for ten billion weights; narrower state is read and written sooner."""
    away = replace(SETUP, offload_optimizer=True)
    price = lambda kept: step_time(traced(UPDATE, trainable=10**10, checkpoint_bytes=kept * 1e10), A100, away).parts[
        "offload"
    ]
    assert price(14) - price(7) == pytest.approx(2.57 / 2, rel=0.01)


def test_a_pipelines_bubble_and_an_offloaded_optimizer() -> None:
    trace = traced(PRODUCT, UPDATE)
    plain = step_time(trace, A100, replace(SETUP, count=4, strategy="ddp", accumulate=12))
    staged = step_time(trace, A100, replace(SETUP, count=4, strategy="ddp", accumulate=12, pipeline_degree=4))
    assert staged.parts["bubble"] == pytest.approx(0.25 * (plain.total - plain.parts["optimizer"]), rel=0.02)
    away = step_time(trace, A100, replace(SETUP, offload_optimizer=True))
    assert away.parts["offload"] > 2 * 2 * 1e9 / 25e9
    assert away.total > step_time(trace, A100, SETUP).total


def test_a_ranks_share_of_a_product_is_priced_as_a_share() -> None:
    pace = speeds_of(A100)
    whole, eighth = op_seconds(PRODUCT, pace, SETUP), op_seconds(PRODUCT._replace(flops=PRODUCT.flops / 8), pace, SETUP)
    assert whole / 9 < eighth < whole / 4


def test_causal_attention_is_half_the_square() -> None:
    attention = Op(
        "aten._scaled_dot_product_flash_attention",
        "attention",
        "bf16",
        1e13,
        1e6,
        1.0,
        "forward",
        (8192, 8192, 128, 32),
    )
    pace = speeds_of(A100)
    causal, whole = (op_seconds(attention, pace, replace(SETUP, objective=name)) for name in ("instruction", "mlm"))
    assert whole == pytest.approx(2 * causal, rel=0.01)
    later = op_seconds(attention._replace(op="aten._scaled_dot_product_flash_attention_backward"), pace, SETUP)
    assert later > causal


def test_bf16_on_a_device_without_such_units_runs_as_float32() -> None:
    assert op_seconds(PRODUCT, speeds_of(place("T4")), SETUP) > 3 * op_seconds(
        PRODUCT._replace(dtype="fp16"), speeds_of(place("T4")), SETUP
    )


def test_a_device_without_rates_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no rates of Gaudi[\s\S]*genwright calibrate"):
        step_time(traced(PRODUCT), place("gaudi"), SETUP)


def test_newer_devices_are_faster() -> None:
    spent = [
        step_time(traced(PRODUCT, NORM, UPDATE), place(name), SETUP).total for name in ("V100", "A100", "H100", "B200")
    ]
    assert spent == sorted(spent, reverse=True)


def test_what_a_price_rests_on_is_said() -> None:
    found = seconds(traced(PRODUCT), A100, setup=SETUP)
    assert found.low < found.value < found.high and basis() == "datasheet"


def test_products_get_their_steady_share() -> None:
    """Twice the FLOPs at the rate times the share: arithmetic alone, 8192 x 4096 x 4096 in bf16 on an A100."""
    spent = step_time(traced(PRODUCT), A100, SETUP).parts["matmul"]
    assert spent > PRODUCT.count * PRODUCT.flops / (0.86 * 271.2e12) > 0.9 * spent


def test_packed_integers_are_unpacked_in_each_forward() -> None:
    """16.5 bytes a weight (counted in AutoGPTQ's forward), twice where it is taken twice, never in the backward."""
    again = PRODUCT._replace(phase="recompute")
    price = lambda *ops: step_time(
        traced(*ops), A100, Setup(model="x", precision="bf16", framework="peft", base="int4", adapter="lora")
    ).parts["dequantize"]
    once = 16.5 * 1e9 / speeds_of(A100).bandwidth
    assert price(PRODUCT) == pytest.approx(once) and price(PRODUCT, again) == pytest.approx(2 * once)
    assert price(PRODUCT, PRODUCT._replace(phase="backward")) == pytest.approx(once)


def test_all_wait_for_the_slowest() -> None:
    """Expected largest of 64 normal draws is 2.39 deviations (tables); the rule is within a tenth of one."""
    alone, together = (
        step_time(traced(PRODUCT), A100, replace(SETUP, strategy="ddp", count=count)) for count in (1, 64)
    )
    assert "slowest device" not in alone.parts
    assert together.parts["slowest device"] / alone.parts["matmul"] == pytest.approx(0.015 * 2.39, abs=0.0015)


def test_the_first_flash_attention_was_slower() -> None:
    attention = Op("aten._flash", "attention", "bf16", 1e13, 1e6, 1.0, "forward", (8192, 8192, 128, 32))
    old, new = (
        op_seconds(attention, speeds_of(A100), replace(SETUP, framework=name)) for name in ("llm-foundry", "torchtitan")
    )
    assert old == pytest.approx(new / 0.55, rel=0.01)


def test_a_message_that_stands_in_line_costs_all_of_its_time_beside_computing_too() -> None:
    sum_of = Collective("all-reduce", 1e9, 8, 10.0, "forward", False, "tensor")
    price = lambda *ops: step_time(
        traced(*ops, collectives=(sum_of,)), A100, replace(SETUP, strategy="ddp", count=8, tensor_degree=8)
    ).parts["communication"]
    assert price(PRODUCT._replace(count=1000.0)) == pytest.approx(price())


def test_layers_products_in_float8_and_the_heads_in_bf16() -> None:
    """Twice the units' rate and half the energy of each: a layer's product of this size takes little more than half its time."""
    h100, eight = place("H100"), replace(SETUP, options={"eight_bit_products": True})
    large = PRODUCT._replace(flops=2.0 * 8192**3, bytes=4e8, shape=(8192, 8192, 8192, 1))
    work = lambda one, setup, where=h100: step_time(traced(one, meta={"vocabulary": 32000}), where, setup).parts[
        "matmul"
    ]
    assert 0.5 < work(large, eight) / work(large, SETUP) < 0.65
    head = large._replace(shape=(8192, 32000, 8192, 1))
    assert work(head, eight) == work(head, SETUP)
    assert work(large, eight, A100) == work(large, SETUP, A100)  # no such units


def test_a_device_of_a_shared_row_attends_to_all_of_it() -> None:
    own = Op("flash", "attention", "bf16", 1e13, 1e8, 10.0, "forward", (8192, 8192, 128, 32))
    alone = step_time(traced(own), A100, SETUP).parts["attention"]
    four = replace(SETUP, context_degree=4, count=4, strategy="zero3")
    assert step_time(traced(own), A100, four).parts["attention"] == pytest.approx(4 * alone, rel=0.01)


def test_an_interleaved_pipeline_waits_for_a_part_of_a_stage() -> None:
    piped = replace(SETUP, strategy="zero1", count=8, pipeline_degree=8, accumulate=16)
    parts = lambda setup: step_time(traced(PRODUCT), place("A100 80GB"), setup).parts["bubble"]
    assert parts(replace(piped, options={"virtual_stages": 4})) == pytest.approx(parts(piped) / 4)


def test_a_pipeline_of_torchtitans_gathers_once() -> None:
    gather = Collective("all-gather", 1e9, 8, 16.0, "forward", False)
    piped = replace(SETUP, strategy="zero3", count=64, pipeline_degree=8, accumulate=16)
    sent = lambda name: step_time(traced(PRODUCT, collectives=(gather,)), A100, replace(piped, framework=name)).parts[
        "communication"
    ]
    assert sent("torchtitan") == pytest.approx(sent("accelerate") / 16)


def test_transformer_engine_takes_the_faster_attention_on_hopper() -> None:
    own = Op("flash", "attention", "bf16", 1e13, 1e8, 10.0, "forward", (8192, 8192, 128, 32))
    spent = lambda name, where: step_time(traced(own), place(where), replace(SETUP, framework=name)).parts["attention"]
    assert spent("megatron", "H100") < 0.85 * spent("accelerate", "H100")
    assert spent("megatron", "A100") == pytest.approx(spent("accelerate", "A100"))


def test_a_token_goes_to_each_of_its_experts() -> None:
    exchange = Collective("all-to-all", 1e9, 8, 10.0, "forward", False, "experts")
    model = lambda chosen: {"model_type": "mixtral", "num_experts_per_tok": chosen}
    eight = replace(SETUP, strategy="zero1", count=8, expert_degree=8)
    sent = [
        step_time(traced(PRODUCT, collectives=(exchange,)), A100, replace(eight, model=model(chosen))).parts[
            "communication"
        ]
        for chosen in (1, 4, 16)
    ]
    assert sent[1] == pytest.approx(4 * sent[0], rel=0.01)
    assert sent[2] == pytest.approx(8 * sent[0], rel=0.01)  # never more than there are devices


def test_experts_products_cost_what_their_tokens_ask() -> None:
    """Eight experts over 16,384 drawn tokens: the work of one product of all of them, and its two gradients."""
    drawn = Op("aten._grouped_mm", "matmul", "bf16", 0.0, 1e9, 32.0, "forward", (16384, 14336, 4096, 1))
    mixture = replace(SETUP, model={"model_type": "mixtral", "num_local_experts": 8})
    spent = lambda one, setup: step_time(traced(one), A100, setup).parts["matmul"]
    whole = PRODUCT._replace(flops=2.0 * 16384 * 14336 * 4096, bytes=1e9, count=32.0, shape=(16384, 14336, 4096, 1))
    assert spent(drawn, mixture) == pytest.approx(spent(whole, SETUP), rel=0.05)
    gradient = drawn._replace(shape=(14336, 4096, 16384, 8))
    assert spent(gradient, mixture) == pytest.approx(spent(whole, SETUP), rel=0.1)
    many = replace(
        mixture, model={"model_type": "qwen3_moe", "num_experts": 128}, expert_degree=8, count=8, strategy="zero1"
    )
    assert spent(drawn, many) == pytest.approx(spent(whole, SETUP), rel=0.1)  # as many tokens come as go


def test_scores_that_only_the_trace_wrote_out_are_a_kernels() -> None:
    """Values narrower than queries (DeepSeek): the products' FLOPs at the kernel's rate, and nothing for scores that are never written."""
    tokens, heads = 4096, 128
    made = Op(
        "aten.bmm",
        "matmul",
        "fp32",
        2.0 * tokens**2 * 192 * heads,
        9.4e9,
        10.0,
        "forward",
        (tokens, tokens, 192, heads),
    )
    used = made._replace(flops=2.0 * tokens**2 * 128 * heads, shape=(tokens, 128, tokens, heads))
    softmax = Op("aten._softmax", "elementwise", "fp32", 0.0, 8.0 * tokens**2 * heads, 10.0, "forward")
    setup = replace(SETUP, seq_len=tokens)
    found = step_time(traced(made, used, softmax, NORM), A100, setup).parts
    kernel = Op(
        "flash", "attention", "bf16", made.flops + used.flops, 1e8, 10.0, "forward", (tokens, tokens, 128, heads)
    )
    assert found["attention"] == pytest.approx(step_time(traced(kernel), A100, setup).parts["attention"], rel=0.02)
    assert found["elementwise"] == pytest.approx(step_time(traced(NORM), A100, setup).parts["elementwise"])
    written = step_time(traced(made, used, softmax), A100, replace(setup, attention="eager"))
    assert written.total > 5 * found["attention"]  # where somebody asked for it, it is so
