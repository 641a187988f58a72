"""Seconds of one optimiser step of a traced training on a device nobody has measured: from data sheets. No torch here.

Three lanes. The device computes: each operation at its size's rate (`speeds`). The host sends: so many microseconds an
operation, and where that is longer the device waits. Messages travel (`collectives`): those that may run beside computing
are hidden as far as it lasts, the others stand in line. Phase by phase the longer lane counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace

from genwright.base.errors import RecipeError
from genwright.catalogue.device_names import Placed
from genwright.catalogue.devices import Device
from genwright.plan.architectures import config_of
from genwright.plan.priced.as_run import BETWEEN, GROUPED, as_run
from genwright.plan.priced.collectives import CROWDING, Fabric, bubble, exposed, fabric_of, message_seconds
from genwright.plan.priced.speeds import Speeds, speeds_of
from genwright.plan.published.frameworks_serving import host_factor
from genwright.plan.traced.record import Op, Trace
from genwright.plan.traced.setup import Setup

LAUNCH_SECONDS = 7.0e-6
"""Of the host for one operation: autoparallel's fit on H100; backward's operations are sent by C++ and come cheaper."""
BACKWARD_LAUNCH = 0.75
LAUNCHES = {
    "qwen-finetune": 2.7, "deepspeed": 2.0, "transformers": 1.3, "trl": 1.3, "peft": 1.4, "accelerate": 1.3, "llamafactory": 1.4,
    "axolotl": 1.4, "megatron": 1.2, "megatron-deepspeed": 1.3, "internevo": 1.2,
}  # fmt: skip
"""Framework -> what its hooks add to a launch."""
FUSED_TRAFFIC = 0.35
"""Share of elementwise traffic that is left when a compiler fuses what lies between products."""
FUSED_LAUNCHES = 0.3
FUSED_NORMS = 0.75
"""The same where a framework brings its own kernels for norms and rotations."""
FUSING = ("internevo", "megatron", "megatron-deepspeed", "qwen-finetune", "unsloth", "torchtitan")
NOT_CAUSAL = (
    "mlm",
    "masked",
    "classification",
    "pair-classification",
    "sentence-pairs",
    "embedding",
    "span-corruption",
)
"""Objectives whose attention sees the whole square."""
DEQUANTIZE_SHARE = 0.45
"""Of the stream's bandwidth, when weights are unpacked: the table lookups of bitsandbytes and GPTQ's shifts."""
CUDNN_FLASH = {"hopper": 0.70, "blackwell": 0.65}
"""Share of the matmul rate that cuDNN's attention reaches there (Shah et al. 2024, arXiv 2407.08608, figures 5 and 6), which
Transformer Engine takes before FlashAttention 2 on these parts."""
CUDNN = ("megatron",)
FIRST = ("llm-foundry",)
"""Frameworks whose published tables ran the first FlashAttention, in Triton (llm-foundry: `attn_impl: triton`)."""
FIRST_FLASH = 0.55
"""Of the second's rate, forward and backward, on A100 (Dao 2023, arXiv 2307.08691, figures 4 to 6)."""
HOST_BANDWIDTH = {"volta": 11e9, "turing": 11e9, "ampere": 22e9, "ada": 22e9, "hopper": 45e9, "blackwell": 45e9}
"""Architecture -> bytes a second that a copy to pinned host memory gets."""
HOST_UPDATES = 3.9e9
"""Weights a second that an Adam in float32 updates in the memory of a host (Ren et al. 2021, arXiv 2101.06840, table 4: ten
billion in 2.57 s). Its rate is that of memory: narrower weights and state take less."""
STATE_BYTES = 14.0
"""Of such a weight: two for computing, twelve for its copy in float32 and two moments."""
SPREAD = 0.015
"""Standard deviation of equal devices' times: 8 % lie between the fastest and the slowest of some hundreds of one model (Sinha et
al. 2022, arXiv 2208.11035), which is six of it."""
ALIGNED = 8
"""Numbers of 16 bits that a matrix unit's operands are read by: batched products of heads that are not a multiple as wide run on
the other units (bigscience, chronicles of 104B and 176B: 128 heads of 108 take 150 s a step where 64 of 216 take 104)."""
STEP_SECONDS = 3e-3
"""Between steps: the next rows, the schedule, the log."""


@dataclass(frozen=True)
class StepTime:
    """One optimiser step. All in seconds."""

    total: float
    """Of the step."""
    parts: dict[str, float] = field(default_factory=dict)
    """By kind of work on the device: "matmul", "attention", "elementwise", "optimizer", ...; "waiting for the host";
    "communication"; "bubble"; "offload"."""
    compute_bound: float = 0.0
    """Seconds in which matrix units set the pace."""
    memory_bound: float = 0.0
    """Seconds in which memory does."""


def step_time(trace: Trace, device: Device | Placed, setup: Setup, *, speeds: Speeds | None = None) -> StepTime:
    """Price a trace. `speeds`: measured ones, where this is the machine at hand. Errors: RecipeError without any rate."""
    placed = device if isinstance(device, Placed) else Placed(device)
    pace = speeds or _attending(speeds_of(placed), placed.device.kind, setup.framework)
    if not pace.peak:
        raise RecipeError(
            f"The catalogue has no rates of {placed.device.title}.", wanted="a device with rates, or its calibration",
            found=placed.device.name, do="genwright calibrate on such a device, or --device a100",
        )  # fmt: skip
    parts: dict[str, float] = defaultdict(float)
    lanes = {phase: _lane(phase, trace, pace, placed, setup, parts) for phase in {op.phase for op in trace.ops}}
    slowest = sum(lanes.values()) * (slowest_of(setup.count) - 1)
    fabric = fabric_of(placed, setup.count)
    messages = _messages(trace, fabric, setup, lanes)
    offload = _offload(trace, placed.device, setup)
    total = sum(lanes.values()) + slowest + messages + STEP_SECONDS
    rounds = setup.accumulate * setup.options.get("virtual_stages", 1)
    idle = bubble(setup.pipeline_degree, rounds) * (total - lanes.get("optimizer", 0.0))
    parts |= {
        "communication": messages,
        "slowest device": slowest,
        "bubble": idle,
        "offload": offload,
        "between steps": STEP_SECONDS,
    }
    computing = parts["matmul"] + parts["attention"]
    return StepTime(
        total + idle + offload, {name: value for name, value in parts.items() if value}, computing,
        sum(parts[name] for name in ("elementwise", "reduction", "copy", "embedding", "optimizer", "dequantize")),
    )  # fmt: skip


def _attending(pace: Speeds, kind: str, framework: str) -> Speeds:
    """With the attention that the framework takes on such a part."""
    share = next((share for name, share in CUDNN_FLASH.items() if kind.startswith(name)), pace.flash)
    return replace(pace, flash=share) if framework in CUDNN else pace


def slowest_of(count: int) -> float:
    """How long the slowest of `count` devices takes beside their mean: all wait for it. Expected largest of normal draws.

    >>> slowest_of(1), round(slowest_of(64), 3)
    (1.0, 1.036)
    """
    return 1.0 + SPREAD * max(0.0, math.sqrt(2 * math.log(count)) - 0.5) if count > 1 else 1.0


def _lane(phase: str, trace: Trace, pace: Speeds, placed: Placed, setup: Setup, parts: dict[str, float]) -> float:
    """Seconds of a phase: the device's work, or the host's sending of it."""
    age = host_factor(placed.device.kind)
    each = pace.launch or LAUNCH_SECONDS * LAUNCHES.get(setup.framework, 1.0) * age
    each *= BACKWARD_LAUNCH if phase in ("backward", "optimizer") else 1.0
    host = _hooks(phase, trace, setup) * age
    spent: dict[str, float] = defaultdict(float)
    for op in as_run(phase, trace, setup):
        spent[op.kind] += op.count * op_seconds(op, pace, setup, eight=_in_eight_bits(op, trace, pace, setup))
        host += op.count * each * (FUSED_LAUNCHES if setup.compile and op.kind in BETWEEN else 1.0)
    spent["dequantize"] += _unpacking(phase, trace, pace, setup)
    if phase == "backward":
        spent["accumulation"] = _accumulation(trace, pace, setup)
    for kind, seconds in spent.items():
        parts[kind] += seconds
    device = sum(spent.values())
    parts["waiting for the host"] += host if pace.waits else max(0.0, host - device)
    return device + host if pace.waits else max(device, host)


CAST_BYTES = 2.0
"""For each number of a product's operands that is made float8 first: 2 read and 1 written in both layouts at once (Transformer
Engine's cast with transposition), for the two products that each tensor is an operand of."""


def _in_eight_bits(op: Op, trace: Trace, pace: Speeds, setup: Setup) -> bool:
    """Whether a product is a layer's and taken in float8: the head's is not, nor is what attention multiplies."""
    if not setup.options.get("eight_bit_products") or "fp8" not in pace.peak or op.kind != "matmul":
        return False
    head = trace.meta["vocabulary"] in op.shape
    layers = op.shape[3] <= 1 or op.op == GROUPED
    return layers and op.phase != "loss" and not head and op.dtype in ("bf16", "fp16")


UNPACKED_BYTES = {"int4": 16.5, "int8": 23.0}
"""Moved for a weight kept in integers while torch's own operations make it 16 bits wide (AutoGPTQ: nn_modules/qlinear/
qlinear_cuda_old.py, forward): a shift reads the packed weight and writes 4 bytes; a cast reads 4, writes 1 (2 for int8); masking
and taking the zero off read and write that twice; the scale reads it and writes 2."""
GPTQ = ("qwen-finetune", "peft", "transformers", "trl", "llamafactory", "axolotl")
HOOK_SECONDS = 2.0e-4
"""Of DeepSpeed's ZeRO-3 around a module: fetch, wait, release, in Python; with whole weights trained, on any number of devices."""
HOOKED_MODULES = 12
"""Of a block: those that hold weights, before and after."""
HOOKED = ("qwen-finetune", "deepspeed")
"""Frameworks that use it. Each gather is waited for where it is needed, so little of it is hidden."""
GATHERED_ONCE = ("torchtitan",)
"""Frameworks whose pipelines keep gathered weights and unscattered gradients until the last microbatch (torchtitan:
models/llama3/infra/parallelize.py, `reshard_after_forward` without pipelines only)."""
OWNED = ("internevo",)
"""Frameworks whose optimizer state is split by whole tensors: each owner sends its own to all, one after another."""
OWNED_HOP = 2.3e-6
"""A rank that such a message passes through."""


MAIN_GRADIENTS = {"megatron": 6.0, "megatron-deepspeed": 10.0}
"""Framework -> bytes moved for each weight whose gradient is added to a buffer in float32: by the product itself, which writes
4 bytes and reads 4 where it would write 2 (Megatron-LM: gradient_accumulation_fusion), or after it (DeepSpeed:
runtime/bf16_optimizer.py, update_hp_grads)."""


def _unpacking(phase: str, trace: Trace, pace: Speeds, setup: Setup) -> float:
    """Seconds of a phase that go into unpacking a base of integers: each forward, also the second; the backward finds it saved."""
    each = UNPACKED_BYTES.get(setup.base, 0.0) if setup.framework in GPTQ else 0.0
    times = {"forward": 1.0, "recompute": 1.0}.get(phase, 0.0)
    return (
        each
        * times
        * trace.active_parameters
        / (setup.tensor_degree * setup.pipeline_degree)
        * setup.accumulate
        / pace.bandwidth
    )


def _accumulation(trace: Trace, pace: Speeds, setup: Setup) -> float:
    """Seconds of adding each microbatch's gradients to those before: two read, one written, by every microbatch after the first."""
    each = MAIN_GRADIENTS.get(setup.framework, 12.0 if setup.precision == "fp32" else 6.0)
    mine = trace.trainable / (setup.tensor_degree * setup.pipeline_degree)
    mine /= setup.shards if setup.strategy == "zero3" else 1
    return max(0, setup.accumulate - 1) * pace.stream(each * mine)


def _hooks(phase: str, trace: Trace, setup: Setup) -> float:
    """Seconds of the host that a framework's hooks take in a phase; the device waits where they are longer than its own work."""
    if setup.framework not in HOOKED or (setup.adapter != "full" and setup.strategy != "zero3"):
        return 0.0
    if phase not in ("forward", "recompute", "backward"):
        return 0.0
    return HOOK_SECONDS * HOOKED_MODULES * trace.layers / setup.pipeline_degree * setup.accumulate


def op_seconds(op: Op, pace: Speeds, setup: Setup, *, eight: bool = False) -> float:
    """Of one run; `eight`: its operands are made float8."""
    m, n, k, batch = op.shape
    if op.kind == "matmul" and m:
        n = max(
            1, round(op.flops / (2.0 * m * k * max(1, batch)))
        )  # a tensor-parallel rank's share has its FLOPs, not always its shape
        if batch > 1 and any(size % ALIGNED for size in op.shape[:3]) and op.dtype in ("bf16", "fp16"):
            return max(op.flops / pace.vector, pace.stream(op.bytes)) + pace.kernel
        units = "fp8" if eight else _units(op.dtype, pace)
        casts = pace.stream(CAST_BYTES * max(1, batch) * (m * k + k * n)) if eight else 0.0
        return casts + pace.matmul(m, n, k, batch=max(1, batch), precision=units, traffic=op.bytes, share=pace.steady)
    if op.kind == "matmul":
        rate = pace.rate(_units(op.dtype, pace)) * pace.steady
        return max(op.flops / rate, pace.stream(op.bytes)) + pace.kernel
    if op.kind == "attention":
        seen = 1.0 if setup.objective in NOT_CAUSAL else 0.5
        backward = "backward" in op.op
        return pace.attention(
            op.flops * seen / (FIRST_FLASH if setup.framework in FIRST else 1.0),
            op.bytes,
            queries=m or 512,
            precision=_units(op.dtype, pace),
            backward=backward,
        )
    if op.kind == "dequantize":
        return pace.elementwise(op.bytes / DEQUANTIZE_SHARE)
    if op.kind == "optimizer":
        return pace.update(op.bytes)
    if setup.compile:
        return pace.stream(op.bytes * FUSED_TRAFFIC)
    return pace.elementwise(op.bytes * (FUSED_NORMS if setup.framework in FUSING else 1.0), name=op.op, dtype=op.dtype)


def _units(dtype: str, pace: Speeds) -> str:
    """A product in bf16 on a device without such units runs as float32."""
    return dtype if dtype in pace.peak else "fp32" if "fp32" in pace.peak else next(iter(pace.peak))


def _messages(trace: Trace, fabric: Fabric, setup: Setup, lanes: dict[str, float]) -> float:
    """Seconds of messages that computing does not hide, by phase."""
    strides = {"tensor": 1, "context": setup.tensor_degree, "experts": setup.tensor_degree}
    inner = setup.tensor_degree
    strides |= {"shards": inner, "replicas": inner * max(1, setup.shards), "pipeline": inner * setup.replicas}
    hidden: dict[str, list[float]] = defaultdict(list)
    chosen = _chosen(setup) if setup.expert_degree > 1 else 1
    shown = 0.0
    for one in trace.collectives:
        if one.axis == "pipeline":  # each of a tensor-parallel group sends its part: Megatron's scatter and gather
            one = one._replace(bytes=one.bytes / setup.tensor_degree)
        if setup.framework in GATHERED_ONCE and setup.pipeline_degree > 1 and one.axis == "shards":
            one = one._replace(count=min(one.count, max(1.0, one.count / setup.accumulate)))
        if one.axis == "experts":
            one = one._replace(bytes=one.bytes * min(chosen, one.group))
        seconds = message_seconds(one, fabric, stride=strides.get(one.axis, 1))
        if setup.framework in OWNED and one.phase == "optimizer":
            seconds += one.group * one.group * OWNED_HOP
        if one.overlappable and not (setup.framework in HOOKED and setup.strategy == "zero3"):
            hidden[one.phase].append(seconds)
        else:
            shown += seconds
    for phase, several in hidden.items():
        beside = lanes.get(phase, 0.0) + (lanes.get("recompute", 0.0) if phase == "backward" else 0.0)
        waiting = exposed(beside, several, units=max(1.0, trace.layers / setup.pipeline_degree))
        shown += waiting + (CROWDING - 1) * min(sum(several), beside)
    return shown


def _chosen(setup: Setup) -> int:
    """Experts of a token: a copy of it goes to each of their devices."""
    config = config_of(setup.model)
    return int((config.get("text_config") or config).get("num_experts_per_tok") or 1)


def _offload(trace: Trace, device: Device, setup: Setup) -> float:
    """Weights and gradients over the host's link, and an optimizer that runs there."""
    if not (setup.offload or setup.offload_optimizer):
        return 0.0
    rate = next((value for kind, value in HOST_BANDWIDTH.items() if device.kind.startswith(kind)), 11e9)
    mine = trace.trainable / setup.shards
    moved = 2.0 * mine * (2 if setup.precision != "fp32" else 4)
    passes = 2.0 * setup.accumulate if setup.offload else 0.0
    whole = trace.parameters / setup.shards * (2 if setup.precision != "fp32" else 4) * passes
    together = min(setup.count, device.node_devices)
    kept = trace.checkpoint_bytes / max(1, trace.trainable)
    narrow = min(1.0, kept / STATE_BYTES) if kept else 1.0
    return (moved + whole) / rate + narrow * mine * together / HOST_UPDATES
