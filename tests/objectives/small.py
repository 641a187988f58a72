"""Small models, hand-made steps, and what every objective must hold to: a right gradient, no matter how a step is cut.

The finite differences run on a GPT-2 in double precision: it has no cast to float32 inside, as Llama's norm has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from genwright.data.collate import Batch, Item, collate_items
from genwright.models.attention import NAME
from genwright.models.families import HEADS, Head
from genwright.plan.here.trace import fake_weights_can_be_cast

VOCABULARY = 40
LAYERS = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0},
}  # fmt: skip


def model(kind: str = "llama", head: str = "language", attention: str = NAME) -> Any:
    """Random weights, large enough that probabilities differ; fresh heads are random too, not zero."""
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **LAYERS[kind]
    )
    config.num_labels = 1
    torch.manual_seed(0)
    made = Head(head).finish_(HEADS[head]["decoder"].from_config(config, attn_implementation=attention)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return made


def answers(
    prompt: int, lengths: Sequence[int], seed: int, counts: dict[str, float] | None = None, **columns: Any
) -> Item:
    """A prompt and its answers, each a branch; the answers' tokens are learned."""
    torch.manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (prompt + sum(lengths),)).tolist()
    positions, labels, sequences, ends, start = [], [], [], [], prompt
    for number, length in enumerate(lengths):
        positions += [prompt - 1, *range(start, start + length - 1)]
        labels += ids[start : start + length]
        sequences += [number] * length
        start += length
        ends.append(start - 1)
    return Item(
        ids, (prompt, *lengths), positions, labels, sequences, len(lengths), counts or {}, columns, ends=tuple(ends)
    )


def one_batch(items: Sequence[Item], *, packing: bool = True, **columns: Tensor) -> Batch:
    ready = [
        replace(item, columns={name: torch.tensor(values) for name, values in item.columns.items()}) for item in items
    ]
    (batch,) = collate_items(ready, packing=packing, capacity=10_000, pad_id=0)
    return replace(batch, columns=batch.columns | columns)


def total(objective: Any, ready: Any, batch: Batch) -> Tensor:
    """The loss as the step takes it."""
    terms = objective(ready, batch).terms.values()
    return sum(term.weight * term.total / batch.counts[term.per] for term in terms)


def value(objective: Any, ready: Any, batch: Batch) -> float:
    with torch.no_grad():
        return float(total(objective, ready, batch))


def gradients(objective: Any, ready: Any, batches: Sequence[Batch]) -> dict[str, Tensor]:
    ready.zero_grad(set_to_none=True)
    for batch in batches:
        total(objective, ready, batch).backward()
    return {name: parameter.grad for name, parameter in ready.named_parameters() if parameter.grad is not None}


@torch.no_grad()
def by_hand(ready: Any, item: Item) -> list[Tensor]:
    """Log p of each answer's tokens, from a plain forward over prompt and answer alone and a plain softmax."""
    prompt, *lengths = item.document
    found, start = [], prompt
    plain = model(ready.config.model_type, attention="eager").to(next(ready.parameters()).dtype)
    plain.load_state_dict({name: value for name, value in ready.state_dict().items() if "value_head" not in name})
    for length in lengths:
        ids = torch.tensor([[*item.input_ids[:prompt], *item.input_ids[start : start + length]]])
        log_probs_TV = plain(input_ids=ids).logits[0].log_softmax(-1)
        found.append(log_probs_TV[prompt - 1 : -1].gather(1, ids[0, prompt:, None])[:, 0])
        start += length
    return found


def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are summed in float32, whose rounding would hide in a difference of two of them: here they stay as they are."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)


def check_gradient(objective: Any, ready: Any, batch: Batch) -> None:
    """Along a random direction of all weights the gradient equals the finite difference, to 1e-6 in double precision."""
    parameters = dict(ready.named_parameters())
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.manual_seed(5)
    direction = {name: torch.randn_like(value) for name, value in start.items()}
    found = gradients(objective, ready, [batch])
    assert found and any(gradient.abs().sum() > 0 for gradient in found.values())
    along = sum(float((gradient * direction[name]).sum()) for name, gradient in found.items())

    @torch.no_grad()
    def moved(step: float) -> float:
        for name, parameter in parameters.items():
            parameter.copy_(start[name] + step * direction[name])
        return value(objective, ready, batch)

    step = 1e-5
    difference = (moved(step) - moved(-step)) / (2 * step)
    moved(0.0)
    assert along == pytest.approx(difference, rel=1e-6, abs=1e-8)


def check_cut(objective: Any, ready: Any, items: Sequence[Item]) -> None:
    """One batch packed == one batch padded == a microbatch for each row: loss to 1e-5, gradients to 1e-6 of the largest."""
    whole, padded = one_batch(items), one_batch(items, packing=False)
    singles = [replace(one_batch([item]), counts=whole.counts) for item in items]
    expected, loss = gradients(objective, ready, [whole]), value(objective, ready, whole)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for batches in ([padded], singles):
        assert sum(value(objective, ready, batch) for batch in batches) == pytest.approx(loss, rel=1e-5, abs=1e-6)
        for name, gradient in gradients(objective, ready, batches).items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-6 * max(1.0, largest), rtol=1e-5)


def check_fake(objective: Any, items: Sequence[Item]) -> None:
    """Forward and backward run where there are shapes but no values."""
    with fake_weights_can_be_cast(), FakeTensorMode():
        ready = model(head=objective.head)
        for name, gradient in gradients(objective, ready, [one_batch(items)]).items():
            assert gradient.shape == ready.get_parameter(name).shape
