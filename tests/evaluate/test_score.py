"""The packed, branching scorer against a plain forward of each row alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genwright.base.errors import DataError
from genwright.evaluate.score import Scorer, cut, tree_of
from genwright.models.generate import log_probabilities
from genwright.models.load import load_model, load_tokenizer

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"


def test_a_tree_by_hand() -> None:
    tree = tree_of([(0, [1, 2, 3]), (1, [1, 2, 4, 5])])
    assert (tree.tokens, tree.document) == ([1, 2, 3, 4, 5], (2, 1, 2))
    assert tree.places == {0: [0, 1, 2], 1: [0, 1, 3, 4]}


def test_a_text_is_cut_at_the_first_stop() -> None:
    assert cut("one\ntwo. three", ["\n", "."]) == "one"


@pytest.mark.skipif(not STORIES.exists(), reason="the shared model is not here")
def test_each_answer_is_as_likely_as_when_scored_alone() -> None:
    scorer = Scorer(load_model(STORIES, dtype=torch.float32), load_tokenizer(STORIES))
    shared = "Once upon a time there was a little girl called Lily who loved to play in the park."
    asked = [
        (shared + f" She saw a {thing}.", answer)
        for thing in ("dog", "big cat")
        for answer in (" It ran", " It sat down", " No")
    ]
    asked += [("", "The sun was hot."), ("Tom ", "ran home")]
    found = scorer.likelihoods(asked)
    alone = log_probabilities(scorer.model, [scorer.encode_pair(*one) for one in asked])
    assert [one.nats for one in found] == pytest.approx(alone, abs=1e-3)
    with pytest.raises(DataError, match="nothing before its answer"):
        scorer.of_tokens([([], [1])])
