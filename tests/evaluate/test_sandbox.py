"""Code that misbehaves in every way the issue names: bounded, reported, survived."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from genwright.base.errors import BadRequest
from genwright.evaluate.sandbox import Limits, pass_at_k, run_all, run_code

HUMANEVAL = Path(__file__).parents[3] / "shared" / "data" / "humaneval" / "HumanEval.jsonl"

BAD = {
    "while True: pass": "timeout",
    "x = 'a' * 10**10": "memory",
    "import os\nwhile True: os.fork()": "refused",
    "open('f', 'w').write('a' * 10**8)": "refused",
    "for n in range(65): open(str(n), 'w').write('a' * 10**6)": "refused",
    "open('/tmp/genwright-escaped', 'w')": "refused",
    "import socket; socket.socket()": "refused",
    "import os; os._exit(0)": "failed",
    "raise SystemExit(0)": "failed",
    "assert 1 == 2": "failed",
}


@pytest.mark.parametrize(("code", "reason"), BAD.items())
def test_what_misbehaves_is_bounded_and_reported(code: str, reason: str) -> None:
    outcome = run_code(code, Limits(seconds=1.0))
    assert (outcome.passed, outcome.reason) == (False, reason)
    assert not Path("/tmp/genwright-escaped").exists()


def test_what_ends_well_has_passed() -> None:
    assert (
        run_code("open('mine', 'w').write('x')\nprint(open('mine').read())", Limits(seconds=5.0)).output.strip() == "x"
    )


def test_as_many_files_as_are_allowed_may_be_written() -> None:
    assert run_code("for n in range(64): open(str(n), 'w').write('x')", Limits(seconds=5.0)).passed


def test_pass_at_k_counts_every_draw() -> None:
    draws = list(itertools.combinations([True, True, False, False, False], 3))
    assert pass_at_k(5, 2, 3) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(BadRequest, match="pass@k needs k answers"):
        pass_at_k(2, 1, 3)


@pytest.mark.proof
@pytest.mark.skipif(not HUMANEVAL.exists(), reason="the shared data is not here")
def test_every_canonical_solution_passes() -> None:
    rows = [json.loads(line) for line in HUMANEVAL.read_text().splitlines()]
    programs = [
        f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})" for row in rows
    ]
    assert all(outcome.passed for outcome in run_all(programs, Limits(seconds=20.0)))
