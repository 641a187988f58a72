"""Serving: counts against torch's own counter on real tiny models, sizes against the catalogue's, closed forms, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genwright.base.errors import ModelError, RecipeError, UnknownName
from genwright.catalogue.models import config_dict, models
from genwright.plan.dims import dims_of
from genwright.plan.formats import FORMATS, format_of, kv_bits
from genwright.plan.published.frameworks_serving import SERVING, serving_of
from genwright.plan.serving import (
    GIB,
    ServingSetup,
    decode_seconds,
    estimate_inference,
    fits,
    kv_bytes,
    max_batch,
    memory_parts,
    operations,
    prefill_seconds,
    server,
    weights_bytes,
)

LLAMA_8B = dict(
    model_type="llama", num_hidden_layers=32, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
    vocab_size=128256, tie_word_embeddings=False,
)  # fmt: skip
TINY = {
    "llama": dict(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    ),
    "qwen3": dict(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=128,
    ),
    "gpt_neox": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=128),
    "gpt2": dict(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64),
}


def setup(**changes: object) -> ServingSetup:
    return ServingSetup(**{"model": LLAMA_8B, "framework": "vllm", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TINY)
def test_counts_are_those_of_a_real_forward(kind: str) -> None:
    """FlopCounterMode on transformers' model, 2 rows of 16 tokens; it counts attention's whole square, and all rows' logits."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **TINY[kind])
    built = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built(torch.ones(2, 16, dtype=torch.long), use_cache=False)
    one = server(setup(model={"model_type": kind, **config.to_dict()}, batch=2, input_tokens=16), "a100")
    ops = {op.op: op for op in operations(one, 16, 16)}
    ours = sum(op.flops * op.count for op in ops.values() if op.kind == "matmul")
    ours += (16 - 1) * ops["head"].flops  # one row of logits a prompt is enough for us
    square = 4 * 2 * 16 * 16 * one.dims.heads * one.dims.head_width * one.dims.layers
    assert ours + square == counter.get_total_flops()
    assert ops["attention"].flops * ops["attention"].count == square / 2 * 17 / 16


@pytest.mark.parametrize("name", [name for name, card in models().items() if card.family == "decoder"])
def test_sizes_are_the_catalogues(name: str) -> None:
    """Every decoder's weights, from its config's sizes alone, to within norms, biases and tables of positions."""
    card = models()[name]
    if card.architecture["model_type"] in ("gpt_oss", "phi3", "gemma3_text"):
        tolerance = 0.02
    else:
        tolerance = 0.012
    assert dims_of(config_dict(card)).parameters == pytest.approx(card.parameters, rel=tolerance)


def test_the_cache_counts_grouped_heads() -> None:
    """Llama-3.1-8B: 2 * 32 layers * 8 heads * 128 * 2 B = 128 KiB a token (serving.md); in int8 half."""
    assert kv_bytes(server(setup(), "a100")) == 128 * 2**10
    assert kv_bytes(server(setup(kv_precision="int8"), "a100")) == 64 * 2**10


def test_decoding_reads_every_weight_once_whatever_the_batch() -> None:
    one, many = server(setup(batch=1), "a100"), server(setup(batch=64), "a100")
    read = lambda of: sum(op.bytes * op.count for op in operations(of, 1, 512) if op.kind == "matmul")
    body = weights_bytes(one) - 2 * 128256 * 4096  # the embedding's table is looked up, not read
    assert read(one) == pytest.approx(body, rel=0.01)
    assert read(many) < 1.1 * read(one)
    assert decode_seconds(many) < 64 * decode_seconds(one) / 10


def test_no_step_is_faster_than_memory_and_arithmetic_allow() -> None:
    for name, count in (("4090", 1), ("A100 80GB", 4), ("H100", 8), ("m2 ultra", 1)):
        for framework in SERVING:
            one = server(setup(framework=framework, count=count, precision="fp16"), name)
            device = one.placed.device
            assert device.memory_gb_per_second
            split = count if one.parallel in ("tensor", "zero3") else 1
            assert decode_seconds(one) >= weights_bytes(one) * 0.9 / split / (device.memory_gb_per_second * 1e9), (
                framework
            )
            flops = sum(op.flops * op.count for op in operations(one, 512, 512))
            assert prefill_seconds(one) >= 0.99 * flops / one.speeds.rate(one.compute) / count, framework


def test_layers_in_turn_do_not_decode_faster_on_more_devices_and_tensors_do() -> None:
    layers = [
        decode_seconds(server(setup(framework="llama.cpp", precision="q4_k_m", count=count), "4090"))
        for count in (1, 2, 4)
    ]
    tensors = [decode_seconds(server(setup(framework="gpt-fast", count=count), "a100")) for count in (1, 2, 4)]
    assert layers == sorted(layers) and tensors == sorted(tensors, reverse=True)


def test_experts_are_read_where_a_token_chose_them() -> None:
    mixture = {**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    one, many = (server(setup(model=mixture, batch=batch), "a100") for batch in (1, 64))
    touched = lambda of: next(op.count for op in operations(of, 1, 64) if op.op == "experts' up") / 32
    assert touched(one) == pytest.approx(2.0) and 7.9 < touched(many) <= 8.0
    assert one.dims.active_block_weights < one.dims.block_weights / 3


def test_memory_is_named_and_fits() -> None:
    """F16 is 16.06e9 bytes: on a 16 GB card it fits with a short cache, at 12 GB it does not; 70B in Q4_K_M wants two of 24 GB."""
    sixteen = server(setup(framework="llama.cpp", precision="f16", input_tokens=1, output_tokens=1024), "4080 16GB")
    assert memory_parts(sixteen)["weights"] == pytest.approx(8.03e9 * 2, rel=0.01) and fits(sixteen)
    assert not fits(server(replace(sixteen.setup), "3080 Ti 12GB"))
    big = {
        **LLAMA_8B,
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "intermediate_size": 28672,
    }
    outcomes = [
        fits(server(setup(model=big, framework="llama.cpp", precision="q4_k_m", count=count), "3090"))
        for count in (1, 2)
    ]
    assert outcomes == [False, True]


def test_the_largest_batch_is_the_last_that_fits() -> None:
    one = server(setup(input_tokens=2000, output_tokens=500), "a100")
    most = max_batch(one)
    at = lambda batch: fits(server(replace(one.setup, batch=batch), "a100"))
    assert at(most) and not at(most + max(2, most // 50))


def test_an_estimate_says_what_it_is_and_what_it_costs() -> None:
    found = estimate_inference(setup(batch=4), "h100")
    assert {
        "prefill_ms",
        "token_ms",
        "output_tokens_per_s",
        "mem_gib",
        "energy_j_per_token",
        "usd_per_1k_tokens",
    } <= set(found.quantities)
    assert all(quantity.low <= quantity.value <= quantity.high for quantity in found.quantities.values())
    assert any("data sheet" in note for note in found.notes) and any("it fits" in note for note in found.notes)
    rate, token = found.quantities["output_tokens_per_s"].value, found.quantities["token_ms"].value
    assert rate * token == pytest.approx(4000)
    assert found.breakdown["weights"] / GIB < found.quantities["mem_gib"].value
    unpriced = estimate_inference(setup(), "m1")
    assert "usd_per_1k_tokens" in unpriced.unknown


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Q4_K_M", "q4_k_m"), ("BF16", "bf16"), ("F16", "fp16"), ("8-bit", "int8"), ("4-bit (G=32)", "int4-g32"), ("bnb.nf4-dq", "nf4-double"),
        ("bnb.nf4", "nf4"), ("GPTQ g128", "gptq"), ("Int4", "int4"), ("bf16-true", "bf16"), ("bf16 + int8 KV cache", "bf16"), ("FP8", "fp8"), ("", "bf16"),
    ],
)  # fmt: skip
def test_formats_in_print(said: str, name: str) -> None:
    assert format_of(said) is FORMATS[name]


@pytest.mark.parametrize(("said", "bits"), [("q4f16_1", 4.5), ("IQ4_XS", 4.4), ("IQ2_XXS", 2.4), ("q0f16", 16)])
def test_a_format_with_two_widths_in_its_name_is_its_weights(said, bits):
    assert format_of(said).bits == bits


def test_bits_in_a_name_are_taken_at_their_word() -> None:
    assert format_of("EXL2 2.5 bpw").bits == 2.5 and kv_bits("bf16 + int8 KV cache") == 8 and kv_bits("bf16") == 16


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("vLLM-based (Splitwise paper profiles)", "vllm-eager"), ("transformers (autogptq for int)", "autogptq"), ("Nano-vLLM", "vllm"),
        ("lit-gpt generate", "litgpt"), ("gpt-fast (torch.compile)", "gpt-fast"), ("accelerate", "transformers"), ("Ollama", "llama.cpp"),
        ("TensorRT-LLM 0.9", "tensorrt-llm"), ("ds-zero", "ds-zero"),
    ],
)  # fmt: skip
def test_frameworks_in_print(said: str, name: str) -> None:
    assert serving_of(said)[0] == name


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownName, match="There is no weight format 'trits'"):
        format_of("trits")
    with pytest.raises(UnknownName, match="There is no serving framework 'abacus'"):
        serving_of("abacus")
    with pytest.raises(RecipeError, match="batch is a whole number of at least 1"):
        server(setup(batch=0), "a100")
    with pytest.raises(RecipeError, match="parallel is not one we know"):
        server(setup(parallel="diagonal"), "a100")
    with pytest.raises(ModelError, match="The config states no layers of a decoder"):
        server(setup(model={"model_type": "llama", "hidden_size": 64}), "a100")


def test_repeated_keys_are_written_and_read_for_each_head_of_a_group() -> None:
    """transformers: the cache is concatenated (read, written), repeated g times (read, written g times), read g times: 3 + 2 g."""
    from genwright.plan.serving import operations, server

    model = dict(
        model_type="llama", num_hidden_layers=1, hidden_size=2048, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, vocab_size=32000,
    )  # fmt: skip
    moved = {
        name: next(
            op.bytes
            for op in operations(server(ServingSetup(model=model, framework=name), "a100"), 1, 100_000)
            if op.kind == "attention"
        )
        for name in ("vllm", "transformers")
    }
    assert moved["transformers"] == pytest.approx(11 * moved["vllm"], rel=0.01)


def test_gptq_under_transformers_is_autogptqs_and_litgpts_head_is_packed() -> None:
    from genwright.plan.published.frameworks_serving import SERVING
    from genwright.plan.serving import server, weights_bytes

    asked = ServingSetup(model=LLAMA_LIKE, framework="transformers", precision="gptq")
    assert server(asked, "a100").framework == SERVING["autogptq"]
    packed, kept = (
        weights_bytes(server(ServingSetup(model=LLAMA_LIKE, framework=name, precision="nf4"), "a100"))
        for name in ("litgpt", "transformers")
    )
    assert kept - packed == pytest.approx(32000 * 4096 * (2 - 4.5 / 8))


LLAMA_LIKE = dict(
    model_type="llama", num_hidden_layers=2, hidden_size=4096, num_attention_heads=32, num_key_value_heads=32,
    intermediate_size=11008, vocab_size=32000, tie_word_embeddings=False,
)  # fmt: skip
