"""Soft prompts: ours equals `peft`'s row by row, a text's embeddings equal the text, and a prompt is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    PeftModel,
    PeftModelForCausalLM,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from genwright.adapters.forward import use_our_forward_
from genwright.adapters.soft import (
    PrefixTuning,
    PromptedModel,
    PromptTuning,
    PTuning,
    cache_of,
    flat_prefix,
    share_prompt_,
)
from genwright.base.errors import RecipeError
from genwright.models.attention import NAME, documents, ordinary_attention, places_of

P = 5
SOFT = [PromptTuning(tokens=P), PTuning(tokens=P, width=8), PTuning(tokens=P, width=8, network="lstm"),
        PrefixTuning(tokens=P), PrefixTuning(tokens=P, projection=8)]  # fmt: skip
soft = pytest.mark.parametrize("adapter", SOFT, ids=["prompt", "p-mlp", "p-lstm", "prefix", "prefix-mlp"])
ROWS = [[3, 4, 5, 6], [7, 8], [9, 10, 11, 12, 13, 14]]


def packed(rows: list[list[int]]) -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.tensor([[place for row in rows for place in range(len(row))]]),
        "documents": documents([[len(row) for row in rows]], sum(map(len, rows))),
        "use_cache": False,
    }


def moved(model: Any) -> Any:
    """Away from its start."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def as_peft(model: Any) -> Any:
    model.__class__ = PeftModelForCausalLM
    return model


@soft
def test_packed_logits_and_gradients_are_those_of_pefts_rows(adapter: Any, model_of: Any) -> None:
    ours = moved(adapter.wrap(model_of("decoder", attention=NAME)))
    theirs = as_peft(moved(adapter.wrap(model_of("decoder"))))
    assert type(ours) is PromptedModel and type(theirs) is PeftModelForCausalLM
    mine = ours(**packed(ROWS)).logits[0]
    rows = [theirs(input_ids=torch.tensor([row])).logits[0, -len(row) :] for row in ROWS]
    torch.testing.assert_close(mine, torch.cat(rows), atol=2e-5, rtol=2e-5)
    mine.square().sum().backward()
    torch.cat(rows).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-3, rtol=1e-3)
    assert expected and all(gradient.abs().max() > 0 for gradient in expected.values() if gradient is not None)


@soft
def test_rows_with_a_mask_are_pefts_rows(adapter: Any, model_of: Any) -> None:
    model = moved(adapter.wrap(model_of("decoder")))
    ids = torch.tensor([[0, 0, 3, 4, 5], [6, 7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        mine = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        alone = [as_peft(model)(input_ids=one[None]).logits[0, -len(one) :] for one in (ids[0, 2:], ids[1])]
    torch.testing.assert_close(mine[0, 2:], alone[0], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(mine[1], alone[1], atol=2e-5, rtol=2e-5)


def in_a_folder(model: Any, folder: Path) -> Any:
    """The model read from a folder, with a tokenizer of fifty words."""
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(50)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=NAME)


TEXT, IDS = "w20 w31 w2 w45 w9", [20, 31, 2, 45, 9]


def test_a_prompt_that_starts_as_a_text_is_that_text_to_the_last_bit(model_of: Any, tmp_path: Path) -> None:
    base = in_a_folder(model_of("decoder"), tmp_path).eval()
    with torch.no_grad():
        expected = base(**packed([IDS + ROWS[0]])).logits[0, P:]
        model = PromptTuning(tokens=P, text=TEXT).wrap(base).eval()
        assert torch.equal(model(**packed([ROWS[0]])).logits[0], expected)


def test_a_prefix_that_starts_as_a_text_is_that_text(model_of: Any, tmp_path: Path) -> None:
    base = in_a_folder(model_of("decoder"), tmp_path).eval()
    with torch.no_grad():
        expected = base(**packed([IDS + ROWS[0], IDS + ROWS[2]])).logits[0]
        model = PrefixTuning(tokens=P, text=TEXT).wrap(base).eval()
        found = model(**packed([ROWS[0], ROWS[2]])).logits[0]
    wanted = torch.cat([expected[P : P + 4], expected[P + 4 + P :]])
    torch.testing.assert_close(found, wanted, atol=3e-5, rtol=0)


def test_a_text_is_repeated_or_cut(model_of: Any, tmp_path: Path) -> None:
    base = in_a_folder(model_of("decoder"), tmp_path)
    weight = PromptTuning(tokens=7, text=TEXT).wrap(base).prompt_encoder["default"].embedding.weight
    assert torch.equal(weight, base.get_input_embeddings()(torch.tensor([*IDS, *IDS[:2]])))


def test_without_a_text_it_starts_as_random_words_by_the_seed(model_of: Any) -> None:
    base = model_of("decoder")
    found = []
    for seed in (1, 1, 2):
        model = model_of("decoder")
        torch.manual_seed(seed)
        found.append(PromptTuning(tokens=P).wrap(model).prompt_encoder["default"].embedding.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    table = base.get_input_embeddings().weight
    assert all(any(torch.equal(row, word) for word in table) for row in found[0])


@soft
def test_it_is_saved_as_numbers_alone(adapter: Any, model_of: Any, tmp_path: Path) -> None:
    """P-tuning's network and prefix tuning's MLP are folded: what is left is a plain prompt of `peft`."""
    model = moved(adapter.wrap(model_of("decoder")))
    adapter.save(model, tmp_path)
    loaded = PeftModel.from_pretrained(model_of("decoder"), tmp_path).eval()
    config = loaded.active_peft_config
    wanted = PrefixTuningConfig if isinstance(adapter, PrefixTuning) else PromptTuningConfig
    assert type(config) is wanted and config.num_virtual_tokens == P
    assert [name for name, _ in loaded.named_parameters() if "prompt_encoder" in name] == [
        "prompt_encoder.default.embedding.weight"
    ]
    ids = torch.tensor([ROWS[2]])
    torch.testing.assert_close(loaded(input_ids=ids).logits[:, -6:], model(input_ids=ids).logits, atol=2e-5, rtol=2e-5)


def test_a_folder_of_pefts_own_p_tuning_opens(model_of: Any, tmp_path: Path) -> None:
    theirs = moved(
        get_peft_model(
            model_of("decoder"), PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=P, encoder_hidden_size=8)
        )
    )
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor([ROWS[2]])
    expected = theirs(input_ids=ids).logits[:, P:]
    loaded = PeftModel.from_pretrained(model_of("decoder"), tmp_path)
    use_our_forward_(loaded)
    assert type(loaded) is PromptedModel and not share_prompt_(loaded)
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@soft
def test_transformers_own_generation_still_works(adapter: Any, model_of: Any) -> None:
    """`generate` of `transformers` goes `peft`'s way: greedy tokens are those of our own cache, token by token."""
    model = moved(adapter.wrap(model_of("decoder")))
    ids = torch.tensor([ROWS[0]])
    theirs = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, eos_token_id=None
    )
    for _ in range(4):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(theirs, ids)


def flops(model: Any, inputs: dict[str, Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=torch.tensor([0])).logits.sum().backward()
    return int(counter.get_total_flops())


def test_a_prompt_is_computed_once_for_all_documents(model_of: Any) -> None:
    """4N for each of P virtual tokens, once: ten documents pay what one pays. Attention is counted apart, and left out."""
    many, one = [[5, 6]] * 10, [[5, 6] * 10]
    counted = {}
    for name, rows in (("many", many), ("one", one)):
        model = PromptTuning(tokens=P).wrap(model_of("decoder", attention=NAME))
        counted[name] = flops(model, packed(rows))
    body = sum(p.numel() for n, p in model_of("decoder").named_parameters() if p.dim() == 2 and "embed" not in n)
    floor = 4 * body * (20 + P) + 4 * 50 * 32
    heads = lambda pairs: 2 * 2 * 3 * 2 * 32 * pairs  # two layers, two products forward and four back, of 2 * 32 a pair
    assert counted["many"] - floor <= heads(10 * (P + 2) ** 2)
    assert counted["one"] - floor <= heads((P + 20) ** 2)


def test_a_prefix_costs_no_products_but_attentions(model_of: Any) -> None:
    """4N + 4fH: with P keys and values in front, the linear layers multiply as often as without."""
    model = PrefixTuning(tokens=P).wrap(model_of("decoder", attention=NAME))
    body = sum(p.numel() for n, p in model_of("decoder").named_parameters() if p.dim() == 2 and "embed" not in n)
    counted = flops(model, packed([[5, 6] * 10]))
    # The lowest layer's queries need no gradient, its keys and values neither: the input of the row is frozen.
    assert 2 * body * 20 < counted <= 4 * body * 20 + 4 * 50 * 32 + 2 * 2 * 3 * 2 * 32 * (P + 20) ** 2


def test_sliding_windows_see_the_prompt_as_they_see_tokens() -> None:
    """Gemma 2: half of the layers look back four tokens only, over the prompt's tokens as over any."""
    config = AutoConfig.for_model(
        "gemma2", vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=4, max_position_embeddings=64, query_pre_attn_scalar=8,
    )  # fmt: skip
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval()
    with torch.no_grad():
        expected = base(**packed([IDS + ROWS[2]])).logits[0, P:]
        for adapter in (PromptTuning(tokens=P), PrefixTuning(tokens=P)):
            model = adapter.wrap(base).eval()
            weight = model.prompt_encoder["default"].embedding.weight
            words = base.get_input_embeddings()(torch.tensor(IDS))
            weight.copy_(words if isinstance(adapter, PromptTuning) else flat_prefix(cache_of(base, words[None])))
            torch.testing.assert_close(model(**packed([ROWS[2]])).logits[0], expected, atol=3e-5, rtol=0)
            with ordinary_attention(model):
                row = model(input_ids=torch.tensor([ROWS[2]])).logits[0]
            torch.testing.assert_close(row, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        (
            PTuning(network="gru"),
            r'no such network.\n  wanted: "mlp" or "lstm", at least 1 wide\n  found:  gru, 128 wide',
        ),
        (PromptTuning(tokens=0), "tokens is too small"),
        (PrefixTuning(text="w1", projection=8), "text has no effect beside projection"),
        (PromptTuning(text="w1"), "needs the model's tokenizer"),
    ],
)
def test_bad_settings(adapter: Any, says: str, model_of: Any) -> None:
    with pytest.raises(RecipeError, match=says):
        adapter.wrap(model_of("decoder"))


def test_a_text_without_tokens(model_of: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="text has no tokens"):
        PromptTuning(text="  ").wrap(in_a_folder(model_of("decoder"), tmp_path))


@soft
def test_behind_a_prompt_documents_branch_and_rows_are_padded_as_ever(adapter: Any, model_of: Any) -> None:
    """A pair that shares its question, then a plain document, then padding that nobody reads."""
    question, chosen, rejected, other = [3, 4, 5], [6, 7], [8, 9, 10, 11], [12, 13]
    model = moved(adapter.wrap(model_of("decoder", attention=NAME)))
    ids, pair = [*question, *chosen, *rejected, *other], (3, 2, 4)
    inputs = {
        "input_ids": torch.tensor([ids + [0] * 5]),
        "position_ids": torch.tensor([[*places_of(pair), *places_of(2), *[0] * 5]]),
        "documents": documents([[pair, 2]], len(ids), padding=5, round_to=16),
        "use_cache": False,
    }
    with torch.no_grad():
        found = model(**inputs).logits[0]
        for rows, positions in (
            (question + chosen, [0, 1, 2, 3, 4]),
            (question + rejected, [0, 1, 2, 5, 6, 7, 8]),
            (other, [9, 10]),
        ):
            torch.testing.assert_close(found[positions], model(**packed([rows])).logits[0], atol=2e-5, rtol=2e-5)
