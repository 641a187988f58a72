"""An adapter becomes an expert where it was trained: what a router must know of it is written beside its weights, and it is taken
into the project's library, from which `genwright serve` answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, ModelError
from genwright.export.gguf import refuse_what_does_not_serve
from genwright.serve.contracts import Expert
from genwright.serve.embed import encoder_at_hand, packaged_embedder
from genwright.serve.expert_profile import profile_of, write_profile, write_texts
from genwright.serve.experts import ExpertLibrary, digest_of_base

FEWEST_ROWS = 16

Say = Callable[[str], Any]


def publish_expert(
    workshop: Any, solution: Any, adapter: Path, library: Path, summaries: Mapping[str, Mapping[str, Any]], say: Say
) -> dict[str, Any]:
    """Card, profile and a place in the library; returns {"expert": {name, version, routed}}, or {} for what no engine serves beside
    others. Nothing fails for want of a library: what it refuses is said.
    """
    if solution.head.kind not in ("language", "text"):
        return {}
    try:
        refuse_what_does_not_serve(
            json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")), adapter.name
        )
    except ModelError as error:
        say(f"not in the library of experts: {error.found}")
        return {}
    routed = write_expert(workshop, adapter, card_of(workshop, summaries, Path(solution.model)), say)
    try:
        expert = ExpertLibrary(library).add(adapter, workshop.spec.project.name)
    except BadRequest as error:
        say(f"not in the library of experts: {error}")
        return {}
    say(f"in the library of experts as {expert.served_name}")
    return {"expert": _told(expert, routed)}


def card_of(workshop: Any, summaries: Mapping[str, Mapping[str, Any]], base: Path) -> dict[str, Any]:
    """What the card says beside the profile: base, task, method, licence, and what base and expert scored on the test rows."""
    evaluated, selected = summaries["evaluate"], summaries["select"]
    spec, metric, scores = workshop.spec, str(evaluated["metric"]), evaluated["scores"]
    named = {"expert": evaluated["chosen"], "base": "zero-shot"}
    found = {who: scores[rung][metric]["value"] for who, rung in named.items() if metric in scores.get(rung, {})}
    return {
        "base": Path(str(selected["model"]).removeprefix("folder:")).name, "base_digest": digest_of_base(base),
        "task": spec.scope.task, "method": evaluated["chosen"], "objective": spec.adapt.objective,
        "licence": selected.get("licence"), "metric": metric, "scores": found,
    }  # fmt: skip


def write_expert(workshop: Any, adapter: Path, card: Mapping[str, Any], say: Say) -> bool:
    """Profile the adapter by its training questions and, held out, its validation questions. Returns whether it can be routed to.

    Without the encoder on this machine the questions themselves are kept, and the server makes the profile of them.
    """
    name = workshop.spec.project.name
    texts, held_out = ([asked(row) for row in workshop.rows(split)] for split in ("train", "validation"))
    if len(texts) < FEWEST_ROWS or not any(texts):
        say(f"no profile for routing: {len(texts)} questions, and {FEWEST_ROWS} are needed")
        return False
    if not encoder_at_hand():
        write_texts(texts, adapter, name=name, card=card, held_out=held_out)
        say(
            "the encoder is not on this machine: the questions are kept, and `genwright serve` makes the profile of them"
        )
        return True
    try:
        profile = profile_of(texts, packaged_embedder(), name=name, card=card, held_out=held_out)
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


def _told(expert: Expert, routed: bool) -> dict[str, Any]:
    return {"name": expert.name, "version": expert.version, "routed": routed}
