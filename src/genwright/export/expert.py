"""What a router must know of an adapter, made where its training texts are: `expert/` beside its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.serve.embed import encoder_at_hand, packaged_embedder
from genwright.serve.expert_profile import profile_of, write_profile

FEWEST_ROWS = 16


def write_expert(workshop: Any, adapter: Path, rung: str, say: Callable[[str], Any]) -> bool:
    """Profile the adapter by its training questions and, held out, its validation questions. Returns whether it was made.

    Nothing fails for want of a profile: without the encoder on this machine, `genwright experts add --texts` makes it later.
    """
    texts, held_out = ([asked(row) for row in workshop.rows(split)] for split in ("train", "validation"))
    if len(texts) < FEWEST_ROWS or not any(texts):
        return False
    if not encoder_at_hand():
        say(
            "no profile for routing: the encoder is not on this machine (genwright experts add --texts makes one later)"
        )
        return False
    scope = workshop.spec.scope
    card = {"base": _base(adapter), "task": scope.task, "method": rung, "objective": workshop.spec.adapt.objective}
    try:
        profile = profile_of(texts, packaged_embedder(), name=workshop.spec.project.name, card=card, held_out=held_out)
    except BadRequest as error:
        say(f"no profile for routing: {error.what}")
        return False
    write_profile(profile, adapter)
    say(
        f"profile for routing: {len(profile.centroids_KD)} centroids of {len(texts)} questions, {len(profile.held_out)} held out"
    )
    return True


def asked(row: Any) -> str:
    """The newest user turn of a row; of a row without turns, its text."""
    turns = [str(one["content"]) for one in row.conversation[:-1] if one["role"] == "user"] if row.messages else []
    return turns[-1] if turns else str(row.text)


def _base(adapter: Path) -> str:
    told = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return str(told.get("base_model_name_or_path") or "")
