"""The gate between what was trained and what is served: the record that the export leaves, and the refusal to start without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genwright.base.errors import Corrupt, GenwrightError
from genwright.base.files import sha256_of_file

RECORD = "parity.json"

TEMPLATE = "template.jinja"
"""The conversation template that vLLM is given where the model has none of its own."""

TOKENS = 32
"""Generated for each prompt."""

TOLERANCE = {"f32": 0.05, "bf16": 0.3, "f16": 0.05, "q8_0": 0.7}
"""Nats by which a served greedy token may be less likely, to the trained model, than the one it would have chosen."""


def verdict(record: dict[str, Any]) -> bool:
    """Whether the served model is the trained one, within the tolerance of its type."""
    return bool(
        record["same_prompt_tokens"]
        and record["tokens"] > 0
        and record["largest_gap"] <= TOLERANCE[str(record["type"])]
    )


def check_record(folder: Path, what: str = "", do: str = "") -> dict[str, Any]:
    """The record of an export that passed, with its files as they were then. Errors: Corrupt, GenwrightError.

    `what`: whose export it is, where it is not the project's result; `do`: what helps then.
    """
    again = do or "run `genwright apply` again"
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise Corrupt(f"{folder} has no record of its parity gate.", do=again) from None
    for name, told in record["files"].items():
        if not (folder / name).exists() or sha256_of_file(folder / name) != told:
            raise Corrupt(f"{folder / name} is not the file that passed the parity gate.", do=again)
    if not verdict(record):
        raise GenwrightError(
            f"{what or 'The served model'} does not answer as the trained one did; it is not started.",
            wanted=f"the same prompt tokens, and greedy tokens within {TOLERANCE[record['type']]:g} nats",
            found=words(record), do=do or 'set integrate.quantize = "none", or serve with another engine, and report this',
        )  # fmt: skip
    return record


def words(record: dict[str, Any]) -> str:
    """The record in a line."""
    prompts = "the same" if record["same_prompt_tokens"] else "other"
    return (
        f"{prompts} prompt tokens; of {record['tokens']} greedy tokens {100 * record['same_share']:.1f} % the same, "
        f"largest gap {record['largest_gap']:.3f} nats ({record['type']})"
    )
