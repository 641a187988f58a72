"""Every hand-off of a result on the same frozen prompts: adapter, merged, quantised, served. A broken export cannot pass.

    gap_t = max_v log p(v | prompt, answer before t) - log p(answer t | ...)        p: the trained model, float32

The records of the stages prove each merge (`export.handover`) and the file for the engine (`export.served`); an address is asked
here and now, and its greedy answers are read by the trained model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genwright.base.errors import GenwrightError
from genwright.data.templates import encode_prompt
from genwright.serve.parity import RECORD, check_record, words

Message = dict[str, Any]

TOLERANCE = 0.7
"""Nats, for an address whose number type is not known: `serve.parity`'s for 8 bits."""


def recorded(
    folder: Path, summary: Mapping[str, Any], forgot: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """What `integrate`, and `unlearn` before it where there is one, proved of their hand-offs: {name: {passed, told}}."""
    parities = {**(forgot or {}).get("parity", {}), "merged": summary.get("parity")}
    found = {name: _merged(parity) for name, parity in parities.items() if parity}
    for record in sorted(folder.rglob(RECORD)):
        found["engine's file"] = _checked(record.parent)
    return found


def _merged(parity: Mapping[str, float]) -> dict[str, Any]:
    difference = parity["max_logit_difference"]
    return {"passed": difference <= parity["tolerance"], "told": f"logits differ by at most {difference:.2g}"}


def _checked(folder: Path) -> dict[str, Any]:
    try:
        return {"passed": True, "told": words(check_record(folder))}
    except GenwrightError as error:
        return {"passed": False, "told": error.what}


@torch.no_grad()
def read_answers(session: Any, conversations: Sequence[Sequence[Message]], answers: Sequence[str]) -> dict[str, Any]:
    """What the trained model (an open `talk.Session`) thinks of somebody's greedy answers: {passed, told, largest_gap}.

    The very text that it would have written has no gap. Another is cut into tokens anew, and each token's gap is read. An
    empty answer to a prompt that the model itself answers is a failure.
    """
    own = session.replies([list(messages) for messages in conversations])
    others = [
        (messages, said) for messages, said, ours in zip(conversations, answers, own) if said.strip() != ours.strip()
    ]
    gaps = [gap for messages, said in others if said.strip() for gap in _gaps(session, messages, said)]
    silent = sum(not said.strip() for _, said in others)
    largest = max(gaps, default=0.0)
    told = f"{len(answers) - len(others)} of {len(answers)} answers the same, largest gap {largest:.3f} nats"
    told += f", {silent} prompts without an answer" if silent else ""
    return {"passed": largest <= TOLERANCE and not silent, "told": told, "largest_gap": largest}


def _gaps(session: Any, messages: Sequence[Message], said: str) -> list[float]:
    model, tokenizer = session.answering.model, session.answering.tokenizer
    ids = encode_prompt(session.answering.with_examples(messages), tokenizer)
    both = torch.tensor([[*ids, *tokenizer(said, add_special_tokens=False)["input_ids"]]])
    log_p_TV = model(input_ids=both).logits[0, len(ids) - 1 : -1].float().log_softmax(-1)
    chosen_T = log_p_TV.gather(1, both[0, len(ids) :, None])[:, 0]
    return [float(gap) for gap in log_p_TV.max(-1).values - chosen_T]


def served(
    session: Any, conversations: Sequence[Sequence[Message]], replies: Callable[..., list[str]]
) -> dict[str, Any]:
    """Ask an address the frozen prompts, and read its answers."""
    return read_answers(session, conversations, replies([list(messages) for messages in conversations]))
