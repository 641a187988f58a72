"""Models: size, architecture, licence, what each is for, and where that can be checked. No weights, no network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from genwright.catalogue.tables import pick, read_table


@dataclass(frozen=True)
class ModelCard:
    """One openly available model. Facts that nobody could support are None or empty."""

    name: str
    """How a project file names it: `select.models`."""
    title: str
    """The model's own name."""
    family: str
    """decoder (causal), encoder (masked) or encoder-decoder (span corruption or denoising)."""
    stage: str
    """pretrained, instruct (answers in its chat template), embedding (texts to vectors) or finetuned (for one task)."""
    parameters: int
    """Distinct weights of the model that `architecture` builds, tied ones once: a decoder and an encoder-decoder with
    the output head, an encoder without one."""
    source: str
    """Where the files are from: a model source, such as "hub:OWNER/NAME"."""
    architecture: dict[str, Any]
    """The transformers config: model_type and every key that differs from that type's default and shapes the model."""
    hub: str = ""
    """OWNER/NAME on the model hub."""
    context: int | None = None
    """The longest input in tokens that the publisher states, prompt and answer together; None where none is stated."""
    unbuilt_parameters: int = 0
    """Weights of the published files that `architecture` does not build; the reason stands in `limits`."""
    active_parameters: int = 0
    """What one token passes through: of a mixture of experts as published, rounded; else all `parameters`."""
    licence: str = ""
    """SPDX name where there is one, else the publisher's name for it."""
    gated: bool | None = None
    """True where the hub asks for an account and consent before it hands out the files; None where not known."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that the publisher names, or "multilingual", or "code"."""
    uses: str = ""
    """What it is meant for."""
    limits: str = ""
    """What it is not for, and what is known to go wrong."""
    training_data: str = ""
    """What it was trained on, with the number of tokens where published."""
    evaluations: tuple[dict[str, Any], ...] = ()
    """Published results: name, value, source."""
    sources: tuple[str, ...] = ()
    """Public pages where the facts can be checked, besides those in `read`."""
    read: tuple[str, ...] = ()
    """Public pages that were read for this card, on `date_read`: the publisher's, a copy of them, a derived model's, or
    what others wrote about it."""
    date_read: str = ""
    """When they were read; empty when none was."""
    recalled: tuple[str, ...] = ()
    """Fields that no page read for this card supports: written from memory, to be checked against `sources`."""
    confirmed_by: tuple[str, ...] = ()
    """What supports the architecture besides memory: "parameter count" (the total known beforehand is exactly the one
    that the architecture gives), "config read" (its config.json, or a derived model's), "wheel" (the file's header)."""


@cache
def models() -> Mapping[str, ModelCard]:
    """Every model by name, in the catalogue's order."""
    return MappingProxyType(read_table("models", _card))


def model(name: str) -> ModelCard:
    """The card of a name. Errors: UnknownName with the nearest one."""
    return pick("model", name, models())


def architecture(name: str) -> dict[str, Any]:
    """The config of a well-known model, however its name is written. Errors: UnknownName with the nearest."""
    from genwright.catalogue.architectures import architecture as row

    return deepcopy({key: _thawed(value) for key, value in row(name).config.items()})


def config_dict(card: ModelCard) -> dict[str, Any]:
    """The model's transformers config as a plain dict with `model_type`; the caller's to change.

    `AutoConfig.for_model(values.pop("model_type"), **values)` makes the config, without any file.
    """
    values: dict[str, Any] = deepcopy({key: _thawed(value) for key, value in card.architecture.items()})
    return values


def _card(parameters: int, **fields: Any) -> ModelCard:
    """A card whose active parameters are all of them, unless the table says less."""
    return ModelCard(parameters=parameters, **{"active_parameters": parameters, **fields})


def _thawed(value: Any) -> Any:
    """Transformers wants lists where TOML's were frozen to tuples."""
    return [_thawed(part) for part in value] if isinstance(value, tuple) else value
