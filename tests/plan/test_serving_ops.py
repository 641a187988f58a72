"""What a prompt costs beside its products: two lanes that meet, weights unpacked, a cache that holds what lies between."""

from __future__ import annotations

import math

import pytest

from genwright.plan.published.row_serving import serving_row
from genwright.plan.published.rows import predict
from genwright.plan.serving import Server, ServingSetup, decode_seconds, operations, prefill_seconds, server
from genwright.plan.serving_ops import PAST_CACHE, op_seconds, together

LLAMA_8B = dict(
    model_type="llama", num_hidden_layers=32, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
    vocab_size=128256, tie_word_embeddings=False,
)  # fmt: skip


def served(device: str, **asked: object) -> Server:
    return server(ServingSetup(**{"model": LLAMA_8B, "framework": "llama.cpp", "input_tokens": 512, **asked}), device)  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "host"), [(1.0, 1.0), (3.0, 1.0), (0.0, 2.0), (0.4, 0.5)])
def test_two_lanes_take_more_than_the_longer_and_less_than_both(device: float, host: float) -> None:
    assert max(device, host) <= together(device, host) <= device + host
    assert together(host, device) == together(device, host)


def test_a_prompt_on_few_bits_pays_for_unpacking_once() -> None:
    """By hand: each of 7.0e9 weights of the blocks is read at 4.83 bits and written at 16, at the stream's rate of a 4090;
    an A100's threads get less done in a clock, so there it takes longer than its memory would.
    """
    weights = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336)
    moved = weights * (4.83 / 8 + 2)
    for device, slower in (("rtx-4090", False), ("a100", True)):
        few, dense = served(device, precision="q4_k_m"), served(device, precision="fp16")
        more = prefill_seconds(few) - prefill_seconds(dense)
        streamed = moved / few.speeds.bandwidth
        assert more == pytest.approx(streamed, rel=0.05) if not slower else more > 1.2 * streamed


def test_a_large_cache_keeps_small_tensors_between_products() -> None:
    def between(tokens: int, device: str) -> float:
        one = served(device, precision="fp16", framework="vllm")
        op = next(op for op in operations(one, tokens, tokens) if op.kind == "elementwise")
        return op_seconds(one, op) / op.bytes * one.speeds.bandwidth

    assert between(1024, "rtx-4090") < 1.15 * PAST_CACHE + 0.1
    assert between(2048, "rtx-4090") > 0.99
    assert between(1024, "a100") > 0.99


def test_zero_serves_rows_of_its_own_on_each_device() -> None:
    """A published time a token is over all devices' tokens, so one of eight devices' step counts an eighth."""
    row = {
        "id": "a", "model": "bigscience/bloom-176b", "framework": "ds-zero", "precision": "bf16", "device": "A100-80GB", "n_devices": "8",
        "parallel": "ZeRO-3", "batch_size": "2", "input_tokens": "8", "output_tokens": "100",
    }  # fmt: skip
    asked, found = serving_row(row), next(predict([row]))
    assert asked.streams == 8 and "8 devices answer 2 rows each" in found["notes"]
    step = decode_seconds(server(asked.setup, asked.placed))
    assert math.isclose(found["token_ms"], step * 1e3 / 8)
    assert math.isclose(found["output_tokens_per_s"], 16 / step)
    assert serving_row({**row, "parallel": "TP", "framework": "ds-inference"}).streams == 1
