"""Attention per document: plain matrix products against torch's fused kernel, forward and backward, in turn.

    python benchmarks/attention.py --out benchmarks/results/attention.json

2,048 tokens of SmolLM2's shape (9 heads over 3, width 64) as documents of equal length. A figure is the least of the
repeats, in milliseconds; the ratio is fused over products.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.models.attention import _attend
from machine import write_result

TOKENS, HEADS, SHARED, WIDTH = 2048, 9, 3, 64


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
    )


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length = q.shape[1]
    return _attend(q, k, v, torch.ones(length, length, dtype=torch.bool).tril(), WIDTH**-0.5, None)


def milliseconds(attend: object, inputs: list[Tensor], repeats: int) -> dict[str, float]:
    forward, backward = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        out = attend(*inputs)  # type: ignore[operator]
        forward.append(time.perf_counter() - began)
        began = time.perf_counter()
        out.sum().backward()
        backward.append(time.perf_counter() - began)
    return {"forward": 1e3 * min(forward), "backward": 1e3 * min(backward)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for length in (64, 128, 512, 1024, 2048):
        for dtype in (torch.bfloat16, torch.float32):
            shapes = [(TOKENS // length, length, heads, WIDTH) for heads in (HEADS, HEADS // SHARED, HEADS // SHARED)]
            inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
            times = {
                name: milliseconds(call, inputs, arguments.repeats)
                for name, call in (("fused", fused), ("products", products))
            }
            ratio = sum(times["fused"].values()) / sum(times["products"].values())
            rows.append({"length": length, "dtype": str(dtype)[6:], **times, "ratio": ratio})
            print(
                f"{length:5d} {rows[-1]['dtype']:9s} fused {times['fused']} products {times['products']} ratio {ratio:.2f}"
            )
    if arguments.out:
        write_result(arguments.out, rows=rows)


if __name__ == "__main__":
    main()
