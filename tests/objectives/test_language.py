"""The loss equals `transformers`' on the same text, whatever the rows are packed with; a value worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.catalogue.parts import OBJECTIVES
from genwright.data.collate import collate
from genwright.data.templates import Encoded
from genwright.models.attention import NAME
from genwright.objectives import language
from genwright.objectives.language import Causal, Instruction, model_inputs

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip


def model(attention: str = NAME) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation=attention)


def row(length: int, prompt: int, seed: int) -> Encoded:
    torch.manual_seed(seed)
    return Encoded(torch.randint(1, 50, (length,)).tolist(), [place >= prompt for place in range(length)], 0, str(seed))


ROWS = [row(9, 4, 1), row(5, 1, 2), row(14, 10, 3)]


def mean(objective: object, ready: torch.nn.Module, batches: list) -> torch.Tensor:
    terms = [objective(ready, batch).terms["tokens"] for batch in batches]  # type: ignore[operator]
    return sum(term.total for term in terms) / sum(term.count for term in terms)


def test_uniform_logits_give_the_logarithm_of_the_vocabulary() -> None:
    """V = 4: ln 4 = 1.3863."""

    class Uniform(torch.nn.Module):
        config = LlamaConfig(**SIZES)

        def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object) -> SimpleNamespace:
            return SimpleNamespace(logits=torch.zeros(1, len(logits_to_keep), 4))

    batch = collate([Encoded([1, 2, 3], [False, True, True], 0, "a")], packing=True, capacity=8, pad_id=0)[0]
    term = Causal()(Uniform(), batch).terms["tokens"]
    assert (term.total / term.count).item() == pytest.approx(math.log(4))
    assert term.count == 2


@pytest.mark.parametrize("objective", [Causal(), Instruction()])
@pytest.mark.parametrize("packing", [True, False])
def test_loss_equals_transformers_own_on_each_row(objective: object, packing: bool) -> None:
    """Transformers shifts labels itself and means over tokens; -100 marks what is not learned."""
    ours = mean(objective, model(), collate(ROWS, packing=packing, capacity=64, pad_id=0))
    oracle, total, count = model("eager"), 0.0, 0
    for one in ROWS:
        labels = [token if learned else -100 for token, learned in zip(one.input_ids, one.learned)]
        num = sum(one.learned[1:])
        total += num * oracle(input_ids=torch.tensor([one.input_ids]), labels=torch.tensor([labels])).loss.item()
        count += num
    assert ours.item() == pytest.approx(total / count, rel=1e-5)


def test_gradients_do_not_depend_on_rounding_or_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded sizes are read by nobody: the gradient of every weight is that of exact sizes."""

    def gradients(packing: bool) -> list[torch.Tensor]:
        ready = model()
        mean(Instruction(), ready, collate(ROWS, packing=packing, capacity=64, pad_id=0)).backward()
        return [parameter.grad for parameter in ready.parameters()]

    rounded, padded = gradients(True), gradients(False)
    for name in ("ROUND_TOKENS", "ROUND_LABELS", "ROUND_DOCUMENT"):
        monkeypatch.setattr(language, name, 1)
    for exact, one, other in zip(gradients(True), rounded, padded):
        torch.testing.assert_close(one, exact, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(other, exact, atol=1e-6, rtol=1e-4)


def test_sizes_are_rounded_so_that_kernels_are_compiled_once() -> None:
    shapes = {model_inputs(collate([one], packing=True, capacity=64, pad_id=0)[0])["input_ids"].shape for one in ROWS}
    assert shapes == {(1, 32)}


def test_the_model_is_asked_for_logits_at_learned_positions_only() -> None:
    asked = []
    ready = model()
    inner = ready.lm_head.forward
    ready.lm_head.forward = lambda hidden: asked.append(hidden.shape) or inner(hidden)
    Instruction()(ready, collate(ROWS, packing=True, capacity=64, pad_id=0)[0])
    assert asked == [(1, 32, 32)]  # 13 learned tokens, rounded up; not 28 tokens


@pytest.mark.parametrize("name", ["causal", "instruction"])
def test_every_objective_says_what_rows_it_takes_and_has_a_right_gradient(name: str) -> None:
    """The gradient along a random direction equals the finite difference, in double precision."""
    objective = OBJECTIVES[name]()
    assert objective.rows and objective.couples_rows in (True, False)
    ready = model().double()
    batch = collate(ROWS, packing=True, capacity=64, pad_id=0)[0]
    torch.manual_seed(5)
    direction = {key: torch.randn_like(parameter) for key, parameter in ready.named_parameters()}

    def loss(step: float) -> torch.Tensor:
        moved = {key: parameter + step * direction[key] for key, parameter in ready.named_parameters()}
        call = lambda **inputs: torch.func.functional_call(ready, moved, kwargs=inputs)
        call.config = ready.config
        return objective(call, batch).terms["tokens"].total

    (slope,) = torch.autograd.grad(loss(0.0), [ready.lm_head.weight], retain_graph=True, allow_unused=True)
    everything = torch.autograd.grad(loss(0.0), list(ready.parameters()), allow_unused=True)
    along = sum(
        (gradient * direction[key]).sum()
        for (key, _), gradient in zip(ready.named_parameters(), everything)
        if gradient is not None
    )
    with torch.no_grad():
        difference = (loss(1e-3) - loss(-1e-3)) / 2e-3  # the loss is summed in float32
    assert slope.abs().sum() > 0
    assert float(along) == pytest.approx(float(difference), rel=2e-2)
