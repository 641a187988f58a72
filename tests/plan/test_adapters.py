"""Every adapter of the catalogue as `estimate` prices it: against the engine's own step and `peft`'s counts, in order, refused by name."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import pytest
from transformers import AttentionInterface, AutoConfig

from genwright.adapters.base import trainable
from genwright.base.errors import BadRequest, RecipeError
from genwright.catalogue.devices import device
from genwright.catalogue.parts import ADAPTERS
from genwright.data.collate import collate
from genwright.data.templates import Encoded
from genwright.engine.recipe import Recipe
from genwright.models.attention import NAME
from genwright.objectives.language import Causal
from genwright.plan.architectures import config_of
from genwright.plan.asked import check_asked
from genwright.plan.here.trace import build_fake, trace_step
from genwright.plan.priced.allocator import live_peak
from genwright.plan.published.frameworks import filled
from genwright.plan.search import CHANGES
from genwright.plan.traced.attention import _attend
from genwright.plan.traced.compose import compose
from genwright.plan.traced.record import Trace
from genwright.plan.traced.setup import ELSEWHERE, RANKED, TRAINS_BASE, Setup
from genwright.plan.traced.trace_setup import trace_pieces
from genwright.plan.training import estimate_training, trace_training

LLAMA = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 32}
T5 = {
    "model_type": "t5", "vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4,
    "decoder_start_token_id": 0, "is_encoder_decoder": True,
}  # fmt: skip
TOKENS = 256
WITHIN = 0.005
"""Of the engine's peak: the norm of gradients, places of documents and counters of AdamW are not in a trace."""


def setup(adapter: str, **changes: Any) -> Setup:
    values = {"model": LLAMA, "adapter": adapter, "objective": "causal", "precision": "fp32", "seq_len": TOKENS}
    return Setup(**values | changes)


def traced(one: Setup, depth: int = 3) -> Trace:
    one, profile, _ = filled(one.check())
    return compose(trace_pieces(one, profile, config_of(one.model), depth=depth), one, profile)


@lru_cache
def plain(name: str, precision: str = "bf16") -> Trace:
    return traced(setup(name, precision=precision))


def peak(trace: Trace) -> int:
    return live_peak(trace.allocations)[0]


def part(trace: Trace, name: str) -> int:
    return live_peak(trace.allocations)[1].get(name, 0)


def of_the_engine(adapter: Any, config: dict[str, Any], precision: str, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(peak of live bytes, trained weights) of the step that `apply` takes, all of it, with a GPU's kernel of attention."""
    patch.setitem(AttentionInterface._global_mapping, NAME, _attend)
    recipe = Recipe(Causal(), adapter, precision, steps=9, batch_size=1, learning_rate=1e-3)
    fake = build_fake(recipe, AutoConfig.for_model(**config))
    rows = [Encoded(list(range(TOKENS)), [True] * TOKENS, 0, "row")]
    step = trace_step(fake, lambda: collate(rows, packing=True, capacity=TOKENS, pad_id=0), recipe)
    model = fake.built.model
    if hasattr(model, "get_nb_trainable_parameters"):
        return step.peak.total, model.get_nb_trainable_parameters()[0]
    return step.peak.total, sum(one.numel() for one in trainable(model).values())


@pytest.mark.parametrize(("name", "precision"), [*((name, "bf16") for name in ADAPTERS), ("ia3", "fp32")])
def test_each_is_the_engine_s_own_step(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six layers run whole under the planner's other tracker; three or four of them stand for all here."""
    whole, trained = of_the_engine(ADAPTERS[name](), LLAMA, precision, monkeypatch)
    planned = plain(name, precision)
    assert peak(planned) == pytest.approx(whole, rel=WITHIN)
    assert planned.trainable == trained


@pytest.mark.parametrize(("name", "config", "settings"), [
    ("lora", MIXTRAL, {}), ("multilora", QWEN3, {"parallel": 2}), ("last-layers", LLAMA, {"layers": 3}), ("prefix-tuning", QWEN3, {"tokens": 40}),
    ("p-tuning", LLAMA, {"network": "lstm", "width": 32}),
])  # fmt: skip
def test_its_settings_and_other_models_too(
    name: str, config: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture's experts have LoRA too; heads may be wider than the stream says."""
    whole, trained = of_the_engine(ADAPTERS[name](**settings), config, "bf16", monkeypatch)
    planned = traced(setup(name, model=config, precision="bf16", settings=settings))
    assert peak(planned) == pytest.approx(whole, rel=WITHIN)
    assert planned.trainable == trained


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("last-layers", {"settings": {"layers": 2}, "precision": "bf16"}),
        ("prefix-tuning", {"recompute": "full"}),
        ("dora", {}),
    ],
)
def test_few_layers_stand_for_all(name: str, changes: dict[str, Any]) -> None:
    few, every = (traced(setup(name, model={**LLAMA, "num_hidden_layers": 9}, **changes), depth) for depth in (3, 99))
    assert (peak(few), few.parameters, few.trainable, few.launches) == (
        peak(every),
        every.parameters,
        every.trainable,
        every.launches,
    )
    assert few.flops == pytest.approx(every.flops, rel=1e-9)


def test_who_trains_less_keeps_less() -> None:
    """Moments: of vectors, of low ranks, of two of six layers, of everything; and no two adapters cost the same but by rank."""
    found = {name: plain(name) for name in ADAPTERS}
    narrow = traced(setup("lora", precision="bf16", rank=4))
    moments = [part(one, "optimizer") for one in (found["ia3"], narrow, found["last-layers"], found["full"])]
    assert moments == sorted({*moments}) and part(found["ia3"], "optimizer") == 2 * 4 * 6 * (32 + 32 + 176)
    assert len({peak(trace) for trace in found.values()}) == len(found)
    assert found["head"].model_flops < found["last-layers"].model_flops < found["full"].model_flops
    assert peak(traced(setup("rslora", precision="bf16", rank=16))) == peak(found["lora"])


def test_a_rank_of_tensor_parallelism_does_not_change_what_is_trained() -> None:
    for name in ("ia3", "prompt-tuning"):
        split = traced(setup(name, precision="bf16", strategy="ddp", count=2, tensor_degree=2))
        assert split.trainable == plain(name).trainable and peak(split) < peak(plain(name))


@pytest.mark.parametrize(
    ("name", "framework"), [("ia3", "trl"), ("dora", "litgpt"), ("multilora", "trl"), ("prompt-tuning", "peft")]
)
def test_other_frameworks_set_them_too(name: str, framework: str) -> None:
    """`peft`'s own forward, over a base in four bits where one is asked for."""
    planned = traced(setup(name, framework=framework, precision="bf16", base="nf4", rank=4))
    assert 0 < planned.trainable < planned.parameters / 2


@pytest.mark.parametrize("name", ADAPTERS)
def test_remedies_are_setups_that_can_be_planned(name: str) -> None:
    """What the search proposes where nothing fits: few bits only for a base that is frozen."""
    one = setup(name, strategy="ddp", count=2, micro_batch=2, seq_len=512)
    changed = {text: dataclasses.replace(one, **change(one)).check() for text, change in CHANGES}
    assert (changed["--base int8"].base == "int8") == (name not in TRAINS_BASE)
    assert (changed["--adapter lora"].adapter == "lora") == (name in (*TRAINS_BASE, "lora"))


def test_what_is_trained_and_has_a_rank_is_what_the_adapters_say() -> None:
    assert {name for name in ADAPTERS if ADAPTERS[name].trains_base} == {*TRAINS_BASE}
    fields = {name: {field.name: field.default for field in dataclasses.fields(ADAPTERS[name])} for name in ADAPTERS}
    assert {name for name in ADAPTERS if "rank" in fields[name]} == {*RANKED}
    assert all(filled(setup(name))[0].rank == fields[name].get("rank", 0) for name in ADAPTERS)
    assert not {*ELSEWHERE} & {*ADAPTERS}


def test_pairs_are_two_rows() -> None:
    one, two = (traced(setup("ia3", objective=name)) for name in ("causal", "orpo"))
    assert part(two, "logits and loss") == 2 * part(one, "logits and loss")


def test_what_is_approximate_is_said() -> None:
    told = lambda name, **more: " ".join(estimate_training(setup(name, **more), device("h100")).notes)
    assert "seen twice" in told("head") and "in front of each row" in told("p-tuning", micro_batch=2)
    assert "rank" not in told("ia3") and "rank = 16" in told("lora")


@pytest.mark.parametrize(("name", "changes", "words"), [
    ("lorra", {}, r"no adapter 'lorra'[\s\S]*did you mean 'lora'"), ("lora", {"objective": "nonsense"}, "no objective 'nonsense'"),
    ("lora", {"objective": "reward"}, "did you mean 'reward-model'"), ("qat", {"base": "nf4"}, "cannot be kept in nf4"),
    ("head", {"strategy": "ddp", "count": 2, "pipeline_degree": 2}, "trains nothing on the first stages"),
    ("last-layers", {"settings": {"layers": 7}}, "1 to 6"), ("ia3", {"settings": {"tokens": 3}}, "no setting 'tokens'"),
    ("prefix-tuning", {"settings": {"projection": 8}}, "cannot be cut at layers"), ("prompt-tuning", {"model": T5}, "continue a text"),
    ("dora", {"model": MIXTRAL, "precision": "bf16"}, "cannot be set into a Mixtral"), ("ia3", {"model": QWEN3 | {"model_type": "olmo"}}, "ia3 does not know"),
    ("dora", {"model": {"model_type": "gpt2", "vocab_size": 512, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512}, "targets": ("o",)},
     "several kinds 'c_proj'"),
])  # fmt: skip
def test_what_cannot_be_planned_is_refused_never_planned_as_lora(
    name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        trace_training(setup(name, **changes))


def test_a_rank_where_there_is_none_is_refused() -> None:
    check_asked({"adapter": "ia3", "rank": 0}, LLAMA)
    with pytest.raises(BadRequest, match="ia3 has no rank"):
        check_asked({"adapter": "ia3", "rank": 8}, LLAMA)
