"""When the body's last hidden states are kept: where only the head is trained, the body says the same of a row in every epoch.

The column hidden_NH is what the head reads at each label, made once. From then on a step multiplies by the head alone: 4fH
FLOPs a token instead of 2N + 4fH.
"""

from __future__ import annotations

from typing import Any

from genwright.adapters.full import Head
from genwright.data.layouts import Feed
from genwright.engine.recipe import Recipe

COLUMN = "hidden_NH"
LAYOUTS = ("text", "answers")
"""Layouts that show a row the same in every epoch, with labels that the language head predicts."""

MOST_BYTES = 2 * 2**30
"""Kept states are not let grow beyond this."""


def keeps_hidden(recipe: Recipe, config: Any, feed: Feed) -> bool:
    """Whether a run keeps them: only the head is trained, nothing below it is left to chance, rows are seen twice, they fit.

    The head's output must be the logits themselves: an architecture that caps or scales them after it is left alone.
    """
    text = config.get_text_config()
    labels = sum(sum(row.learned[1:]) for row in feed.encoded)
    return (
        isinstance(recipe.adapter, Head)
        and recipe.objective.head == "language"
        and recipe.objective.layout in LAYOUTS
        and not recipe.objective.columns
        and not getattr(config, "is_encoder_decoder", False)
        and recipe.steps * recipe.batch_size >= 2 * len(feed)
        and not any(value for name, value in vars(text).items() if _is_chance_or_scale(name))
        and labels * text.hidden_size * 4 <= MOST_BYTES
    )


def _is_chance_or_scale(name: str) -> bool:
    return "drop" in name or name in (
        "final_logit_softcapping",
        "logit_scale",
        "logits_scaling",
        "output_multiplier_alpha",
    )
