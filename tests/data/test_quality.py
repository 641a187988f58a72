"""Rows that should be seen before a model learns them: by checksum, by exact Jaccard, by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from genwright.base.errors import BadRequest, DataError
from genwright.data.low_quality import (
    language_of,
    low_quality,
    repeated_gram_share,
    repeated_share,
    top_gram_share,
)
from genwright.data.personal import iban, luhn, masked, personal
from genwright.data.quality import HOWS, check_files
from genwright.data.repeats import exact_duplicates, grams, jaccard, leaked, near_duplicates, pieces
from genwright.data.toxic import toxic


def kinds(text: str) -> list[str]:
    return [span.kind for span in personal(text)]


def test_checksums_of_the_standards() -> None:
    assert luhn("79927398713") and not luhn("79927398710")  # the example of ISO/IEC 7812
    assert luhn("378282246310005") and not luhn("4111111111111112")  # American Express's test card; Visa's, one off
    assert iban("GB82 WEST 1234 5698 7654 32") and not iban("GB82 WEST 1234 5698 7654 33")  # the registry's example


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe+x@mail.example.org now", "email"), ("pay to DE89 3704 0044 0532 0130 00 please", "iban"),
        ("card 4111 1111 1111 1111 ends", "credit-card"), ("from 203.0.113.9 it came", "ip"), ("2001:db8::8a2e:370:7334 too", "ip"),
        ("his ssn is 219-09-9999.", "ssn"), ("AKIAIOSFODNN7EXAMPLE", "secret"), ("password = hunter2hunter2", "secret"),
        ("reach me at +49 30 901820", "phone"), ("(555) 010-9999", "phone"), ("my mobile: 5550109999", "phone"),
    ],
)  # fmt: skip
def test_what_is_personal(text: str, kind: str) -> None:
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4.5 of 2024-05-01 12:30", "card 4111 1111 1111 1112", "000-12-3456 and 666-12-3456", "127.0.0.1 at home",
        "12 4450 Main Street", "it costs 1,234,567.89", "the password is secret", "a@b", "std::vector<int>", "1024 + 2048 = 3072",
    ],
)  # fmt: skip
def test_what_only_looks_personal(text: str) -> None:
    assert kinds(text) == []


def test_masking_leaves_the_rest() -> None:
    assert masked("mail a.b@c.org or +49 30 901820!") == "mail [email] or [phone]!"


def worded(seed: int, count: int) -> list[str]:
    words = [f"w{number}x" for number in range(300)]
    draw = random.Random(seed)
    return [" ".join(draw.choice(words) for _ in range(count)) for _ in range(60)]


def test_near_duplicates_are_those_of_all_pairs() -> None:
    """Against the exact Jaccard of every pair, on Python's own sets."""
    texts = worded(1, 40)
    texts += [text.replace(text.split()[5], "changed") for text in texts[:20]] + [
        text[: len(text) // 2] for text in texts[:20]
    ]
    sets = [{text[place : place + 5] for place in range(len(text) - 4)} for text in texts]
    found = near_duplicates(texts)
    expected: set[int] = set()
    for number, one in enumerate(sets):
        likeness = [len(one & sets[row]) / len(one | sets[row]) for row in range(number) if row not in expected]
        if max(likeness, default=0) >= 0.8:
            expected.add(number)
    assert set(found) == expected and len(expected) == 20
    for number, (row, likeness) in found.items():
        assert likeness == pytest.approx(len(sets[number] & sets[row]) / len(sets[number] | sets[row]))


def test_jaccard_and_exact_by_hand() -> None:
    assert jaccard(pieces("abcdef"), pieces("abcdeg")) == pytest.approx(1 / 3)  # abcde, bcdef | abcde, bcdeg
    assert exact_duplicates(["One  two", "three", "one two\n", "three"]) == {2: 0, 3: 1}
    assert len(pieces("")) == 1 and jaccard(pieces("ab"), pieces("ab")) == 1


def test_leaks_are_runs_of_thirteen_words() -> None:
    test = ["a b c d e f g h i j k l m n", "short one"]
    assert leaked(["x b c d e f g h i j k l m n y", "x c d e f g h i j k l m n y", "Short, one!", ""], test) == {
        0: 0,
        2: 1,
    }
    assert len(grams("a b c d e f g h i j k l m n")) == 2


def test_repetition_by_hand() -> None:
    assert repeated_share(["a", "b", "a", "a"]) == (0.5, 0.5)
    words = ["ab", "cd", "ab", "cd", "ef"]
    assert top_gram_share(words, 2) == pytest.approx(8 / 10)
    assert repeated_gram_share(words, 2) == pytest.approx(8 / 10) and repeated_gram_share(words, 3) == 0


GOOD = (
    "The garden behind the house was planted by two sisters who wanted to grow vegetables for the market. In spring they dug the "
    "beds and carried water from the well; in summer people came from the next village to buy beans and cherries. When the older "
    "sister moved away, her niece learned which seeds to keep, and that every row needs a name on a stick."
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("...", "no words"), ("Wait \ufffd what", "unreadable characters"), ("We use cookies to improve", "boilerplate"),
        ("no " * 12, "one word repeated"), ("12 34 " * 40, "words without letters"), (GOOD + " #" * 20, "symbols"),
        (" ".join(f"antidisestablishment{n:05d}words" for n in range(60)), "no stop words"),
        ("\n".join(f"- point {n} of the list that you have" for n in range(12)), "bullets"),
        ("\n".join(f"the story {n} of you and me..." for n in range(12)), "ellipses"), ("\n".join([GOOD] * 3), "repeated lines"),
    ],
)  # fmt: skip
def test_what_is_of_low_quality(text: str, why: str) -> None:
    assert why in low_quality(text)


def test_what_is_not() -> None:
    assert low_quality(GOOD, "en") == [] and low_quality("Paris.") == []
    assert low_quality("La maison est dans la rue et les enfants sont avec vous", "en") == ["language fr"]
    assert language_of("xyzzy") == ""


def test_toxic_rules_have_a_reason() -> None:
    assert toxic("I will find and hurt you") == ["a threat"] and toxic("you are such a pathetic loser") == ["an insult"]
    assert toxic("How do I kill a process that hurts you?") == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    texts = [
        GOOD,
        GOOD.replace("cherries", "plums"),
        "mail me: jane@doe.example",
        "what a pathetic loser",
        "no " * 12,
        "Fine, thanks.",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "source": n}) + "\n" for n, text in enumerate(texts)))
    return path


def test_a_report_names_rows_and_repeats_nothing(file: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"text": "Fine - thanks"}) + "\n")
    found = check_files([file], test=[held], write=tmp_path / "clean.jsonl")
    assert [(one["row"], one["check"]) for one in found["findings"]] == [
        (2, "duplicated"), (3, "personal"), (4, "toxic"), (5, "low-quality"), (6, "leaked"),
    ]  # fmt: skip
    assert found["findings"][1]["place"] == f"{file}:3" and "jane" not in json.dumps(found)
    assert (tmp_path / "clean.jsonl").read_text() == file.read_text().splitlines(keepends=True)[0]
    assert set(found["checks"]) == set(HOWS) and found["good"] == 1


def test_a_model_takes_the_place_of_the_rules(file: Path) -> None:
    found = check_files([file], checks=["toxic"], scores=lambda texts: [0.1, 0.9, 0.5, 0.0, 0.0, 0.0], model="guard")
    assert [one["row"] for one in found["findings"]] == [2, 3] and "guard" in found["checks"]["toxic"]["how"]
    assert found["not_checked"] == ["personal", "duplicated", "leaked", "low-quality"]


def test_requests_that_make_no_sense(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no such check"):
        check_files([file], checks=["spelling"])
    with pytest.raises(BadRequest, match="not told apart"):
        check_files([file], language="xx")
    with pytest.raises(BadRequest, match="one of the files"):
        check_files([file], write=file)
    with pytest.raises(BadRequest, match=r"ending in .jsonl"):
        check_files([file], write=tmp_path / "clean.csv")
    with pytest.raises(DataError, match="No row is left"):
        check_files([file], checks=["toxic"], scores=lambda texts: [1.0] * len(texts), write=tmp_path / "clean.jsonl")
    assert not (tmp_path / "clean.jsonl").exists()
