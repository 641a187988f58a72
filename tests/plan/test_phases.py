"""Peaks beside the step, against real tensors and closed forms; what strategies and objectives add to the step itself."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig

from genwright.catalogue.devices import device
from genwright.models.load import build_model
from genwright.plan.architectures import config_of
from genwright.plan.estimate import Range
from genwright.plan.here.tracker import Tracker
from genwright.plan.priced.allocator import live_peak
from genwright.plan.priced.phases import chance, chance_of_lengths
from genwright.plan.published.frameworks import filled
from genwright.plan.traced.compose import compose
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.trace_setup import trace_pieces
from genwright.plan.training import estimate_training, trace_training

LLAMA = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}


def setup(**changes) -> Setup:
    usual = {"model": LLAMA, "framework": "transformers", "precision": "fp32", "seq_len": 64, "micro_batch": 2}
    return Setup(**usual | changes)


def peak(one: Setup, part: str = "") -> int:
    one, profile, _ = filled(one)
    total, parts, _, _ = live_peak(compose(trace_pieces(one, profile, config_of(one.model)), one, profile).allocations)
    return parts.get(part, 0) if part else total


def test_a_forward_without_gradients_takes_what_it_takes_on_real_tensors():
    one, profile, _ = filled(setup())
    model = build_model(AutoConfig.for_model(**LLAMA), torch.float32, "sdpa").eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    ids = torch.zeros(2, 64, dtype=torch.long)
    known = [*model.parameters(), *model.buffers()]
    with torch.no_grad(), Tracker() as tracker:
        tracker.track(known, "weights")
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden).float()
        F.cross_entropy(logits[:, :-1].contiguous().flatten(0, 1), ids[:, 1:].flatten())
    pieces = trace_pieces(one, profile, LLAMA)
    assert max(pieces.layer_peak, pieces.head_peak) == pytest.approx(
        tracker.peak.total - sum(tensor.untyped_storage().nbytes() for tensor in known), rel=0.03
    )


def test_the_cache_is_two_tensors_a_layer_of_the_key_heads():
    one, profile, _ = filled(setup())
    assert trace_pieces(one, profile, LLAMA).cache_bytes == 2 * 6 * 2 * 16 * 4


def test_a_reference_model_is_one_more_copy_and_none_beside_an_adapter():
    """Ours asks the reference of DPO once, before training; that of a policy's own answers must stay."""
    parameters = trace_training(setup(objective="grpo"))[0].parameters
    assert peak(setup(objective="grpo"), "reference model") == 4 * parameters
    assert peak(setup(objective="dpo"), "reference model") == 4 * parameters
    assert [peak(setup(objective=name, framework="genwright"), "reference model") for name in ("dpo", "kto")] == [0, 0]
    assert peak(setup(objective="grpo", adapter="lora"), "reference model") == 0
    split = setup(objective="grpo", strategy="zero3", count=4)
    assert peak(split, "reference model") == pytest.approx(parameters, rel=0.01)


def test_experts_over_devices_divide_their_weights_alone():
    whole, halves = (
        peak(
            setup(
                model=MIXTRAL,
                precision="bf16-true",
                strategy="ddp",
                count=4,
                expert_degree=degree,
                framework="genwright",
            ),
            "weights",
        )
        for degree in (1, 2)
    )
    experts = 6 * 4 * 3 * 64 * 176 * 2
    assert whole - halves == pytest.approx(experts / 2, rel=0.01)


def test_a_pipelines_first_stage_keeps_a_microbatch_for_each_later_one():
    """With full recomputing each kept microbatch is its layers' inputs: 2 x 64 x 64 float32 for each of three layers but the first,
    whose input is the embedding's.
    """
    piped = {"strategy": "ddp", "count": 4, "pipeline_degree": 2, "recompute": "full", "framework": "genwright"}
    one, two = (peak(setup(seq_len=512, accumulate=number, **piped)) for number in (1, 2))
    assert two - one >= 2 * 2 * 512 * 64 * 4
    assert peak(setup(seq_len=512, accumulate=8, **piped)) == two  # two stages: never more than two


def test_the_longest_row_alone_is_less_than_the_longest_row_always():
    lora = {
        "framework": "litgpt",
        "precision": "bf16-true",
        "adapter": "lora",
        "strategy": "zero3",
        "count": 2,
        "accumulate": 4,
    }
    first = trace_training(setup(seq_len=512, options={"longest_first": True}, **lora))[0]
    always = trace_training(setup(seq_len=512, **lora))[0]
    assert live_peak(first.allocations)[0] < live_peak(always.allocations)[0]
    assert any("longest row comes first" in note for note in first.notes)


def test_lengths_give_a_peak_each_and_a_chance():
    estimate = estimate_training(setup(seq_len=512, lengths=(64, 256, 512), recompute="none"), device("a100-80gb"))
    short, usual, longest = (
        estimate.quantities[name].value for name in ("active_p50_bytes", "active_p95_bytes", "active_peak_bytes")
    )
    assert short < usual < longest
    assert estimate.facts["fit_probability_p95"] == 1.0


def test_a_chance_is_the_share_of_the_range_that_fits():
    assert chance(high=10, low=0, limit=5) == 0.5
    assert (chance(high=10, low=8, limit=5), chance(high=4, low=2, limit=5)) == (0.05, 1.0)
    assert chance_of_lengths({}, Range(0, 0, 0), 5) == {}


@pytest.mark.parametrize(("adapter", "trainable"), [("llama-adapter", 1_229_760), ("llama-adapter-v2", 4_279_744)])
def test_llama_adapters_train_as_many_weights_as_lit_gpt_prints(adapter, trainable):
    """Lightning-AI/lit-gpt: what finetune/adapter.py and adapter_v2.py print of Llama-2-7B."""
    trace, *_ = trace_training(
        Setup(model="llama-2-7b", adapter=adapter, framework="litgpt", seq_len=64, precision="bf16-true")
    )
    assert trace.trainable == trainable
