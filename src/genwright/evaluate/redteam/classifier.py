"""A classifier of two classes from a folder, such as `examples/guard` trains: texts in, the probability of harm out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from genwright.base.errors import ModelError
from genwright.models.families import Head
from genwright.models.load import load_config, load_model, load_tokenizer

HARMFUL = ("harmful", "toxic", "unsafe", "injection", "jailbreak", "bad")
"""Names of the class that means harm, in the order they are looked for."""

MOST_TOKENS = 256


def harmful_of(folder: Path) -> Callable[[list[str]], list[float]]:
    """Texts to probabilities. Errors: ModelError where the folder is no classifier, or no class means harm."""
    config = load_config(folder)
    labels = [str(config.id2label[number]) for number in sorted(config.id2label)]
    chosen = next((name for name in HARMFUL if name in labels), None)
    sorts = any("SequenceClassification" in name for name in getattr(config, "architectures", None) or [])
    if chosen is None or not sorts:
        raise ModelError(
            f"No class of {folder} means harm.", wanted=f"two classes, one named {', '.join(HARMFUL[:3])}", found=", ".join(labels),
            do="rename the class in id2label of its config.json",
        )  # fmt: skip
    model = load_model(folder, dtype=torch.float32, head=Head("classes", tuple(labels)))
    tokenizer, place = load_tokenizer(folder), labels.index(chosen)
    most = min(MOST_TOKENS, int(getattr(config, "max_position_embeddings", MOST_TOKENS)))

    @torch.no_grad()
    def harmful(texts: list[str]) -> list[float]:
        found = []
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
            found.append(float(model(**inputs).logits.float().softmax(-1)[0, place]))
        return found

    return harmful
