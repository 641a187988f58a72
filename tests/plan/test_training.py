"""A training's memory against a step on real tensors, its whole against its parts, and what each strategy must divide."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig

from genwright.base.errors import ModelError, RecipeError, UnknownName
from genwright.catalogue.devices import device
from genwright.models.load import build_model
from genwright.plan.architectures import config_of
from genwright.plan.estimate import Range
from genwright.plan.here.tracker import Tracker
from genwright.plan.priced.allocator import Allocator, live_peak
from genwright.plan.published.frameworks import FRAMEWORKS, filled, profile_of
from genwright.plan.traced.compose import compose
from genwright.plan.traced.pieces import Pieces
from genwright.plan.traced.record import Trace
from genwright.plan.traced.setup import Setup
from genwright.plan.traced.trace_setup import trace_pieces
from genwright.plan.training import estimate_training, memory_of, trace_training

LLAMA = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 5, "num_decoder_layers": 6, "num_heads": 4,
    "decoder_start_token_id": 0, "is_encoder_decoder": True,
}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}


def setup(**changes) -> Setup:
    return Setup(
        **{"model": LLAMA, "framework": "transformers", "precision": "fp32", "seq_len": 64, "micro_batch": 2} | changes
    )


def traced(one: Setup, depth: int = 3) -> Trace:
    one, profile, _ = filled(one)
    return compose(trace_pieces(one, profile, config_of(one.model), depth=depth), one, profile)


def peak(trace: Trace, part: str = "") -> int:
    total, parts, _, _ = live_peak(trace.allocations)
    return parts.get(part, 0) if part else total


@pytest.mark.parametrize("changes", [
    {}, {"recompute": "full"}, {"adapter": "lora"}, {"adapter": "lora", "base": "nf4", "precision": "bf16"}, {"precision": "bf16", "accumulate": 2},
    {"framework": "litgpt", "precision": "bf16-true", "strategy": "zero3", "count": 4, "adapter": "lora", "accumulate": 2},
    {"strategy": "zero2", "count": 2, "framework": "genwright", "precision": "bf16"}, {"attention": "eager"}, {"model": T5}, {"model": MIXTRAL, "precision": "bf16"},
    {"framework": "torchtune", "precision": "bf16-true", "recompute": "selective"},
])  # fmt: skip
def test_three_layers_stand_for_all(changes):
    few, all_of_them = traced(setup(**changes)), traced(setup(**changes), depth=99)
    assert peak(few) == peak(all_of_them)
    assert (
        Allocator().replay(few.allocations).peak_reserved == Allocator().replay(all_of_them.allocations).peak_reserved
    )
    assert few.flops == pytest.approx(all_of_them.flops, rel=1e-9)
    assert few.launches == all_of_them.launches
    assert (few.parameters, few.trainable) == (all_of_them.parameters, all_of_them.trainable)


def test_a_recomputed_encoder_decoder_is_planned_from_above():
    """Its stacks hand a gradient back while they recompute: three layers say at most a tenth more than all of them."""
    few, all_of_them = (traced(setup(model=T5, recompute="full"), depth=depth) for depth in (3, 99))
    assert peak(all_of_them) <= peak(few) <= 1.1 * peak(all_of_them)
    assert few.flops == pytest.approx(all_of_them.flops, rel=1e-9)
    assert peak(few) < peak(traced(setup(model=T5)))


def test_the_peak_is_that_of_a_step_on_real_tensors():
    """The same model, loss and optimizer, run for two steps under the tracker that counts real storages."""
    config = AutoConfig.for_model(**LLAMA)
    model = build_model(config, torch.float32, "sdpa").train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    ids = torch.randint(0, 512, (2, 64))

    def step() -> None:
        logits = model.lm_head(model.model(input_ids=ids).last_hidden_state).float()
        F.cross_entropy(logits[:, :-1].contiguous().flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    with Tracker() as tracker:
        tracker.track([*model.parameters(), *model.buffers()], "weights")
        tracker.track([value for state in optimizer.state.values() for value in state.values()], "optimizer")
        with tracker.phase("activations"):
            step()
    assert peak(traced(setup())) == pytest.approx(tracker.peak.total, rel=0.03)


def test_weights_gradients_and_state_are_as_large_as_arithmetic_says():
    trace = traced(setup(seq_len=8, micro_batch=1))
    parameters = 2 * 512 * 64 + 6 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 176 + 2 * 64) + 64
    assert trace.parameters == trace.trainable == parameters
    _, parts, phase, _ = live_peak(trace.allocations)
    assert phase == "optimizer"  # few tokens: the copy that a foreach AdamW takes is the peak
    assert parts["gradients"] == parts["temporaries"] == 4 * parameters
    assert parts["optimizer"] == 8 * parameters
    assert parts["weights"] - 4 * parameters < 1024  # and the table of rotations


def test_each_strategy_divides_what_it_says():
    one = peak(traced(setup(strategy="ddp", count=4, framework="genwright")), "optimizer")
    for strategy in ("zero1", "zero2", "zero3"):
        trace = traced(setup(strategy=strategy, count=4, framework="genwright"))
        assert peak(trace, "optimizer") == pytest.approx(one / 4, rel=0.01)
    weights = [
        peak(traced(setup(strategy=name, count=4, framework="genwright")), "weights") for name in ("zero2", "zero3")
    ]
    assert weights[1] == pytest.approx(
        weights[0], rel=0.01
    )  # both keep split masters; zero2 keeps gathered copies beside
    gathered = [
        peak(traced(setup(strategy=name, count=4, framework="genwright")), "all-gather buffers")
        for name in ("zero2", "zero3")
    ]
    assert gathered[0] > 1.2 * gathered[1]


def test_collectives_move_what_zero_moves():
    """Stage 3 gathers the weights for the forward and for the backward and scatters gradients: 3 P elements (arXiv 1910.02054)."""
    trace = traced(setup(strategy="zero3", count=4, framework="genwright"))
    moved = sum(row.bytes * row.count for row in trace.collectives)
    assert moved == pytest.approx(3 * 4 * trace.parameters)
    trace = traced(setup(strategy="ddp", count=4, framework="genwright", accumulate=3))
    assert [(row.kind, row.axis) for row in trace.collectives][:1] == [("all-reduce", "replicas")]
    assert sum(row.bytes * row.count for row in trace.collectives) == pytest.approx(4 * trace.parameters)


def test_work_is_six_flops_a_weight_and_token():
    trace = traced(setup(seq_len=16))
    products = trace.parameters - 512 * 64  # the table of words costs none
    assert trace.model_flops == 6 * products * 2 * 16
    counted = sum(op.flops * op.count for op in trace.ops if op.kind == "matmul")
    assert counted == pytest.approx(6 * (products - 13 * 64) * 32, rel=0.01)  # but for norms
    again = traced(setup(seq_len=16, recompute="full"))
    body = (
        products - 512 * 64 - 6 * 64 * 176
    )  # the head is not done again, nor a layer's last product: nothing reads it
    assert again.recompute_fraction == pytest.approx(2 * body / (6 * products + 2 * body), abs=0.02)


@pytest.mark.parametrize(("more", "less"), [
    ({"recompute": "none"}, {"recompute": "full"}), ({"adapter": "full"}, {"adapter": "lora"}), ({"micro_batch": 4}, {"micro_batch": 2}),
    ({"adapter": "lora", "precision": "bf16", "base": "int8"}, {"adapter": "lora", "precision": "bf16", "base": "nf4"}),
    ({"adapter": "lora", "precision": "bf16", "base": "nf4"}, {"adapter": "lora", "precision": "bf16", "base": "nf4-double"}),
    ({"attention": "eager"}, {"attention": "sdpa"}), ({"optimizer": "adamw"}, {"optimizer": "adamw-fused", "seq_len": 8}),
    ({"optimizer": "adamw-fused"}, {"optimizer": "adamw-8bit"}), ({"framework": "trl", "recompute": "none"}, {"framework": "unsloth", "recompute": "none"}), ({"optimizer": "adamw-fused", "seq_len": 8}, {"optimizer": "adamw-fused", "optimizer_in_backward": True, "seq_len": 8}),
    ({}, {"compile": True}), ({"chunked_loss": False}, {"framework": "unsloth", "chunked_loss": True}), ({"tensor_degree": 1}, {"tensor_degree": 2, "count": 2, "strategy": "ddp"}),
])  # fmt: skip
def test_what_takes_less_is_planned_to_take_less(more, less):
    assert peak(traced(setup(**less))) < peak(traced(setup(**more)))


def test_offloaded_activations_are_not_there_when_the_loss_is():
    """Six layers' inputs of 2 x 64 x 64 float32, and nothing else."""
    kept, away = (traced(setup(recompute="full", offload_activations=flag)) for flag in (False, True))
    at_loss = [live_peak(trace.allocations)[3]["loss"] for trace in (kept, away)]
    assert at_loss[0] - at_loss[1] >= 6 * 2 * 64 * 64 * 4


def test_a_trace_and_its_pieces_come_back_from_json():
    one, profile, _ = filled(setup())
    pieces = trace_pieces(one, profile, LLAMA)
    again = Pieces.read(pieces.to_json())
    trace = compose(pieces, one, profile)
    assert compose(again, one, profile) == trace
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_three_memories_each_with_its_range_and_parts(tmp_path):
    estimate = estimate_training(setup(), device("a100-80gb"), cache=tmp_path)
    active, reserved, on_device = (
        estimate.quantities[f"{name}_peak_bytes"] for name in ("active", "reserved", "device")
    )
    assert active.value <= reserved.value <= on_device.value
    assert isinstance(active, Range) and active.low <= active.value <= active.high
    assert sum(estimate.breakdown.values()) == pytest.approx(on_device.value, rel=1e-6)
    assert estimate.facts["fits"] is True
    for phase in ("train", "optimizer", "evaluate", "generate", "save", "resume", "merge"):
        assert estimate.quantities[f"{phase}_peak_bytes"].value > 0
    assert any("default" in note for note in estimate.notes)


def test_a_known_trace_is_priced_for_another_device_and_count_without_torch(tmp_path):
    estimate_training(setup(strategy="zero3", count=2), device("a100-80gb"), cache=tmp_path)
    code = (
        "import sys, pathlib; from genwright.plan.training import estimate_training; from genwright.plan.traced.setup import Setup;"
        "from genwright.catalogue.devices import device;"
        f"s = Setup(model={LLAMA!r}, framework='transformers', precision='fp32', seq_len=64, micro_batch=2, strategy='zero3', count=8);"
        f"e = estimate_training(s, device('h100-sxm'), cache=pathlib.Path({str(tmp_path)!r}));"
        "assert 'torch' not in sys.modules; print(e.quantities['active_peak_bytes'].value)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_whether_it_fits_is_the_replay_within_the_device():
    trace, *_ = trace_training(setup())
    free = memory_of(trace, device("a100-80gb"))
    assert free.fits and memory_of(trace, device("a100-80gb"), capacity=free.reserved).fits
    assert not memory_of(trace, device("a100-80gb"), capacity=free.active * 0.9).fits


def test_every_framework_has_a_source_and_plans_a_step():
    for name, profile in FRAMEWORKS.items():
        assert ":" in profile.source
        changes = {"adapter": "lora"} if name == "qwen-finetune" else {}
        assert peak(traced(setup(framework=name, precision="", **changes))) > 0


@pytest.mark.parametrize(("changes", "names"), [
    ({"seq_len": 512}, "256"), ({"strategy": "zero3", "count": 1}, "at least 2"), ({"strategy": "single", "count": 2}, "one device"),
    ({"strategy": "ddp", "count": 6, "tensor_degree": 4}, "do not split"), ({"optimizer": "adamm"}, "adamw"),
    ({"strategy": "hybrid", "count": 8, "sharding_factor": 3}, "sharding factor"), ({"micro_batch": 0}, "at least 1"),
])  # fmt: skip
def test_what_cannot_be_planned_is_an_error_that_says_what_can(changes, names):
    with pytest.raises(RecipeError, match=names):
        trace_training(setup(**changes))


def test_unknown_models_frameworks_and_configs_are_errors(tmp_path):
    with pytest.raises(UnknownName, match="llama"):
        trace_training(setup(model="llamma-3.1-8b"))
    with pytest.raises(UnknownName, match="torchtune"):
        profile_of("torchtunes")
    with pytest.raises(ModelError, match="what kind of model"):
        config_of({"hidden_size": 8})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        config_of(str(tmp_path))


@pytest.mark.parametrize(("written", "words"), [
    ("[]", "is no config"), ('{"model_type": 3}', "what kind of model"), ('{"model_type": "llama", "hidden_size": "big"}', "hidden_size is no size"),
    ('{"model_type": "gemma3", "text_config": {"num_hidden_layers": 0}}', r"text_config\.num_hidden_layers is no size"),
    ('{"model_type": "llama", "vocab_size": true}', "vocab_size is no size"),
])  # fmt: skip
def test_a_config_of_wrong_values_is_named_with_its_file_and_field(tmp_path, written, words):
    (tmp_path / "config.json").write_text(written)
    with pytest.raises(ModelError, match=words) as told:
        trace_training(setup(model=str(tmp_path)))
    assert str(tmp_path / "config.json") in str(told.value)


def test_what_transformers_refuses_in_a_config_is_named():
    with pytest.raises(ModelError, match=r"a wrong value of 'rms_norm_eps'[\s\S]*expected float"):
        trace_training(setup(model={**LLAMA, "rms_norm_eps": "small"}))
    with pytest.raises(ModelError, match="is a 'lama' model, which this transformers"):
        trace_training(setup(model={**LLAMA, "model_type": "lama"}))


def test_a_device_without_bfloat16_is_named():
    with pytest.raises(RecipeError, match="bfloat16"):
        estimate_training(setup(precision="bf16"), device("t4"))


def test_a_config_that_derives_its_kinds_of_layers_is_planned_too():
    mamba = {"model_type": "mamba", "vocab_size": 512, "hidden_size": 64, "state_size": 8, "num_hidden_layers": 4}
    assert trace_training(setup(model=mamba))[0].parameters > 512 * 64
