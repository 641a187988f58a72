"""What every adapter offers, and the small tools they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from genwright.models.load import quiet


class Adapter(Protocol):
    """A frozen dataclass whose fields are the keys of its table in the project file."""

    form: ClassVar[str]
    """"adapter" (a few files beside a base) or "model" (a whole folder)."""

    default_learning_rate: ClassVar[float]
    """For AdamW and a batch of about eight rows; the ladder's rate search starts here."""

    trains_base: ClassVar[bool]
    """Whether weights of the base are trained: then they are float32 masters and computed under autocast."""

    mergeable: ClassVar[bool]
    """Whether what was learned can be folded into the base's own weights, so that it costs nothing to run."""

    def wrap(self, model: Any) -> nn.Module:
        """Mark or add the weights to train; returns the model to run."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained, loadable without us."""
        ...


def freeze_(model: nn.Module) -> None:
    """Nothing is trained until an adapter says so."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def train_(module: nn.Module) -> None:
    """Train a module's weights, as float32 masters."""
    for parameter in module.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are trained, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fresh_heads(model: Any) -> tuple[str, ...]:
    """Names of the heads that were made anew when the model was loaded: random, so every adapter trains and saves them."""
    return tuple(getattr(model, "genwright_heads", ()))


def train_fresh_heads_(model: Any) -> list[nn.Module]:
    """Train the heads made anew, where there are any; returns them."""
    heads = [model.get_submodule(name) for name in fresh_heads(model)]
    for head in heads:
        train_(head)
    return heads


def save_model(model: Any, folder: Path) -> None:
    """A whole `transformers` folder in float32: the masters, so nothing that was learned is rounded away.

    Where weights are not tied, a tensor under two names (BERT's output bias) is written under both: reading would miss it.
    """
    tied, seen, state = model.config.get_text_config().tie_word_embeddings, set(), {}
    for name, tensor in model.state_dict().items():
        again = tensor.data_ptr() in seen and not tied
        seen.add(tensor.data_ptr())
        state[name] = tensor.float().clone() if again else tensor.float()
    model.config.dtype = torch.float32
    with quiet():
        model.save_pretrained(folder, state_dict=state, safe_serialization=True)
