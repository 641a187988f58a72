"""What holds for every adapter: joining the registry joins this suite.

The models are tiny and random. Where an adapter keeps its base in 8 or 4 bits, "the base" is what those bits say.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from genwright.adapters.base import trainable
from genwright.adapters.forward import use_our_forward_
from genwright.adapters.qat import RoundedLinear
from genwright.base.errors import RecipeError
from genwright.catalogue.parts import ADAPTERS
from genwright.engine.build import Built, build
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.attention import NAME, documents, ordinary_attention
from genwright.models.surgery import layers_of
from genwright.objectives.loss import Loss, Term
from genwright.parallel.norm import global_norm
from genwright.parallel.recompute import recompute_
from genwright.plan.here.trace import fake_weights_can_be_cast
from genwright.precision.quantize import QuantizedLinear

SMALL: dict[str, dict[str, Any]] = {
    "last-layers": {"layers": 1},
    "lora": {"rank": 4},
    "rslora": {"rank": 4},
    "dora": {"rank": 4},
    "multilora": {"parallel": 3, "rank": 2},
    "prompt-tuning": {"tokens": 5},
    "p-tuning": {"tokens": 5, "width": 8},
    "prefix-tuning": {"tokens": 5},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 4, "base": "int8"}),
    ("lora", {"rank": 4, "dropout": 0.1, "targets": ("q_proj", "v_proj")}),
    ("multilora", {"parallel": 3, "rank": 2, "base": "int4"}),
    ("p-tuning", {"tokens": 5, "width": 8, "network": "lstm"}),
    ("prefix-tuning", {"tokens": 5, "projection": 8}),
]
CASES = [(name, SMALL.get(name, {})) for name in ADAPTERS] + VARIANTS
NAMES = list(ADAPTERS) + [f"{name}-{list(settings.values())[-1]}" for name, settings in VARIANTS]
every = pytest.mark.parametrize(("name", "settings"), CASES, ids=NAMES)
SOFT = {"prompt-tuning", "p-tuning", "prefix-tuning"}
"""Only in decoders."""
LENGTHS = (7, 4, 9)


@dataclass(frozen=True)
class Batch:
    inputs: dict[str, Any]
    labels_N: Tensor
    counts: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """The mean cross-entropy of what the model says at its labels."""

    rows: ClassVar[tuple[str, ...]] = ()
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "documents"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Batch) -> Loss:
        logits = model(**batch.inputs).logits
        total = F.cross_entropy(logits.flatten(0, -2).float(), batch.labels_N, reduction="sum")
        return Loss({"tokens": Term(total, batch.counts["tokens"])})


def packed_inputs(ids: list[list[int]]) -> dict[str, Any]:
    """One row of documents, as the engine gives them to a decoder."""
    return {
        "input_ids": torch.tensor([[token for one in ids for token in one]]),
        "position_ids": torch.tensor([[place for one in ids for place in range(len(one))]]),
        "documents": documents([[len(one) for one in ids]], sum(map(len, ids))),
        "use_cache": False,
    }


def texts() -> list[list[int]]:
    chance = random.Random(3)
    return [[chance.randrange(1, 50) for _ in range(length)] for length in LENGTHS]


def batch_of(family: str) -> Batch:
    chance = torch.Generator().manual_seed(5)
    ids_BT = torch.randint(1, 50, (3, 8), generator=chance)
    if family == "decoder":
        inputs = packed_inputs(texts()) | {"logits_to_keep": torch.tensor([1, 2, 3, 8, 9, 13, 14])}
    elif family == "encoder-decoder":
        inputs = {"input_ids": ids_BT, "decoder_input_ids": ids_BT[:, :4], "use_cache": False}
    else:
        inputs = {"input_ids": ids_BT}
    number, kinds = {
        "decoder": (7, 50),
        "encoder": (24, 50),
        "encoder-decoder": (12, 50),
        "classes": (3, 3),
        "reward": (3, 2),
    }[family]
    labels = torch.randint(0, kinds, (number,), generator=chance)
    return Batch(inputs, labels, {"tokens": torch.tensor(float(number))})


def build_it(
    name: str,
    settings: dict[str, Any],
    model_of: Any,
    family: str = "decoder",
    rate: float = 1e-2,
    precision: str = "fp32",
) -> Built:
    recipe = Recipe(Objective(), ADAPTERS[name](**settings), precision, 6, 3, rate)
    return build(recipe, lambda dtype, attention: model_of(family, dtype, attention))


def step(built: Built, batch: Batch) -> float:
    report = train_step(built.model, built.optimizer, built.objective, [batch], max_norm=1.0, global_norm=global_norm)
    return float(report.loss)


def trained(name: str, settings: dict[str, Any], model_of: Any, family: str = "decoder", steps: int = 3) -> Built:
    built = build_it(name, settings, model_of, family)
    for _ in range(steps):
        step(built, batch_of(family))
    built.model.eval()
    return built


def base_of(built: Any, model_of: Any, family: str = "decoder") -> Any:
    """The base again, in its own weights, or in those that its 8 or 4 bits stand for."""
    base = model_of(family)
    with torch.no_grad():
        for name, module in built.model.named_modules():
            if isinstance(module, RoundedLinear):
                module = module.integers()
            if isinstance(module, QuantizedLinear):
                own = base.get_submodule(name.removeprefix("base_model.model.").removesuffix(".base_layer"))
                own.weight.copy_(module.dense(module.codes, torch.float32))
    return base


@torch.no_grad()
def says(model: Any, family: str = "decoder") -> Tensor:
    """The logits for fixed rows, with `transformers`' own attention and masks."""
    inputs = batch_of("encoder" if family == "decoder" else family).inputs
    with ordinary_attention(model):
        logits = model(**inputs).logits
    return logits[:, -8:] if family == "decoder" else logits  # plain peft gives logits of virtual tokens too


def is_adapter(name: str) -> bool:
    return bool(ADAPTERS[name].form == "adapter")


def same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=2e-5, rtol=2e-5)


@every
def test_it_says_what_it_is(name: str, settings: dict[str, Any]) -> None:
    adapter = ADAPTERS[name]
    assert adapter.form in ("adapter", "model") and 0 < adapter.default_learning_rate < 1
    assert isinstance(adapter.trains_base, bool) and isinstance(adapter.mergeable, bool)
    assert adapter.trains_base == (adapter.form == "model")


@every
def test_the_loss_falls_and_only_what_is_trained_changes(name: str, settings: dict[str, Any], model_of: Any) -> None:
    built = build_it(name, settings, model_of)
    named = {**dict(built.model.named_parameters()), **dict(built.model.named_buffers())}
    before = {key: value.detach().clone() for key, value in named.items()}
    losses = [step(built, batch_of("decoder")) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.01
    changed = {key for key, value in named.items() if not torch.equal(value, before[key])}
    assert changed == set(trainable(built.model))
    if is_adapter(name):
        assert not any(part in key for key in changed for part in ("base_layer", "embed_tokens", "norm", "lm_head"))


@every
def test_a_frozen_weight_has_no_gradient_and_no_optimizer_state(
    name: str, settings: dict[str, Any], model_of: Any
) -> None:
    built = trained(name, settings, model_of, steps=1)
    frozen = [parameter for parameter in built.model.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)
    held = {parameter for group in built.optimizer.param_groups for parameter in group["params"]}
    assert held == set(built.parameters.values()) == set(built.optimizer.state)
    assert all(parameter.grad is not None and parameter.dtype == torch.float32 for parameter in held)


@every
def test_it_starts_as_the_base(name: str, settings: dict[str, Any], model_of: Any) -> None:
    if name in SOFT:
        pytest.skip("a prompt is something more to read from the start")
    built = build_it(name, settings, model_of)
    built.model.eval()
    assert torch.equal(says(built.model), says(base_of(built, model_of)))


@every
@pytest.mark.parametrize("family", ["decoder", "encoder", "encoder-decoder", "classes", "reward"])
def test_files_load_without_us(name: str, settings: dict[str, Any], family: str, model_of: Any, tmp_path: Path) -> None:
    if family != "decoder" and (name in SOFT or "targets" in settings):
        pytest.skip("decoders only")
    built = trained(name, settings, model_of, family)
    ADAPTERS[name](**settings).save(built.model, tmp_path)
    if is_adapter(name):
        loaded = PeftModel.from_pretrained(base_of(built, model_of, family), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    else:
        kinds = {
            "decoder": AutoModelForCausalLM,
            "encoder": AutoModelForMaskedLM,
            "encoder-decoder": AutoModelForSeq2SeqLM,
        }
        loaded = kinds.get(family, AutoModelForSequenceClassification).from_pretrained(tmp_path)
    same(says(loaded.eval(), family), says(built.model, family))
    assert not torch.allclose(says(built.model, family), says(model_of(family), family), atol=1e-4)


@every
@pytest.mark.parametrize("family", ["classes", "reward"])
def test_a_head_made_anew_is_trained_and_saved(
    name: str, settings: dict[str, Any], family: str, model_of: Any, tmp_path: Path
) -> None:
    if name in SOFT or "targets" in settings:
        pytest.skip("decoders only")
    built = trained(name, settings, model_of, family)
    head = model_of(family).genwright_heads[0]
    learned = [key for key in built.parameters if head in key]
    assert len(learned) == len(list(model_of(family).get_submodule(head).parameters()))
    if is_adapter(name):
        ADAPTERS[name](**settings).save(built.model, tmp_path)
        loaded = PeftModel.from_pretrained(base_of(built, model_of, family), tmp_path)
        ours, theirs = built.parameters[learned[0]], dict(loaded.named_parameters())[learned[0]]
        assert torch.equal(ours, theirs) and not torch.equal(
            ours, dict(model_of(family).get_submodule(head).named_parameters())["weight"]
        )


@every
def test_a_master_head_over_a_body_in_bfloat16(name: str, settings: dict[str, Any], model_of: Any) -> None:
    if name in SOFT or "targets" in settings:
        pytest.skip("decoders only")
    built = build_it(name, settings, model_of, "classes", precision="bf16")
    losses = [step(built, batch_of("classes")) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in built.parameters.values()} == {torch.float32}


@every
def test_disabled_it_is_the_base(name: str, settings: dict[str, Any], model_of: Any) -> None:
    if not is_adapter(name):
        pytest.skip("the base itself was changed")
    built = trained(name, settings, model_of)
    with built.model.disable_adapter():
        assert torch.equal(says(built.model), says(base_of(built, model_of)))


@every
def test_merged_equals_unmerged_in_float32(name: str, settings: dict[str, Any], model_of: Any, tmp_path: Path) -> None:
    if not ADAPTERS[name].mergeable:
        pytest.skip("not mergeable")
    built = trained(name, settings, model_of)
    expected = says(built.model)
    if settings.get("base"):
        with pytest.raises(RecipeError, match="would be lost in the rounding"):
            built.model.merge_and_unload()
        ADAPTERS[name](**settings).save(built.model, tmp_path)
        merged = PeftModel.from_pretrained(base_of(built, model_of), tmp_path).merge_and_unload()
    else:
        merged = built.model.merge_and_unload()
    same(says(merged), expected)
    assert not any("lora" in key or "ia3" in key for key in merged.state_dict())


@every
def test_several_on_one_base(name: str, settings: dict[str, Any], model_of: Any, tmp_path: Path) -> None:
    if not is_adapter(name):
        pytest.skip("the base itself was changed")
    expected = {}
    for number, folder in enumerate(("first", "second"), start=1):
        built = trained(name, settings, model_of, steps=2 * number)
        ADAPTERS[name](**settings).save(built.model, tmp_path / folder)
        expected[folder] = says(built.model)
    both = PeftModel.from_pretrained(base_of(built, model_of), tmp_path / "first", adapter_name="first")
    both.load_adapter(tmp_path / "second", "second")
    use_our_forward_(both)
    for folder in ("second", "first"):
        both.set_adapter(folder)
        same(says(both.eval()), expected[folder])
    assert not torch.allclose(expected["first"], expected["second"], atol=1e-3)


@every
def test_it_builds_and_steps_on_fake_tensors(name: str, settings: dict[str, Any], model_of: Any) -> None:
    real = {key: value.shape for key, value in build_it(name, settings, model_of).parameters.items()}
    with fake_weights_can_be_cast(), FakeTensorMode():
        built = build_it(name, settings, model_of)
        assert {key: value.shape for key, value in built.parameters.items()} == real
        train_step(
            built.model, built.optimizer, built.objective, [batch_of("decoder")], max_norm=1.0, global_norm=global_norm
        )


@every
def test_packed_documents_are_what_they_are_alone(name: str, settings: dict[str, Any], model_of: Any) -> None:
    built = trained(name, settings, model_of)
    assert built.model.config._attn_implementation == NAME
    with torch.no_grad():
        packed = built.model(**packed_inputs(texts())).logits[0]
        with ordinary_attention(built.model):
            alone = [built.model(input_ids=torch.tensor([one]), use_cache=False).logits[0] for one in texts()]
        some = built.model(**packed_inputs(texts()), logits_to_keep=torch.tensor([0, 8, 19])).logits[0]
    same(packed, torch.cat(alone))
    same(some, packed[[0, 8, 19]])


@every
def test_layers_may_be_recomputed(name: str, settings: dict[str, Any], model_of: Any) -> None:
    """Every gradient is the same when no layer keeps its activations."""
    found = []
    for recomputed in (False, True):
        built = build_it(name, settings | ({"dropout": 0.0} if "dropout" in settings else {}), model_of)
        if recomputed:
            assert (
                recompute_(layers_of(built.model.get_base_model() if is_adapter(name) else built.model)[0], "full") == 2
            )
        built.objective(built.model, batch_of("decoder")).terms["tokens"].total.backward()
        found.append({key: parameter.grad for key, parameter in built.parameters.items()})
    for key, gradient in found[0].items():
        assert torch.equal(gradient, found[1][key]), key


@every
def test_a_document_has_no_gradient_from_another(name: str, settings: dict[str, Any], model_of: Any) -> None:
    built = trained(name, settings, model_of)
    inputs = packed_inputs(texts())
    seen: list[Tensor] = []

    def watch(_: Any, __: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    built.model.get_input_embeddings().register_forward_hook(watch)
    second = torch.arange(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    built.model(**inputs, logits_to_keep=second).logits.square().sum().backward()
    assert seen[0].shape[1] == sum(LENGTHS)
    touched = seen[0].grad.abs().sum(-1)[0] > 0
    assert touched[second].all()
    assert not touched[: LENGTHS[0]].any() and not touched[LENGTHS[0] + LENGTHS[1] :].any()


@every
def test_generation_with_a_cache_is_one_pass(name: str, settings: dict[str, Any], model_of: Any) -> None:
    """Prompt and then token by token, padded on the left: the logits of the whole row read at once."""
    from transformers import DynamicCache

    model = trained(name, settings, model_of).model
    ids_BT = batch_of("encoder").inputs["input_ids"]
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[0, :2] = 0
    places_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), ordinary_attention(model):
        whole = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=places_BT, use_cache=False).logits
        cache, found = DynamicCache(config=model.config), []
        for part in (slice(0, 5), slice(5, 6), slice(6, 8)):
            seen = mask_BT[:, : part.stop]
            found.append(
                model(input_ids=ids_BT[:, part], attention_mask=seen, position_ids=places_BT[:, part], past_key_values=cache,
                      use_cache=True).logits
            )  # fmt: skip
        alone = model(input_ids=ids_BT[:1, 2:], use_cache=False).logits
    same(torch.cat(found, dim=1)[:, 2:], whole[:, 2:])
    same(whole[:1, 2:], alone)


@every
def test_a_wrong_model_is_refused(name: str, settings: dict[str, Any], model_of: Any) -> None:
    if name in SOFT:
        for family in ("encoder", "encoder-decoder", "classes", "reward"):
            with pytest.raises(RecipeError, match=f"{name} is for models that continue a text"):
                ADAPTERS[name](**settings).wrap(model_of(family))
