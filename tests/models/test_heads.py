"""Heads of classes, tags and embeddings against `transformers`' own models of each, and against themselves packed."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e import tiny
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from genwright.base.errors import RecipeError
from genwright.data.collate import Item, collate_items
from genwright.models.attention import NAME
from genwright.models.families import Head, hidden_of, logits_and_values_at, scores_at, tags_at
from genwright.models.load import load_model
from genwright.objectives.classify import class_scores
from genwright.objectives.contrast import embeddings
from genwright.objectives.language import model_inputs

CLASSES = ("red", "green", "blue")
LENGTHS = (5, 11, 2, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(family: str) -> Path:
        return tiny.write_model(tmp_path_factory.mktemp(family), family)

    return made


def model_of(folder: Path, kind: str) -> Any:
    """Our model with a random head, large enough that scores differ."""
    torch.manual_seed(3)
    return load_model(folder, dtype=torch.float32, attention=NAME, head=Head(kind, CLASSES))


def twin_of(model: Any, kind: Any) -> Any:
    """The model of `transformers` with the same weights and its own attention and pooling."""
    twin = kind.from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    return twin


def rows(seed: int = 0) -> list[list[int]]:
    """Tokens of which none is padding (0), and the last of some is EOS (1)."""
    torch.manual_seed(seed)
    made = [torch.randint(10, 300, (length,)).tolist() for length in LENGTHS]
    made[1][-1] = 1
    return made


def items(family: str, ids: list[list[int]]) -> list[Item]:
    return [
        Item(one, len(one), [len(one) - 1 if family == "decoder" else 0], [number % 3], [0])
        for number, one in enumerate(ids)
    ]


def one_batch(made: list[Item], *, packing: bool, pad_id: int = 0) -> Any:
    (batch,) = collate_items(made, packing=packing, capacity=1000, pad_id=pad_id)
    return batch


def padded(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, ids))
    return torch.tensor([one + [0] * (width - len(one)) for one in ids]), torch.tensor(
        [[1] * len(one) + [0] * (width - len(one)) for one in ids]
    )


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@torch.no_grad()
def test_class_scores_equal_transformers(family: str, folder: Any) -> None:
    ours = model_of(folder(family), "classes")
    twin = twin_of(ours, AutoModelForSequenceClassification)
    twin.config.pad_token_id = 0
    ids_BT, mask_BT = padded(rows())
    expected = twin(input_ids=ids_BT, attention_mask=mask_BT).logits
    assert expected.std() > 1e-3
    batch = one_batch(items(family, rows()), packing=False)
    order = [rows().index(ids[:length]) for ids, ((length,)) in zip(batch.input_ids_BT.tolist(), batch.lengths)]
    torch.testing.assert_close(class_scores(ours, batch), expected[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@torch.no_grad()
def test_scores_do_not_depend_on_padding_its_id_or_on_neighbours(family: str, folder: Any) -> None:
    """Also where padding has EOS's id, which `transformers` would take for the end of the text."""
    ours = model_of(folder(family), "classes")
    made = items(family, rows())
    alone = {tuple(one.input_ids): class_scores(ours, one_batch([one], packing=True))[0] for one in made}
    for packing, pad_id in [(False, 0), (False, 1), (False, 77), *([(True, 0)] if family == "decoder" else [])]:
        batch = one_batch(made, packing=packing, pad_id=pad_id)
        scores = class_scores(ours, batch)
        members = sorted(made, key=lambda one: -len(one.input_ids)) if not packing else [
            next(one for one in made if len(one.input_ids) == length) for row in batch.lengths for length in row
        ]  # fmt: skip
        for one, score in zip(members, scores, strict=True):
            torch.testing.assert_close(score, alone[tuple(one.input_ids)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@torch.no_grad()
def test_tag_scores_equal_transformers(family: str, folder: Any) -> None:
    ours = model_of(folder(family), "tags")
    twin = twin_of(ours, AutoModelForTokenClassification)
    made = [Item(ids, len(ids), [0, len(ids) - 1], [0, 1], [0, 0]) for ids in rows()]
    batch = one_batch(made, packing=True)
    expected = {length: twin(input_ids=torch.tensor([ids])).logits[0, [0, -1]] for ids, length in zip(rows(), LENGTHS)}
    expected_NC = torch.cat([expected[length] for length in batch.lengths[0]])
    torch.testing.assert_close(tags_at(ours, model_inputs(batch), batch.positions_N), expected_NC, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@torch.no_grad()
def test_embeddings_packed_equal_embeddings_alone_and_the_mean_by_hand(family: str, folder: Any) -> None:
    ours = model_of(folder(family), "embedding")
    ids = rows()
    pairs = [
        Item(ids[one] + ids[one + 1], (0, LENGTHS[one], LENGTHS[one + 1]), [], [], [], 2, {"pairs": 1.0})
        for one in (0, 2)
    ]
    plain = load_model(folder(family), dtype=torch.float32, attention="eager", head=Head("embedding"))
    means = [plain(input_ids=torch.tensor([one])).last_hidden_state[0].mean(0) for one in ids]
    wanted = {length: mean / mean.norm() for length, mean in zip(LENGTHS, means)}
    for packing in (True, False):
        batch = one_batch(pairs, packing=packing)
        lengths = [length for row in batch.lengths for _, *branches in row for length in branches]
        found = embeddings(ours, batch)
        torch.testing.assert_close(found, torch.stack([wanted[length] for length in lengths]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))


@torch.no_grad()
def test_a_pooled_score_of_a_branch_is_that_of_prompt_and_answer_alone(folder: Any) -> None:
    ours, ids = model_of(folder("decoder"), "score"), rows()
    branching = Item(ids[0] + ids[1] + ids[3], (5, 11, 7), [], [], [], 2, {"pairs": 1.0}, ends=[15, 22])
    batch = one_batch([branching], packing=True)
    found = scores_at(ours, model_inputs(batch), batch.columns["last_D"])
    for score, answer in zip(found, (ids[1], ids[3])):
        alone = one_batch(items("decoder", [ids[0] + answer]), packing=True)
        torch.testing.assert_close(
            score, scores_at(ours, model_inputs(alone), alone.positions_N)[0], atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_values_and_logits_of_one_pass_are_those_of_the_last_hidden_states(folder: Any) -> None:
    ours = model_of(folder("decoder"), "value")
    assert not ours.value_head.weight.any() and not ours.value_head.bias.any()
    torch.nn.init.normal_(ours.value_head.weight)
    batch = one_batch(items("decoder", rows()), packing=True)
    logits_NV, values_N = logits_and_values_at(ours, model_inputs(batch), batch.positions_N)
    hidden_NH = hidden_of(ours.base_model, model_inputs(batch))[batch.positions_N]
    torch.testing.assert_close(values_N, hidden_NH @ ours.value_head.weight[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits_NV, ours.lm_head(hidden_NH), atol=1e-5, rtol=1e-5)


def test_a_fresh_head_is_named_float32_and_the_seeds(folder: Any) -> None:
    for family, name in (("decoder", "score"), ("encoder", "classifier")):
        one, other = (model_of(folder(family), "classes") for _ in range(2))
        assert one.genwright_heads == (name,) and one.config.num_labels == 3 and one.config.id2label[2] == "blue"
        torch.testing.assert_close(one.get_submodule(name).weight, other.get_submodule(name).weight, atol=0, rtol=0)
        half = load_model(folder(family), dtype=torch.bfloat16, attention=NAME, head=Head("classes", CLASSES))
        assert half.get_submodule(name).weight.dtype == torch.float32


@pytest.mark.parametrize(
    "kind, family", [("classes", "encoder-decoder"), ("value", "encoder"), ("tags", "encoder-decoder")]
)
def test_a_family_without_the_head_says_so(kind: str, family: str) -> None:
    with pytest.raises(RecipeError, match=f"An {family} has no {kind} head"):
        Head(kind).loader(family)
