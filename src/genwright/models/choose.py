"""Which model a project gets: hard limits first, then the project's order, or the catalogue's, and the reason for each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.base.units import Bytes
from genwright.catalogue.models import ModelCard, models
from genwright.models.cards import read_card
from genwright.models.families import family_of
from genwright.models.load import load_config
from genwright.models.sources import cache_folder, cached, fetch, locate

BYTES_PER_PARAMETER = 4.0
"""Rough room for the weights alone while candidates are ranked; the plan of a rung is what decides."""


@dataclass(frozen=True)
class Candidate:
    """A model that was considered. `why` says what speaks against it; empty where it was taken or never reached."""

    name: str
    why: str = ""
    parameters: int | None = None


@dataclass(frozen=True)
class Had:
    """A candidate whose files are here."""

    name: str
    source: Any
    folder: Path
    config: Any
    card: ModelCard | None

    @property
    def family(self) -> str:
        """decoder, encoder or encoder-decoder."""
        return family_of(self.config)

    @property
    def parameters(self) -> int:
        """Weights: the catalogue's count, or the bytes of its files over those of a number."""
        return self.card.parameters if self.card else weights_bytes(self.folder) // 4

    @property
    def licence(self) -> str:
        """As its card names it; empty where nothing is known."""
        return self.card.licence if self.card else _licence(self.folder)


TryOut = Callable[[Sequence[Had]], tuple[int, list[dict[str, Any]]]]
"""Candidates to (the place of the one to take, a line of the table for each)."""


def weights_bytes(folder: Path) -> int:
    """Of a model's safetensors files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def choose_model(
    spec: Any, *, base: Path, out: Path, families: list[str], memory_bytes: float, say: Callable[[str], Any],
    try_out: TryOut | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Take a candidate of these families into `out`; returns select's summary, with a table where several were tried.

    Several are tried where `try_out` is given and more than one can be had: all that the project names, or those of the
    catalogue that are on disk. Else the first that can be had is taken. Errors: ModelError listing why each was passed over.
    """
    named = spec.select.models
    considered: list[Candidate] = []
    had: list[Had] = []
    for name in named or _at_hand_first(ranked(families, memory_bytes), base):
        try:
            if had and (try_out is None or (not named and not on_disk(name, base))):
                considered.append(
                    Candidate(name, "not tried: it is not on this machine; ranked by its card" if try_out else "")
                )
                continue
            had.append(_had(name, spec, base, families, memory_bytes, say))
            considered.append(Candidate(name))
        except ModelError as error:
            if len(named) == 1:
                raise
            considered.append(Candidate(name, str(error).splitlines()[0]))
            say(f"{name} is passed over: {str(error).splitlines()[0]}")
    if not had:
        raise ModelError(
            "None of the models can be had.", wanted="one that fits the task and can be fetched",
            found="; ".join(f"{candidate.name}: {candidate.why}" for candidate in considered) or "no candidate",
            do='set select.models = ["smollm2-135m-instruct"], which needs no model hub, or name a folder',
        )  # fmt: skip
    place, tried = try_out(had) if try_out is not None and len(had) > 1 else (0, [])
    summary = _taken(had[place], considered, out)
    lines = tried + [by_card(one.name, one.why) for one in considered if one.why] if tried else []
    return summary | ({"table": lines} if lines else {})


def by_card(name: str, why: str) -> dict[str, Any]:
    """The table's line of a model that was not tried: what its card says of it, and why it is not more."""
    card = models().get(name)
    known = {"family": card.family, "parameters": card.parameters, "licence": card.licence} if card else {}
    return {"name": name, "family": "", "parameters": None, "licence": "", "zero-shot": None, "few-shot": None,
            "how": "by its card", "planned": {}, "taken": False, **known, "why": why}  # fmt: skip


def on_disk(name: str, base: Path) -> bool:
    """Whether a model needs no fetching."""
    try:
        return cached(locate(name, base=base), cache_folder()) is not None
    except ModelError:
        return False


def _at_hand_first(names: list[str], base: Path) -> list[str]:
    return sorted(names, key=lambda name: not on_disk(name, base))


def _had(name: str, spec: Any, base: Path, families: list[str], memory_bytes: float, say: Callable[[str], Any]) -> Had:
    """Errors: ModelError for what cannot be had, and for what breaks a limit: by its card before it is fetched."""
    card = models().get(name)
    if card is not None:
        refuse(name, limits(card, spec.select, families, memory_bytes))
    source = locate(name, offline=spec.select.offline, base=base)
    folder = fetch(source, cache_folder(), offline=spec.select.offline, say=say)
    if card is None and spec.select.licences and _licence(folder).lower() not in map(str.lower, spec.select.licences):
        refuse(name, [f"its licence is {_licence(folder) or 'not known'}"])
    config = load_config(folder)
    if family_of(config) not in families:
        raise ModelError(
            f"{name} is an {family_of(config)} model; {spec.scope.task} is trained with {' or '.join(families)}."
        )
    return Had(name, source, folder, config, card)


def refuse(name: str, reasons: list[str]) -> None:
    """Errors: ModelError where there is a reason."""
    if reasons:
        raise ModelError(
            f"{name} is outside of the project's limits: {'; '.join(reasons)}.", do="change [select], or name another"
        )


def limits(card: ModelCard, select: Any, families: list[str], memory_bytes: float) -> list[str]:
    """What speaks against a model by its card: licence, languages, context, memory. What a card does not say is no reason,
    but for the licence.
    """
    reasons = []
    if card.family not in families:
        reasons.append(f"it is an {card.family}, and wanted is {' or '.join(families)}")
    if select.licences and card.licence.lower() not in {name.lower() for name in select.licences}:
        reasons.append(f"its licence is {card.licence or 'not known'}")
    missing = [code for code in select.languages if card.languages and not {code, "multilingual"} & set(card.languages)]
    if missing:
        reasons.append(f"it does not know {', '.join(missing)}")
    if select.context and card.context is not None and card.context < select.context:
        reasons.append(f"its context is {card.context:,} tokens")
    if card.parameters * BYTES_PER_PARAMETER > memory_bytes:
        reasons.append(f"its weights need {Bytes(card.parameters * BYTES_PER_PARAMETER)} of memory")
    return reasons


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


def _taken(one: Had, considered: list[Candidate], out: Path) -> dict[str, Any]:
    out.mkdir()
    for file in sorted(one.folder.iterdir()):
        if file.is_file():
            link_or_copy(file, out / file.name)
    text = one.config.get_text_config()
    return {
        "model": one.name, "source": one.source.identity(), "family": one.family,
        "parameters": one.card.parameters if one.card else None, "licence": one.card.licence if one.card else "",
        "architecture": {key: getattr(text, key, None) for key in ARCHITECTURE},
        "note": _note(one.folder),
        "ranking": [vars(candidate) for candidate in considered if candidate.why or candidate.name == one.name],
    }  # fmt: skip


def _licence(folder: Path) -> str:
    readme = folder / "README.md"
    return str(read_card(readme.read_text(encoding="utf-8")).metadata.get("license", "")) if readme.exists() else ""


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
