"""What serving a model needs and takes: memory, time to the first token, time of each further one, energy. No torch here.

    prefill   products on all the prompt's tokens, causal attention among them, one row of logits
    decode    every weight read once for the whole batch, each row's cache read once, one token written

A step is priced operation by operation with the device's `Speeds`; between operations stand the framework's gaps, or the
host's own time where that is longer (`frameworks_serving`). Over several devices products are split ("tensor"), or layers
("layers": one device works while the others wait, except on the pieces of a long prompt).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from genwright.base.errors import RecipeError
from genwright.catalogue.device_names import Placed, place
from genwright.plan.dims import Dims, dims_of
from genwright.plan.estimate import Estimate, Range, around
from genwright.plan.formats import Format, format_of, kv_bits
from genwright.plan.priced.collectives import HOP_SECONDS, LINK_SHARE
from genwright.plan.priced.speeds import Speeds, speeds_of
from genwright.plan.published.frameworks_serving import Serving, host_factor, serving_of
from genwright.plan.serving_ops import FEW_ROWS, op_seconds, together
from genwright.plan.traced.record import Op

GIB = 2**30
TIME_BELOW, TIME_ABOVE = 0.20, 0.30
"""How far a datasheet's time may be from the run's."""
MEMORY_BELOW, MEMORY_ABOVE = 0.03, 0.08
DEFAULT_SEED = 512
"""Tokens of a prompt where none are stated."""
PARALLELS = ("", "tensor", "layers", "zero3")


@dataclass(frozen=True, kw_only=True)
class ServingSetup:
    """One way to serve one model."""

    model: str | dict[str, Any]
    """A catalogue name, or the config itself."""
    precision: str = "bf16"
    """Of the weights, as `formats.format_of` reads it."""
    kv_precision: str = ""
    """Of the cache, "int8", "fp8"; empty: 16 bits."""
    framework: str = "vllm"
    """As `frameworks_serving.serving_of` reads it."""
    batch: int = 1
    """Rows that are answered together."""
    input_tokens: int = DEFAULT_SEED
    """Of each prompt."""
    output_tokens: int = 128
    """Of each answer."""
    count: int = 1
    """Devices."""
    parallel: str = ""
    """A name of PARALLELS; empty: the framework's own."""

    def check(self) -> ServingSetup:
        """Itself. Errors: RecipeError naming what would work."""
        for name in ("batch", "input_tokens", "output_tokens", "count"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{name} is a whole number of at least 1.",
                    wanted="1 or more",
                    found=str(getattr(self, name)),
                    do="raise it to 1",
                )
        if self.parallel not in PARALLELS:
            raise RecipeError(
                "parallel is not one we know.", wanted=", ".join(PARALLELS[1:]), found=self.parallel, do="choose one"
            )
        return self


@dataclass(frozen=True)
class Server:
    """A setup with everything it names looked up."""

    setup: ServingSetup
    dims: Dims
    weights: Format
    framework: Serving
    placed: Placed

    @cached_property
    def speeds(self) -> Speeds:
        """Of the device, as this framework uses it."""
        return speeds_of(self.placed, accumulate_16=self.framework.accumulate_16)

    @property
    def parallel(self) -> str:
        """How several devices share the work; empty on one."""
        return "" if self.setup.count == 1 else self.setup.parallel or self.framework.parallel

    @property
    def split(self) -> int:
        """Devices that share each product."""
        return self.setup.count if self.parallel == "tensor" else 1

    @property
    def compute(self) -> str:
        """Precision of products that the device has units for: no bf16 before Ampere, then fp16, then fp32."""
        return next((name for name in (self.weights.compute, "fp16", "fp32") if name in self.speeds.peak), "fp32")


def server(setup: ServingSetup, device: str | Placed) -> Server:
    """Look everything up. Errors: UnknownName, ModelError, RecipeError."""
    placed = place(device) if isinstance(device, str) else device
    name, framework = serving_of(setup.framework)
    if name == "llama.cpp" and placed.device.vendor == "Apple":
        framework = serving_of("llama.cpp-metal")[1]
    weights = format_of(setup.precision)
    if name == "autogptq" and weights.kernel == "16":  # nothing to unpack: plain transformers
        framework = serving_of("transformers")[1]
    if name == "transformers" and weights.kernel.startswith("gptq"):  # its quantizer for them
        framework = serving_of("autogptq")[1]
    return Server(setup.check(), dims_of(_config(setup.model)), weights, framework, placed)


def estimate_inference(setup: ServingSetup, device: str | Placed, *, usd_per_hour: float | None = None) -> Estimate:
    """prefill_ms, token_ms, output_tokens_per_s, mem_gib, energy_j_per_token; also device_gib, usd_per_1k_tokens, max_batch.

    `token_ms` is of one step, whatever the batch, at the middle of the answer; `output_tokens_per_s` is of the whole batch
    and of decoding alone; `mem_gib` is of one device.
    """
    from genwright.plan.priced.energy import serving_joules

    one = server(setup, device)
    prefill, token = prefill_seconds(one), decode_seconds(one)
    parts = memory_parts(one)
    active = sum(value for name, value in parts.items() if name != "context")
    joules = serving_joules(one, prefill, token)
    price = usd_per_hour if usd_per_hour is not None else one.placed.device.usd_per_hour
    known = {
        "prefill_ms": around(prefill * 1e3, TIME_BELOW, TIME_ABOVE),
        "token_ms": around(token * 1e3, TIME_BELOW, TIME_ABOVE),
        "output_tokens_per_s": _inverse(around(token, TIME_BELOW, TIME_ABOVE), setup.batch),
        "mem_gib": around(active / GIB, MEMORY_BELOW, MEMORY_ABOVE),
        "device_gib": around((active + parts["context"]) / GIB, MEMORY_BELOW, MEMORY_ABOVE),
        "max_batch": around(float(max_batch(one)), 0.1, 0.1),
    }
    unknown = {}
    if joules is None:
        unknown["energy_j_per_token"] = f"the power of {one.placed.device.title} is not known"
    else:
        known["energy_j_per_token"] = around(joules, 0.25, 0.25)
    if price is None:
        unknown["usd_per_1k_tokens"] = f"the catalogue has no price of {one.placed.device.title}"
    else:
        seconds = (prefill / setup.output_tokens + token) / setup.batch * setup.count
        known["usd_per_1k_tokens"] = around(1000 * seconds * price / 3600, TIME_BELOW, TIME_ABOVE)
    return Estimate(
        known, {name: float(value) for name, value in parts.items()}, unknown, _notes(one, active + parts["context"])
    )


def fits(one: Server) -> bool:
    """Whether the device holds it, context and all."""
    return sum(memory_parts(one).values()) <= capacity_bytes(one.placed)


def prefill_seconds(one: Server) -> float:
    """From the prompts' arrival to the first token of all of them."""
    setup, chunk = one.setup, one.framework.chunk or one.setup.input_tokens
    pieces = max(1, math.ceil(setup.input_tokens / chunk))
    seconds = 0.0
    for piece in range(pieces):
        tokens = min(chunk, setup.input_tokens - piece * chunk)
        seconds += step_seconds(one, tokens, piece * chunk + tokens)
    if one.parallel == "layers" and pieces > 1:  # pieces follow each other through the devices
        seconds *= (setup.count + pieces - 1) / (setup.count * pieces)
    return seconds


def decode_seconds(one: Server) -> float:
    """Of one step that writes one token of every row, at the middle of the answers."""
    return step_seconds(one, 1, one.setup.input_tokens + one.setup.output_tokens // 2)


def step_seconds(one: Server, tokens: int, context: int) -> float:
    """Of one step over `tokens` new tokens of each row that see `context`: the device's time, or the host's where longer."""
    framework, dims, rows = one.framework, one.dims, one.setup.batch
    device = sum(op_seconds(one, op) * op.count for op in operations(one, tokens, context))
    device += dims.layers * framework.kernels * framework.gap + _between_devices(one, tokens * rows)
    factor = host_factor(one.placed.device.kind)
    products = 7 if dims.gated else 4
    host = dims.layers * (
        framework.host_layer * (1.25 if dims.bias else 1.0)
        + products * framework.host_product.get(one.weights.kernel, 0.0)
    )
    host *= framework.host_prefill if tokens > 1 else 1.0
    both = together(device, host * factor) if tokens > 1 else max(device, host * factor)
    return both + (framework.host_step + framework.host_row * rows) * factor


def operations(one: Server, tokens: int, context: int) -> Iterator[Op]:
    """One device's share of a step: what it multiplies, reads and writes. Bytes of weights are as they are kept."""
    dims, rows, split = one.dims, one.setup.batch, one.split
    m, each = tokens * rows, one.weights.bits / 8
    phase = "prefill" if tokens > 1 else "decode"
    blocks = float(dims.layers)
    queries, keys = dims.heads * dims.head_width // split, max(1, dims.kv_heads // split) * dims.head_width
    kept = one.framework.activation_bytes
    product = lambda name, n, k, count, m=m, each=each: Op(
        name, "matmul", one.compute, 2.0 * m * n * k, each * n * k + kept * m * (n + k), count, phase, (m, n, k, 1)
    )  # fmt: skip
    yield product("queries, keys, values", queries + 2 * keys, dims.width, blocks)
    yield _attention(one, tokens, context, queries, keys, phase)
    yield product("output", dims.width, queries, blocks)
    inner = dims.inner // split
    if dims.experts:
        drawn = m * dims.chosen
        touched = dims.experts * (1 - (1 - dims.chosen / dims.experts) ** m)
        mean = max(1, round(drawn / touched))
        yield product("experts' up", (2 if dims.gated else 1) * inner, dims.width, blocks * touched, m=mean)
        yield product("experts' down", dims.width, inner, blocks * touched, m=mean)
        if dims.shared_inner:
            yield product("shared up", (2 if dims.gated else 1) * dims.shared_inner // split, dims.width, blocks)
            yield product("shared down", dims.width, dims.shared_inner // split, blocks)
    else:
        yield product("up", (2 if dims.gated else 1) * inner, dims.width, blocks)
        yield product("down", dims.width, inner, blocks)
    moved = kept * m * (one.framework.passes * dims.width + 3 * inner)
    yield Op("norms, residuals, activations", "elementwise", one.compute, moved, moved, blocks, phase, (m, 0, 0, 1))
    yield product("head", dims.vocabulary // split, dims.width, 1.0, m=rows, each=one.weights.tables / 8)


def _attention(one: Server, tokens: int, context: int, queries: int, keys: int, phase: str) -> Op:
    """Scores and sums: the cache is read once for each row; a prompt's own pairs are half a square."""
    dims, rows = one.dims, one.setup.batch
    seen = min(context, dims.window) if dims.window else context
    pairs = tokens * (seen - tokens / 2 + 0.5) if tokens > 1 else seen
    cache = 2.0 * rows * seen * keys * kv_bits(one.setup.kv_precision + " kv" if one.setup.kv_precision else "") / 8
    moved = cache * _copies(one) + 4.0 * rows * tokens * queries
    if not one.framework.flash and tokens > 1:  # scores in float32: written, masked, made to probabilities, read
        moved += 4.0 * 5 * rows * (queries / dims.head_width) * tokens * seen
    return Op(
        "attention",
        "attention",
        one.compute,
        4.0 * rows * pairs * queries,
        moved,
        float(dims.layers),
        phase,
        (tokens, context, dims.head_width, rows),
    )


def _copies(one: Server) -> float:
    """How often the cache is read and written in a step: once; where it is concatenated twice more, and where it is repeated for
    g query heads, g times to write and g to read.
    """
    if not one.framework.expands:
        return 1.0
    group = one.dims.heads / one.dims.kv_heads
    return 3.0 + (2 * group if group > 1 else 0.0)


def _between_devices(one: Server, tokens: int) -> float:
    """Two sums a block under tensor parallelism; a hop between layers; or every weight gathered."""
    count, device, dims = one.setup.count, one.placed.device, one.dims
    link = (device.link_gb_per_second or 16.0) * 1e9 * LINK_SHARE
    size = 2.0 * tokens * dims.width
    if one.parallel == "tensor":
        ring = 2 * (count - 1) * (size / count / link + HOP_SECONDS)
        return 2 * dims.layers * (ring if tokens > FEW_ROWS else max(one.framework.reduce_seconds, size / link))
    if one.parallel == "layers":
        return (count - 1) * (one.framework.hop_seconds + 2 * size / link)
    if one.parallel == "zero3":
        return dims.layers * dims.block_weights * one.weights.bits / 8 * (count - 1) / count / (link * 0.6)
    return 0.0


def weights_bytes(one: Server) -> float:
    """Of the whole model as it is kept."""
    dims, tables = one.dims, one.weights.tables / 8
    linear = dims.layers * dims.block_weights * one.weights.bits / 8
    few = dims.embedding_weights if one.framework.quantizes_head and not dims.tied else 0
    return linear + few * one.weights.bits / 8 + (dims.parameters - dims.layers * dims.block_weights - few) * tables


def kv_bytes(one: Server) -> float:
    """Of one token in the cache, over all devices."""
    bits = kv_bits(one.setup.kv_precision + " kv") if one.setup.kv_precision else 16.0
    return one.dims.kv_bytes(bits / 8)


def memory_parts(one: Server) -> dict[str, float]:
    """Bytes of one device: weights, cache, working memory, logits, context."""
    setup, dims, devices = one.setup, one.dims, one.setup.count
    tokens = setup.batch * (setup.input_tokens + setup.output_tokens)
    at_once = setup.batch * min(setup.input_tokens, one.framework.chunk or setup.input_tokens)
    copies = one.framework.head_copies * 2.0 * dims.embedding_weights if one.weights.bits < 16 else 0.0
    working = (
        copies / devices + at_once * (4 * dims.width + 2 * dims.inner / one.split) * one.framework.activation_bytes
    )
    return {
        "weights": weights_bytes(one) / devices,
        "cache": kv_bytes(one) * tokens * one.framework.kv_copies / devices,
        "working memory": working,
        "logits": 4.0 * setup.batch * dims.vocabulary,
        "context": one.framework.context_bytes + (0.5 * GIB if one.parallel == "tensor" else 0.0),
    }


def max_batch(one: Server) -> int:
    """Rows that fit at these lengths; 0 where not one does."""
    single = replace(one, setup=replace(one.setup, batch=1))
    parts = memory_parts(single)
    fixed = parts["weights"] + parts["context"]
    free = capacity_bytes(one.placed) - fixed
    return max(0, int(free // (sum(parts.values()) - fixed)))


def capacity_bytes(placed: Placed) -> float:
    """What a program may take: vendors' GB are 2^30 bytes on a board, less what the driver and error correction keep;
    Apple's system lets the GPU have two thirds, from 36 GB three quarters.
    """
    size = (placed.device.memory_gb or 0.0) * GIB
    if placed.device.vendor == "Apple":
        return size * (0.75 if (placed.device.memory_gb or 0) >= 36 else 0.67)
    return size * 0.985


def _config(model: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(model, dict):
        return model
    from genwright.catalogue.models import config_dict
    from genwright.catalogue.models import model as card

    return config_dict(card(model))


def _inverse(seconds: Range, batch: int) -> Range:
    return Range(batch / seconds.value, batch / seconds.high, batch / seconds.low)


def _notes(one: Server, device_bytes: float) -> tuple[str, ...]:
    room = capacity_bytes(one.placed)
    fit = "it fits" if device_bytes <= room else "it does not fit"
    return (
        f"time is computed from the data sheet of {one.placed.device.title}, not measured",
        f"{fit}: {device_bytes / GIB:.1f} of {room / GIB:.1f} GiB on each device",
    )
