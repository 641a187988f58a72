"""Code from words: each answer is run with the row's tests, in a process that is bounded (`evaluate.sandbox`).

    pass@k = 1 - C(n - c, k) / C(n, k)        n answers drawn, c of them pass (Chen 2021, arXiv 2107.03374, eq. 1)

A row has `prompt` and `tests` (statements that raise where the code is wrong), and may have `entry_point`, the function that
the tests call: where an answer does not define it, the answer continues the prompt, as in HumanEval.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from genwright.evaluate.asking import WRITTEN, conversation_of
from genwright.evaluate.forms import Form, Options, Row, Scored, Target
from genwright.evaluate.sandbox import Limits, pass_at_k, run_all

FENCE = re.compile(r"```(?:[a-zA-Z]*)\n(.*?)(?:```|\Z)", re.DOTALL)


def code_in(answer: str) -> str:
    """The first fenced block, or the whole answer where there is none."""
    found = FENCE.search(answer)
    return found[1] if found else answer


def program_of(row: Row, answer: str) -> str:
    """The answer's code and the tests, as one program."""
    code, name = code_in(answer), str(row.get("entry_point", ""))
    continues = bool(name) and not re.search(rf"\bdef\s+{re.escape(name)}\b", code)
    check = f"\ncheck({name})" if name and "def check(" in row["tests"] else ""
    return f"{row['prompt'] if continues else ''}{code}\n{row['tests']}{check}\n"


def run_answers(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """100 x pass@k of each row; beside it, how the runs ended, in percent of them."""
    own = options.own
    limits = Limits(seconds=own["seconds"], memory=own["memory_mb"] * 2**20)
    drawn = [
        target.reply([conversation_of(row["prompt"]) for row in rows], replace(options, seed=options.seed + turn))
        for turn in range(own["samples"])
    ]
    ended = [run_all([program_of(row, answer) for row, answer in zip(rows, answers)], limits) for answers in drawn]
    passed = [sum(turn[number].passed for turn in ended) for number in range(len(rows))]
    reasons = Counter(outcome.reason for turn in ended for outcome in turn)
    also = {reason: 100 * count / (len(rows) * own["samples"]) for reason, count in sorted(reasons.items())}
    k = int(options.metric.removeprefix("pass@"))
    return Scored([100 * pass_at_k(own["samples"], one, k) for one in passed], drawn[0], also)


CODE = Form(
    "code", {"prompt": (str, list), "tests": str}, ("pass@1", "pass@5", "pass@10"), run_answers,
    {**WRITTEN, "max_tokens": 512, "samples": 1, "seconds": 5.0, "memory_mb": 512},
    lambda row: "" if row["tests"].strip() else "'tests' is empty: everything would pass.",
)  # fmt: skip
