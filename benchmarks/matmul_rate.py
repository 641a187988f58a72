"""The machine's bf16 matmul rate, now: the denominator of `floor_share`.

    python benchmarks/matmul_rate.py [--tokens 640] [--seconds 3] [--model FOLDER]

Two kinds of shapes: the model's own (tokens x inputs times inputs x outputs of each kind of linear layer) and large
squares. Both are reported; the best of all is the rate. A machine that is shared changes from minute to minute, so
whoever divides by this measures it beside the run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

SQUARES = (1024, 2048, 4096)
SHAPE_TOKENS = (512, 1024, 2048)


def shapes_of(config: dict[str, Any], tokens: int) -> list[tuple[int, int, int]]:
    """(tokens, inputs, outputs) of each kind of linear layer in a Llama-like decoder, also at usual token counts."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = width // heads * config.get("num_key_value_heads", heads)
    kinds = [(width, width), (width, keys), (width, inner), (inner, width)]
    return [(rows, *kind) for rows in sorted({tokens, *SHAPE_TOKENS}) for kind in kinds]


def rate(shape: tuple[int, int, int], seconds: float, dtype: torch.dtype) -> float:
    """Best FLOP/s of y = x W^T over `seconds`, in bursts of at least 5 ms: the best burst is the least disturbed."""
    rows, inputs, outputs = shape
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    linear(x, weight)
    burst, best, end = 1, 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(burst):
            linear(x, weight)
        took = time.perf_counter() - began
        if took < 0.005:
            burst *= 2
            continue
        best = max(best, 2.0 * rows * inputs * outputs * burst / took)
    return best


@torch.no_grad()
def measure(config: dict[str, Any] | None, *, tokens: int, seconds: float, dtype: torch.dtype) -> dict[str, Any]:
    """FLOP/s by shape, the best of the model's own shapes, the best of the squares, and the best of all."""
    own = shapes_of(config, tokens) if config else []
    squares = [(side, side, side) for side in SQUARES]
    each = seconds / (len(own) + len(squares))
    rates = {shape: rate(shape, each, dtype) for shape in own + squares}
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "model_shapes_flops_per_second": max((rates[shape] for shape in own), default=0.0),
        "squares_flops_per_second": max(rates[shape] for shape in squares),
        "flops_per_second": max(rates.values()),
        "by_shape": {"x".join(map(str, shape)): value for shape, value in rates.items()},
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder whose config.json names the model's own shapes")
    parser.add_argument("--tokens", type=int, default=640, help="tokens of one optimiser step")
    parser.add_argument("--seconds", type=float, default=3.0, help="for all shapes together")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    chosen = parser.parse_args()
    dtype = getattr(torch, chosen.dtype)
    config = json.loads((chosen.model / "config.json").read_text()) if chosen.model else None
    print(json.dumps(measure(config, tokens=chosen.tokens, seconds=chosen.seconds, dtype=dtype)))


if __name__ == "__main__":
    main()
