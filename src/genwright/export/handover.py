"""The last stage's work: what leaves the project, and the proof that it is what was judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.base.files import files_below
from genwright.catalogue.parts import ADAPTERS, RUNGS
from genwright.export.merge import merge_adapter
from genwright.export.served import write_served
from genwright.models.choose import link_or_copy
from genwright.plan.here.memory import memory_is_an_error
from genwright.plan.here.verify import measuring
from genwright.serve.parity import check_record, words

TOLERANCE = 1e-3
"""Largest logit difference between adapted and merged, both in float32; 6e-5 is usual, a bfloat16 merge gives 0.5."""

FROZEN_PROMPTS = 8


def hand_over(workshop: Any, solution: Any, out: Path, *, merge: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    """Write `model/` (and `adapter/`, `prompt.json`) to `out`. Errors: GenwrightError when the parity gate fails."""
    prompt = {name: getattr(solution, name) for name in ("rung", "instruction", "examples", "nearest_last")}
    (out / "prompt.json").write_text(json.dumps(prompt, indent=1, ensure_ascii=False), encoding="utf-8")
    return {**_handed(workshop, solution, out, merge=merge, say=say), "prompt": prompt}


def _handed(workshop: Any, solution: Any, out: Path, *, merge: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    if not solution.adapter:
        say(f"{solution.rung} has no adapter: the model is handed over as it stands")
        (out / "model").mkdir()
        for file in Path(solution.model).iterdir():
            if file.is_file():
                link_or_copy(file, out / "model" / file.name)
        return {"form": "model", "path": "model", "parity": None, "bytes": _size(out)}
    shutil.copytree(solution.adapter, out / "adapter")
    mergeable = ADAPTERS[RUNGS[solution.rung](workshop.spec, solution.rung).method].mergeable
    if merge and not mergeable:
        say(f"{solution.rung} cannot be folded into the base's weights: the adapter is handed over")
    if not merge or not mergeable:
        return {"form": "adapter", "path": "adapter", "parity": None, "bytes": _size(out)}
    merged = merge_checked(workshop, solution, out / "model", say)
    return {"form": "merged", "path": "model", "bytes": _size(out), **merged}


def merge_checked(workshop: Any, solution: Any, out: Path, say: Callable[[str], Any]) -> dict[str, Any]:
    """Fold a solution's adapter into its model, behind the parity gate on the frozen prompts; returns what was measured.

    Errors: GenwrightError when the gate fails.
    """
    prompts = [workshop.prompt_ids(row) for row in workshop.rows("validation")[:FROZEN_PROMPTS]]
    with measuring() as measured, memory_is_an_error("merge", solution.rung):
        parity = merge_adapter(
            Path(solution.model), Path(solution.adapter), out, prompts=prompts, head=solution.head, say=say
        )
    difference = parity.max_logit_difference
    say(f"merged in float32: logits of {len(prompts)} frozen prompts differ by at most {difference:.2g}")
    if not difference <= TOLERANCE:
        raise GenwrightError(
            "The merged model does not answer as the adapted one did.", wanted=f"logits within {TOLERANCE:g}", found=f"{difference:g}",
            do="set integrate.merge = false to hand over the adapter, and report this",
        )  # fmt: skip
    return {
        "measured": {"merge_peak_bytes": measured.peak_bytes, "seconds": measured.seconds},
        "parity": {"max_logit_difference": difference, "tolerance": TOLERANCE, "rows": len(prompts)},
    }


def hand_over_served(
    workshop: Any, out: Path, handed: dict[str, Any], *, base: Path, quantize: str, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Add the GGUF for llama.cpp and the record of its parity gate. Errors: ModelError; GenwrightError when it fails."""
    adapter = out / "adapter" if handed["form"] == "adapter" else None
    conversations = [
        [dict(turn) for turn in row.conversation[:-1]] for row in workshop.rows("validation")[:FROZEN_PROMPTS]
    ]
    record = write_served(
        base if adapter is not None else out / "model", out, conversations, quantize=quantize, adapter=adapter
    )
    say(f"as llama.cpp serves it: {words(record)}")
    check_record(out)
    return {**handed, "served": record, "bytes": _size(out)}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_below(folder))
