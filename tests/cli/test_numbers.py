"""A number that cannot be meant is refused where it is typed, and every option that takes one says so in the same words."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from genwright.cli import VERBS, numbers, verb_parser

READERS = {
    numbers.count: (("1", 1), ("1000000000000", 10**12)),
    numbers.count_or_none: (("0", 0), ("7", 7)),
    numbers.amount: (("0.5", 0.5), ("1e3", 1000.0)),
    numbers.amount_or_none: (("0", 0.0), ("2.5", 2.5)),
    numbers.share: (("1", 1.0), ("0.4", 0.4)),
    numbers.percentage: (("0", 0.0), ("100", 100.0)),
}
WRONG = ("nan", "inf", "-inf", "1e400", "-1", "", "x", "1" * 70)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_what_is_meant_is_read(read) -> None:  # type: ignore[no-untyped-def]
    for text, value in READERS[read]:
        assert read(text) == value and type(read(text)) is type(value)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_what_cannot_be_meant_is_refused(read) -> None:  # type: ignore[no-untyped-def]
    real = read in (numbers.amount, numbers.amount_or_none)
    for text in WRONG[:-1] if real else WRONG:
        with pytest.raises(ArgumentTypeError, match=r"^wanted a (whole )?number .*, found "):
            read(text)


@pytest.mark.parametrize(
    ("read", "text"), [(numbers.count, "0"), (numbers.amount, "0"), (numbers.share, "0"), (numbers.share, "1.01")]
)
def test_the_ends_of_a_range(read, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArgumentTypeError):
        read(text)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_no_option_reads_a_number_in_another_way(verb: str) -> None:
    assert [one.option_strings for one in verb_parser(verb)._actions if one.type in (int, float)] == []


@pytest.mark.parametrize(
    "words",
    [
        ("estimate", "llama-3.1-8b", "--device", "h100", "--count", "-1"),
        ("estimate", "llama-3.1-8b", "--device", "h100", "--usd-per-hour", "nan"),
        ("scaling", "advise", "--usd=-1"),
        ("usage", "--days", "inf"),
        ("evaluate", "--limit", "-1"),
        ("redteam", "--seconds", "nan"),
        ("redteam", "--seconds", "inf"),
        ("redteam", "--seconds", "0"),
        ("redteam", "--seconds", "-1"),
        ("redteam", "--fail-above", "nan"),
        ("redteam", "--fail-above", "101"),
        ("redteam", "--turns", "0"),
        ("redteam", "--turns", "1e3"),
        ("redteam", "--backtracks", "-1"),
        ("redteam", "--limit", "-1"),
        ("redteam", "--max-tokens", "9" * 40),
    ],
)
def test_a_wrong_number_is_a_wrong_request(genwright, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    ran = genwright(*words)
    assert ran.code == 2 and ran.out == ""
    assert f"found '{words[-1].rpartition('=')[2]}'" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no runs.\n  wanted: a row a run"),
        ("parameters,loss\n", "has no runs."),
        (
            "parameters,loss\n1e6,nan\n",
            "is not a table of runs.\n  wanted: columns parameters, loss\n  found:  wanted a number above 0",
        ),
        ("parameters,loss\n1e6\n", "is not a table of runs."),
    ],
)
def test_a_table_of_runs_without_a_number(genwright, tmp_path: Path, text: str, said: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "runs.csv").write_text(text)
    ran = genwright("scaling", "enough", tmp_path / "runs.csv", "--target", "2")
    assert ran.code == 2 and said in ran.err
