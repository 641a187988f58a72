"""What one operation of serving takes on a device, as a framework's kernels do it. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genwright.plan.traced.record import Op

if TYPE_CHECKING:
    from genwright.plan.serving import Server

FEW_ROWS = 8
"""Up to here a product is taken by threads that each read their weights once, not by matrix units."""
MEETING = 4.0
"""How sharply a prompt's longer lane hides the shorter; endless would be their maximum, as it is found where tokens are written."""
LARGE_CACHE = {"ada": 64e6, "blackwell sm12": 96e6}
"""Architecture -> bytes of the second-level cache of its usual parts, where that holds what lies between two products."""
PAST_CACHE = 0.55
"""Of what lies between products, the share that still goes to memory where two of its tensors stay in such a cache."""


def together(device: float, host: float) -> float:
    """Seconds of a prompt's two lanes: more than the longer, most where they are equal.

    Long products and short operations alternate, so now one waits, now the other, and a sum over devices for the latest host.

    >>> round(together(1.0, 0.1), 3), round(together(1.0, 1.0), 3)
    (1.0, 1.189)
    """
    return float((device**MEETING + host**MEETING) ** (1 / MEETING))


def op_seconds(one: Server, op: Op) -> float:
    """Of one run on one device."""
    speeds, framework = one.speeds, one.framework
    m, n, k, _ = op.shape
    if op.kind == "elementwise":
        return max(speeds.elementwise(op.bytes * _past_cache(one, m)), _threads(one, op.bytes))
    if op.kind == "attention":
        if m == 1:
            return max(speeds.stream(op.bytes), op.flops / speeds.vector) + speeds.kernel
        return speeds.attention(op.flops, op.bytes, queries=m, precision=op.dtype)
    if m <= FEW_ROWS:
        return max(_unpacked(one, op), op.flops / speeds.vector) + speeds.kernel
    product = speeds.matmul(m, n, k, precision=op.dtype, traffic=op.bytes, share=speeds.steady)
    if (
        framework.unpacks and one.weights.bits < 16
    ):  # read as they are kept, written in 16 bits; the product reads those
        moved = (one.weights.bits / 8 + 2.0) * n * k
        return product + max(speeds.stream(moved), _threads(one, moved))
    return max(product, _unpacked(one, op) if m <= 64 else 0.0)


def _past_cache(one: Server, tokens: int) -> float:
    """Share of the traffic between products that memory sees."""
    kind = one.placed.device.kind
    size = next((size for name, size in LARGE_CACHE.items() if kind.startswith(name)), 0.0)
    return PAST_CACHE if 2 * one.framework.activation_bytes * tokens * one.dims.inner / one.split < size else 1.0


def _unpacked(one: Server, op: Op) -> float:
    """Reading weights as fast as this framework's kernels do."""
    seconds = one.speeds.stream(op.bytes / one.framework.share.get(one.weights.kernel, 1.0))
    return max(seconds, _threads(one, op.bytes))


def _threads(one: Server, moved: float) -> float:
    """Seconds that a framework's own kernels take to move so many bytes, by what their threads get done in a clock."""
    limit = one.framework.bytes_per_clock * one.speeds.multiprocessors * one.speeds.clock
    return moved / limit if limit else 0.0
