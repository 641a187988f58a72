"""How weights are kept when they are served: bits of each weight, of the tables, and what a product on them costs. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from genwright.base.registry import unknown_name


@dataclass(frozen=True)
class Format:
    """One way to keep weights."""

    name: str
    """As a command names it."""
    bits: float
    """Of a weight of a linear layer, with its share of scales."""
    tables: float = 16
    """Bits of a weight of embedding and head."""
    kernel: str = "16"
    """Which kernels multiply by it: a key of a framework's tables."""
    compute: str = "bf16"
    """What products are taken in."""


FORMATS = {
    "fp32": Format("fp32", 32, 32, "32", "fp32"),
    "bf16": Format("bf16", 16),
    "fp16": Format("fp16", 16, 16, "16", "fp16"),
    "fp8": Format("fp8", 8, 16, "8", "fp8"),
    "int8": Format("int8", 8, 16, "8"),
    "int8-bnb": Format("int8-bnb", 8, 16, "bnb-int8", "fp16"),
    "int8-gptq": Format("int8-gptq", 8.25, 16, "gptq8", "fp16"),
    "int4": Format("int4", 4.5, 16, "4"),
    "int4-g32": Format("int4-g32", 5.0, 16, "4"),
    "gptq": Format("gptq", 4.15, 16, "gptq", "fp16"),
    "awq": Format("awq", 4.25, 16, "gptq", "fp16"),
    "nf4": Format("nf4", 4.5, 16, "nf4"),
    "nf4-double": Format("nf4-double", 4.127, 16, "nf4-double"),
    "q8_0": Format("q8_0", 8.5, 8.5, "k", "fp16"),
    "q6_k": Format("q6_k", 6.56, 6.56, "k", "fp16"),
    "q5_k_m": Format("q5_k_m", 5.65, 6.1, "k", "fp16"),
    "q4_k_m": Format("q4_k_m", 4.83, 5.5, "k", "fp16"),
    "q4_0": Format("q4_0", 4.5, 5.5, "k", "fp16"),
    "q3_k_m": Format("q3_k_m", 3.9, 5.5, "k", "fp16"),
    "q2_k": Format("q2_k", 3.0, 5.5, "k", "fp16"),
}
"""GGUF's bits are of whole files of 7-70B models (llama.cpp: examples/quantize); nf4's of blocks of 64 with float32 or
doubly quantised scales (Dettmers 2023, arXiv 2305.14314)."""

IQ_BITS = {"1": 1.75, "2": 2.4, "3": 3.3, "4": 4.4}
"""Of a weight in llama.cpp's IQ1 to IQ4 (examples/quantize); MLC's q4f16 are 4 bits and a scale of 16 for each 32."""
SAID: tuple[tuple[str, str], ...] = (
    (r"^(fp32|float32|32-bit)", "fp32"),
    (r"q8_0", "q8_0"),
    (r"q6_k", "q6_k"),
    (r"q5_k", "q5_k_m"),
    (r"q4_k", "q4_k_m"),
    (r"q4_[01]|4-bit gguf", "q4_0"),
    (r"q3_k", "q3_k_m"),
    (r"q2_k", "q2_k"),
    (r"nf4.?(dq|double)|nf4-dq", "nf4-double"),
    (r"nf4|fp4", "nf4"),
    (r"llm\.?int8|bnb.?int8|bnb.?8", "int8-bnb"),
    (r"gptq.?(int)?8|int8.?gptq", "int8-gptq"),
    (r"gptq", "gptq"),
    (r"awq", "awq"),
    (r"fp8|float8|e4m3", "fp8"),
    (r"g=?32", "int4-g32"),
    (r"int8|8-?bits?|w8", "int8"),
    (r"int4|4-?bits?|w4", "int4"),
    (r"bf16|bfloat16", "bf16"),
    (r"fp16|f16|float16|half|16-bit", "fp16"),
)
"""What papers write -> our name; the first that matches."""


def format_of(said: str) -> Format:
    """ "Q4_K_M", "8-bit", "EXL2 4.0 bpw", "bnb.nf4-dq", "BF16" -> its Format. Errors: UnknownName with the nearest.

    >>> format_of("EXL2 2.5 bpw").bits
    2.5
    """
    text = said.casefold().split("+")[0].strip() or "bf16"
    if text in FORMATS:
        return FORMATS[text]
    if match := re.search(r"(\d+(?:\.\d+)?)\s*bpw", text):
        return Format(text, float(match[1]), 6.0, "gptq", "fp16")
    if match := re.search(r"\biq([1-4])_", text):
        return Format(text, IQ_BITS[match[1]], 5.5, "k", "fp16")
    if match := re.search(r"\bq([348])f(?:16|32)", text):
        return Format(text, float(match[1]) + 0.5, 16, "4", "fp16")
    for pattern, name in SAID:
        if re.search(pattern, text):
            return FORMATS[name]
    raise unknown_name("weight format", said, list(FORMATS))


def kv_bits(said: str, default: float = 16) -> float:
    """Of a number in the cache: "bf16 + int8 KV cache" -> 8."""
    match = re.search(r"(int8|fp8|int4|8|4)[\w -]*kv", said.casefold())
    if not match:
        return default
    return 4.0 if "4" in match[1] else 8.0
