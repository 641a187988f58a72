"""Training weights that the model already has: all of them, the last layers, or the head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from genwright.adapters.base import freeze_, save_model, train_, train_fresh_heads_
from genwright.base.errors import RecipeError
from genwright.models.surgery import layers_of, untie_head_


@dataclass(frozen=True)
class Full:
    """Every weight is trained: 6N FLOPs a token, and 16 bytes a parameter for weights, gradients and AdamW."""

    form: ClassVar[str] = "model"
    default_learning_rate: ClassVar[float] = 5e-5
    trains_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False

    def wrap(self, model: Any) -> nn.Module:
        """All weights, tied ones once."""
        train_(model)
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A `transformers` folder."""
        save_model(model, folder)


@dataclass(frozen=True)
class LastLayers:
    """The last `layers` blocks and the final norm are trained; nothing below them needs a gradient (Howard 2018, ULMFiT).

    A head made anew for the task is trained with them.
    """

    form: ClassVar[str] = "model"
    default_learning_rate: ClassVar[float] = 1e-4
    trains_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False

    layers: int = 2
    """How many blocks, counted from the top."""

    def wrap(self, model: Any) -> nn.Module:
        """Errors: RecipeError when the model has fewer layers."""
        blocks, final_norm = layers_of(model)
        if not 1 <= self.layers <= len(blocks):
            raise RecipeError(
                "adapt.last-layers.layers is more than the model has.",
                wanted=f"1 to {len(blocks)}",
                found=str(self.layers),
                do='lower it, or use method = "full"',
            )
        freeze_(model)
        for module in [*blocks[-self.layers :], *([final_norm] if final_norm is not None else [])]:
            train_(module)
        train_fresh_heads_(model)
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A `transformers` folder."""
        save_model(model, folder)


@dataclass(frozen=True)
class Head:
    """Only the head is trained: the one made anew for the task, or else the one that gives the logits.

    An output head tied to the embeddings is untied first: V x D more weights, and planned.
    """

    form: ClassVar[str] = "model"
    default_learning_rate: ClassVar[float] = 1e-3
    trains_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False

    def wrap(self, model: Any) -> nn.Module:
        """Training a tied head would train the embeddings behind our back, so it becomes a copy of its own."""
        freeze_(model)
        if not train_fresh_heads_(model):
            train_(untie_head_(model))
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A `transformers` folder whose config says that the head is its own."""
        save_model(model, folder)
