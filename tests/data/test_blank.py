"""Rows made up to size a method: every objective gets microbatches of the stated length, or an error that names the families that can."""

from __future__ import annotations

import pytest

from genwright.base.errors import RecipeError
from genwright.catalogue.parts import LAYOUTS, OBJECTIVES
from genwright.data.blank import blank_feed
from genwright.models.families import FAMILIES

TOKENS = 32


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_rows_or_says_for_whom(name: str) -> None:
    objective = OBJECTIVES[name]()
    for family in FAMILIES:
        if family not in LAYOUTS[objective.layout].families:
            with pytest.raises(RecipeError, match="cannot be learned by this model"):
                blank_feed(objective, family, TOKENS, 2)
            continue
        feed = blank_feed(objective, family, TOKENS, 2, ("no", "yes"))
        if objective.layout != "prompts":  # answered before they are laid out
            assert (
                sum(batch.tokens for batch in feed.batches([0, 1], seed=0, step=0, packing=True, capacity=1 << 20))
                >= TOKENS
            )
        assert {row.num_tokens for row in feed.encoded} <= {TOKENS // 2, TOKENS, TOKENS * 3 // 2, TOKENS * 2}


def test_a_pair_shares_its_prompt_and_masks_hide_their_share() -> None:
    pair = blank_feed(OBJECTIVES["dpo"](), "decoder", TOKENS, 1).encoded[0]
    assert pair.branches == (16, 16, 16) and sum(pair.learned) == 32
    (batch,) = blank_feed(OBJECTIVES["masked"](mask_fraction=0.25), "encoder", TOKENS, 1).batches(
        [0], seed=0, step=0, packing=True, capacity=1 << 20
    )
    assert batch.labels_N.numel() == TOKENS * 0.25 - 1
