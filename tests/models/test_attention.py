"""Documents laid end to end never see each other: packed equals alone, and the gradient across is exactly zero."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from genwright.models.attention import (
    NAME,
    attention_per_document,
    documents,
    group_by_length,
    ordinary_attention,
    places_of,
    tokens_of,
)

CONFIGS = {
    "llama-gqa": ("llama", {"num_key_value_heads": 2, "num_attention_heads": 4}),
    "gemma2-softcap-window": ("gemma2", {"num_key_value_heads": 2, "num_attention_heads": 4, "head_dim": 8, "sliding_window": 5}),
    "mistral-window": ("mistral", {"num_key_value_heads": 2, "num_attention_heads": 4, "sliding_window": 5}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}),
}  # fmt: skip


def tiny(kind: str) -> torch.nn.Module:
    model_type, own = CONFIGS[kind]
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "pad_token_id": 0}
    if model_type != "gpt2":
        sizes |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64}
    config = AutoConfig.for_model(model_type, **sizes, **own)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().train()


def packed_logits(model: torch.nn.Module, rows: list[torch.Tensor]) -> torch.Tensor:
    ids = torch.cat(rows)[None]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    layout = documents([[len(row) for row in rows]], ids.shape[1])
    return model(input_ids=ids, position_ids=positions, documents=layout, use_cache=False).logits[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_logits_equal_each_document_alone(kind: str) -> None:
    model = tiny(kind)
    rows = [torch.randint(1, 40, (length,)) for length in (3, 17, 1, 9, 9)]
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    model.set_attn_implementation(NAME)
    torch.testing.assert_close(packed_logits(model, rows), alone, atol=2e-5, rtol=1e-4)


def test_the_fields_default_leaks_and_ours_does_not() -> None:
    """The oracle can fail: an all-ones mask, as most collators pass, lets documents see each other."""
    model = tiny("llama-gqa")
    rows = [torch.randint(1, 40, (length,)) for length in (5, 7)]
    alone = model(input_ids=rows[1][None], use_cache=False).logits[0]
    ids, positions = torch.cat(rows)[None], torch.cat([torch.arange(5), torch.arange(7)])[None]
    leaking = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits[
        0, 5:
    ]
    assert (leaking - alone).abs().max() > 1e-3


def test_gradient_across_documents_is_exactly_zero() -> None:
    model = tiny("llama-gqa")
    model.set_attn_implementation(NAME)
    embeddings = torch.randn(1, 12, 32, requires_grad=True)
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    layout = documents([[5, 7]], 12)
    logits = model(inputs_embeds=embeddings, position_ids=positions, documents=layout, use_cache=False).logits
    logits[0, 5:].square().sum().backward()
    assert torch.equal(embeddings.grad[0, :5], torch.zeros(5, 32))
    assert embeddings.grad[0, 5:].abs().min() > 0


@pytest.mark.parametrize("lengths", [[[4, 4, 4]], [[3, 60, 2, 1]], [[5, 2], [7]], [[1], [6, 1]], [[300, 8, 290]]])
@pytest.mark.parametrize("causal", [True, False])
def test_values_and_gradients_equal_sdpa_with_a_block_mask(lengths: list[list[int]], causal: bool) -> None:
    """Against torch's own attention on the same tensors; padding of a row gets and gives no gradient."""
    torch.manual_seed(1)
    num_rows, width = len(lengths), max(map(sum, lengths))
    q, k, v = (torch.randn(num_rows, heads, width, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    number = torch.full((num_rows, width), -1)
    for row, sizes in enumerate(lengths):
        number[row, : sum(sizes)] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    mask = (number[:, :, None] == number[:, None, :])[:, None]
    mask = mask & torch.ones(width, width).tril().bool() if causal else mask
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    module = SimpleNamespace(is_causal=causal)
    found, _ = attention_per_document(module, q, k, v, None, documents=documents(lengths, width))
    real = (number >= 0)[:, :, None, None]
    weight = torch.randn_like(expected) * real
    torch.testing.assert_close(found * real, expected * real)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
    ):
        torch.testing.assert_close(ours, theirs)


def test_encoder_documents_see_both_ways_and_only_themselves() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert", vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0,
    )  # fmt: skip
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    rows = [torch.randint(1, 40, (length,)) for length in (6, 11, 4)]
    alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
    model.set_attn_implementation(NAME)
    ids, positions = torch.cat(rows)[None], torch.cat([torch.arange(len(row)) for row in rows])[None]
    packed = model(input_ids=ids, position_ids=positions, documents=documents([[6, 11, 4]], 21)).logits[0]
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-4)


def test_long_and_short_documents_are_not_padded_to_each_other() -> None:
    groups = group_by_length([(0, 1000), (1000, 40), (1040, 38)])
    assert [[length for _, length in group] for group in groups] == [[1000], [40, 38]]


def test_attention_dropout_drops_weights_and_keeps_their_mean() -> None:
    """Values of 1 everywhere: the output is the sum of the weights that are left, 1 on average, and never only 1."""
    torch.manual_seed(0)
    q = torch.zeros(1, 2, 64, 4)
    ones = torch.ones(1, 2, 64, 4)
    layout = documents([[64]], 64)
    whole, _ = attention_per_document(SimpleNamespace(), q, q, ones, None, documents=layout)
    dropped, _ = attention_per_document(SimpleNamespace(), q, q, ones, None, documents=layout, dropout=0.3)
    torch.testing.assert_close(whole, torch.ones_like(whole))
    assert abs(float(dropped.mean()) - 1) < 0.1 and float(dropped.std()) > 0.05


def test_ordinary_attention_comes_and_goes() -> None:
    model = tiny("llama-gqa")
    model.set_attn_implementation(NAME)
    with ordinary_attention(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == NAME


def test_an_architecture_without_sdpa_gets_eager() -> None:
    model = tiny("gemma2-softcap-window")
    model.set_attn_implementation(NAME)
    model._supports_sdpa = False
    with ordinary_attention(model):
        assert model.config._attn_implementation == "eager"


BRANCHING = [
    ((3, 2, 4),),
    (5, (4, 3, 3, 6), (2, 1, 5), 3),
    ((2, (3, 1, 2), 4),),
]


@pytest.mark.parametrize("lengths", BRANCHING)
@pytest.mark.parametrize("prefix", [0, 3])
def test_a_branch_sees_what_it_shares_and_itself(lengths: tuple, prefix: int) -> None:
    """Each path alone through torch's own attention gives the same outputs and, summed over paths, the same gradients."""
    torch.manual_seed(0)
    width = sum(map(tokens_of, lengths))
    layout = documents([lengths], width, padding=2, round_to=4)
    layout = layout.behind(prefix) if prefix else layout
    keys = torch.randn(2, 1, 2, prefix + width + 2, 8, dtype=torch.float64).requires_grad_()
    query = torch.randn(1, 4, width + 2, 8, dtype=torch.float64).requires_grad_()
    output = attention_per_document(torch.nn.Module(), query, keys[0], keys[1], None, documents=layout)[0]
    queries = torch.nn.functional.pad(query, (0, 0, prefix, 0))
    expected, read = torch.zeros(1, prefix + width + 2, 4, 8, dtype=torch.float64), set()
    for path in layout.paths:
        where = torch.tensor([place for start, length in path for place in range(start, start + length)])
        mixed = torch.nn.functional.scaled_dot_product_attention(
            queries[:, :, where], keys[0][:, :, where], keys[1][:, :, where], is_causal=True, enable_gqa=True
        ).transpose(1, 2)
        new = [index for index, token in enumerate(where.tolist()) if token not in read]
        read |= set(where.tolist())
        expected = expected.index_copy(1, where[new], mixed[:, new])
    torch.testing.assert_close(output[:, :width], expected[:, prefix:][:, :width])
    weights = torch.randn_like(output[:, :width])
    ours = torch.autograd.grad((output[:, :width] * weights).sum(), [keys, query])
    theirs = torch.autograd.grad((expected[:, prefix:][:, :width] * weights).sum(), [keys, query])
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


def test_positions_go_on_after_what_is_shared() -> None:
    assert places_of((2, (3, 1, 2), 4)) == [0, 1, 2, 3, 4, 5, 5, 6, 2, 3, 4, 5]
    assert tokens_of((2, (3, 1, 2), 4)) == 12


def test_branches_are_refused_where_attention_looks_ahead() -> None:
    module = torch.nn.Module()
    module.is_causal = False
    tensor = torch.randn(1, 2, 6, 4)
    with pytest.raises(ValueError, match="share tokens"):
        attention_per_document(module, tensor, tensor, tensor, None, documents=documents([((2, 2, 2),)], 6))
