"""What every adapter offers, and the small tools they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn


class Adapter(Protocol):
    """A frozen dataclass whose fields are the keys of its table in the project file."""

    form: ClassVar[str]
    """"adapter" (a few files beside a base) or "model" (a whole folder)."""

    default_learning_rate: ClassVar[float]
    """For AdamW and a batch of about eight rows; the ladder's rate search starts here."""

    trains_base: ClassVar[bool]
    """Whether weights of the base are trained: then they are float32 masters and computed under autocast."""

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


def save_model(model: Any, folder: Path) -> None:
    """A whole `transformers` folder in float32: the masters, so nothing that was learned is rounded away."""
    state = {name: tensor.float() for name, tensor in model.state_dict().items()}
    model.config.dtype = torch.float32
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
