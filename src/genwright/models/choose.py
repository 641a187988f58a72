"""Which model a project gets: hard limits first, then the project's order, or the catalogue's, and the reason for each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.catalogue.models import ModelCard, models
from genwright.models.families import family_of
from genwright.models.load import load_config
from genwright.models.sources import cache_folder, fetch, locate

BYTES_PER_PARAMETER = 4.0
"""Rough room for the weights alone while candidates are ranked; the plan of a rung is what decides."""


@dataclass(frozen=True)
class Candidate:
    """A model that was considered. `why` says what speaks against it; empty where it was taken or never reached."""

    name: str
    why: str = ""
    parameters: int | None = None


def choose_model(
    spec: Any, *, base: Path, out: Path, families: list[str], memory_bytes: float, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Fetch the first candidate of these families that can be had into `out`; returns select's summary.

    Errors: ModelError listing why each candidate was passed over.
    """
    considered: list[Candidate] = []
    for name in spec.select.models or ranked(families, memory_bytes):
        try:
            source = locate(name, offline=spec.select.offline, base=base)
            folder = fetch(source, cache_folder(), offline=spec.select.offline, say=say)
            config = load_config(folder)
            if family_of(config) not in families:
                raise ModelError(
                    f"{name} is an {family_of(config)} model; {spec.scope.task} is trained with {' or '.join(families)}."
                )
        except ModelError as error:
            if spec.select.models and len(spec.select.models) == 1:
                raise
            considered.append(Candidate(name, str(error).splitlines()[0]))
            say(f"{name} is passed over: {str(error).splitlines()[0]}")
            continue
        considered.append(Candidate(name))
        return _taken(name, source, folder, config, considered, out)
    raise ModelError(
        "None of the models can be had.", wanted="one that fits the task and can be fetched",
        found="; ".join(f"{candidate.name}: {candidate.why}" for candidate in considered) or "no candidate",
        do='set select.models = ["smollm2-135m-instruct"], which needs no model hub, or name a folder',
    )  # fmt: skip


def ranked(families: list[str], memory_bytes: float) -> list[str]:
    """Catalogue models of these families that fit the memory: instruct models with an open licence, packaged ones first."""
    cards = [
        card
        for card in models().values()
        if card.family in families and card.parameters * BYTES_PER_PARAMETER < memory_bytes
    ]
    return [card.name for card in sorted(cards, key=_order)]


def _order(card: ModelCard) -> tuple[bool, bool, bool, int]:
    """What needs no hub, what needs no consent, what was taught to answer; then the largest that fits."""
    return (not card.source.startswith("wheel:"), bool(card.gated), card.stage != "instruct", -card.parameters)


def _taken(name: str, source: Any, folder: Path, config: Any, considered: list[Candidate], out: Path) -> dict[str, Any]:
    out.mkdir()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            link_or_copy(file, out / file.name)
    card = models().get(name)
    text = config.get_text_config()
    return {
        "model": name, "source": source.identity(), "family": family_of(config),
        "parameters": card.parameters if card else None, "licence": card.licence if card else "",
        "architecture": {key: getattr(text, key, None) for key in ARCHITECTURE},
        "note": _note(folder),
        "ranking": [vars(candidate) for candidate in considered],
    }  # fmt: skip


def _note(folder: Path) -> str:
    """What a fetched model is not, such as "dequantised Q4_1, not the original weights"; mostly empty."""
    record = folder / "genwright_source.json"
    return str(json.loads(record.read_text(encoding="utf-8")).get("note") or "") if record.exists() else ""


ARCHITECTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name: a hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())
