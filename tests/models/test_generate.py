"""Generation equals transformers' own, row by row, whoever shares the batch; log-probabilities add up by hand."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from genwright.base.errors import BadRequest, DataError, RecipeError
from genwright.models.attention import NAME
from genwright.models.generate import Sampling, choose, generate, log_probabilities, stop_ids

DECODERS = ["llama", "gemma2", "gpt2"]


def some_prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(4, 48, (length,), generator=generator).tolist() for length in (5, 1, 17, 9, 3, 12, 17)]


def theirs(model, prompt: list[int], num_tokens: int, stops: set[int]) -> list[int]:
    """One row alone by transformers' own loop, cut before the token that ends it."""
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0,
        eos_token_id=list(stops),
    )  # fmt: skip
    answer = out[0, len(prompt) :].tolist()
    return answer[:-1] if answer[-1] in stops else answer


def stop_in_the_middle(model, prompts: list[list[int]]) -> set[int]:
    """A token that ends some of these answers early, so that rows really leave the batch."""
    answers = [theirs(model, prompt, 12, {2}) for prompt in prompts]
    counts = {token: sum(token in answer for answer in answers) for answer in answers for token in answer}
    return {2, 3, min(counts, key=lambda token: (abs(counts[token] - len(prompts) // 2), token))}


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_equals_transformers_own_row_by_row(kind: str, batch_size: int, model_of, tokenizer) -> None:
    model, prompts = model_of(kind), some_prompts()
    stops = stop_in_the_middle(model, prompts)
    model.generation_config.eos_token_id = sorted(stops)
    expected = [theirs(model, prompt, 12, stops) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 1
    assert generate(model, tokenizer, prompts, Sampling(12), batch_size=batch_size) == expected


def test_a_wrapped_model_answers_adapted(model_of, tokenizer) -> None:
    model = model_of("llama")
    plain = generate(model, tokenizer, some_prompts(), Sampling(6))
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    adapted = generate(wrapped, tokenizer, some_prompts(), Sampling(6), batch_size=3)
    assert adapted != plain
    assert adapted == [theirs(wrapped, prompt, 6, {2, 3}) for prompt in some_prompts()]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_each_row_may_fill_the_context_whoever_shares_its_batch(kind: str, model_of, tokenizer) -> None:
    model = model_of(kind)
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    tokenizer.get_vocab = dict
    answers = generate(model, tokenizer, [[5] * 4, [6] * 63], Sampling(100))
    assert [len(answer) for answer in answers] == [60, 1]
    assert generate(model, tokenizer, [[5] * 4], Sampling(100)) == answers[:1]


def test_sampling_depends_on_seed_and_row_only(model_of, tokenizer) -> None:
    model, prompts = model_of("llama"), some_prompts()
    hot = Sampling(8, temperature=3.0, seed=1)
    together = generate(model, tokenizer, prompts, hot)
    assert together == generate(model, tokenizer, prompts, hot, batch_size=2)
    assert together != generate(model, tokenizer, prompts, Sampling(8, temperature=3.0, seed=2))
    assert together != generate(model, tokenizer, prompts, Sampling(8))


def test_rows_with_the_same_prompt_draw_for_themselves(model_of, tokenizer) -> None:
    answers = generate(model_of("llama"), tokenizer, [[5, 6]] * 6, Sampling(8, temperature=3.0))
    assert len(set(map(tuple, answers))) > 3


def test_draws_follow_the_probabilities() -> None:
    """With p = softmax(log [1, 2, 4, 8] / 1); over 4,000 draws each share is within four standard errors."""
    logits = torch.tensor([1.0, 2.0, 4.0, 8.0]).log().expand(4000, 4)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor(choose(logits, Sampling(temperature=1.0), [generator] * 4000)).bincount(minlength=4) / 4000
    torch.testing.assert_close(drawn, torch.tensor([1, 2, 4, 8]) / 15, atol=4 * 0.5 / 4000**0.5, rtol=0)
    cold = torch.tensor(choose(logits, Sampling(temperature=0.5), [generator] * 4000)).bincount(minlength=4) / 4000
    torch.testing.assert_close(cold, torch.tensor([1, 4, 16, 64]) / 85, atol=4 * 0.5 / 4000**0.5, rtol=0)


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(temperature=1.0, top_k=2), {2, 3}),
        (Sampling(temperature=1.0, top_k=1), {3}),
        (Sampling(temperature=1.0, top_p=0.5), {3}),
        (Sampling(temperature=1.0, top_p=0.55), {2, 3}),
        (Sampling(temperature=1.0, top_p=0.81), {1, 2, 3}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
    ],
)
def test_top_k_and_top_p_leave_the_likeliest(sampling: Sampling, possible: set[int]) -> None:
    """Probabilities 1, 2, 4, 8 of 15: the last alone holds 0.533, the last two 0.8."""
    logits = torch.tensor([1.0, 2.0, 4.0, 8.0]).log().expand(500, 4)
    assert set(choose(logits, sampling, [torch.Generator().manual_seed(0)] * 500)) == possible


def test_stops_are_the_models_the_tokenizers_and_the_ends_of_turn(model_of, tokenizer) -> None:
    model = model_of("llama")
    model.generation_config.eos_token_id = [7, 9]
    assert stop_ids(model, tokenizer) == {7, 9, 2, 3}
    model.generation_config.eos_token_id = 7
    assert stop_ids(model, tokenizer) == {7, 2, 3}


def test_progress_counts_rows(model_of, tokenizer) -> None:
    told: list[tuple[int, int]] = []
    generate(
        model_of("llama"), tokenizer, some_prompts(), Sampling(1), batch_size=3, progress=lambda *now: told.append(now)
    )
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_training_mode_and_attention_come_back(model_of, tokenizer) -> None:
    model = model_of("llama").train()
    expected = generate(model, tokenizer, some_prompts(), Sampling(4))
    model.set_attn_implementation(NAME)
    assert generate(model, tokenizer, some_prompts(), Sampling(4)) == expected
    assert model.training and model.config._attn_implementation == NAME


@pytest.mark.parametrize(("prompt", "message"), [([], "Prompt 2 is empty"), ([5] * 64, "found:  64 tokens")])
def test_a_prompt_that_does_not_fit_is_an_error_before_anything_is_run(prompt, message, model_of, tokenizer) -> None:
    model, told = model_of("llama"), []
    model.register_forward_pre_hook(lambda *_: told.append(1))
    with pytest.raises(DataError, match=message):
        generate(model, tokenizer, [[5], prompt], Sampling(1))
    assert not told


def test_no_prompts_no_answers(model_of, tokenizer) -> None:
    assert generate(model_of("llama"), tokenizer, [], Sampling(1)) == []


def test_what_is_no_decoder_says_so(model_of, tokenizer) -> None:
    with pytest.raises(RecipeError, match="BertForMaskedLM does not continue a text"):
        generate(model_of("bert"), tokenizer, [[5]], Sampling(1))


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(BadRequest, match="sampling settings make no sense"):
        Sampling(**wrong)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_log_probabilities_add_up_row_by_row(kind: str, batch_size: int, model_of) -> None:
    model = model_of(kind)
    rows = [([5, 6, 7], [8, 9]), ([5], [6]), ([4] * 9, [10, 11, 12]), ([7, 8], [])]
    found = log_probabilities(model, rows, batch_size=batch_size)
    for (prompt, answer), value in zip(rows, found):
        logits = model(torch.tensor([prompt + answer])).logits[0].detach().double().log_softmax(-1)
        assert value == pytest.approx(
            sum(float(logits[len(prompt) - 1 + i, t]) for i, t in enumerate(answer)), abs=1e-4
        )


def test_rows_without_answers_have_log_probability_0(model_of) -> None:
    assert log_probabilities(model_of("llama"), [([5], []), ([6, 7], [])]) == [0.0, 0.0]


def test_a_row_longer_than_the_context_is_an_error(model_of) -> None:
    with pytest.raises(DataError, match=r"Row 1 does not fit the model[\s\S]*60 of the prompt and 5 of the answer"):
        log_probabilities(model_of("llama"), [([5] * 60, [5] * 5)])
    with pytest.raises(DataError, match="Prompt 1 is empty"):
        log_probabilities(model_of("llama"), [([], [5])])


def test_a_frozen_heads_weights_are_never_copied_a_row(model_of, tokenizer) -> None:
    """Torch would multiply a strided slice batch by batch, with V x D weights expanded once a row: 0.9 GiB for SmolLM2."""
    from torch.utils._python_dispatch import TorchDispatchMode

    model = model_of("llama").requires_grad_(False)
    vocabulary = model.config.vocab_size
    seen: list[tuple[str, tuple[int, ...]]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.extend(
                (func.__name__, tuple(arg.shape))
                for arg in args
                if isinstance(arg, torch.Tensor) and vocabulary in arg.shape[-2:]
            )
            return func(*args, **(kwargs or {}))

    with Watch():
        generate(model, tokenizer, some_prompts(), Sampling(max_new_tokens=2))
    products = [shape for name, shape in seen if "mm" in name]
    assert products and all(len(shape) == 2 for shape in products)
