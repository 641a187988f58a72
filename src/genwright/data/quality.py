"""Rows that should be seen by a person before a model learns them: toxic, personal, duplicated, leaked, of low quality.

A finding says which row, which check and why, and never repeats the row: a report may be mailed, personal data may not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, DataError
from genwright.base.files import write_atomic
from genwright.data.formats import Row
from genwright.data.low_quality import LANGUAGES, low_quality
from genwright.data.personal import personal
from genwright.data.repeats import GRAM, THRESHOLD, exact_duplicates, leaked, near_duplicates
from genwright.data.sources import files_of, read_rows, records_of
from genwright.data.toxic import HOW, toxic

HOWS = {
    "toxic": HOW,
    "personal": "shapes and checksums: e-mail, phone, IBAN, credit card, IP, SSN, secrets; names and addresses are not looked for",
    "duplicated": f"equal text, or Jaccard of 5-character pieces of {THRESHOLD} or more (MinHash, then exact)",
    "leaked": f"{GRAM} words in a row that a test row has too",
    "low-quality": "rules of Gopher (arXiv 2112.11446) and C4 (arXiv 1910.10683)",
}
"""The checks, and how each is scored."""
TOXIC_FROM = 0.5
Scores = Callable[[list[str]], list[float]]


@dataclass(frozen=True)
class Finding:
    """One reason to look at one row. `row` counts from 1 over all files."""

    row: int
    place: str
    check: str
    why: str


def text_of(row: Row) -> str:
    """All that a row says, a line a message: of a preference both answers, of a labelled row only the text."""
    if row.kind in ("text", "labelled"):
        return row.text
    if row.kind == "tagged":
        return " ".join(row.words)
    return "\n".join(str(message.get("content") or "") for message in (*row.messages, *row.chosen, *row.rejected))


def check_files(
    paths: Sequence[Path], *, test: Sequence[Path] = (), checks: Sequence[str] = tuple(HOWS), format: str = "auto",
    columns: dict[str, str] | None = None, language: str = "", scores: Scores | None = None, model: str = "",
    write: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Look at every row of the files. `scores` gives the probability that texts are toxic, in place of the rules.

    With `write`, the rows without a finding go to that file as JSON lines, with the keys they had. Errors: DataError, and
    BadRequest before anything is read for a check or language nobody knows, or a file to write that is one of those read.
    """
    _refuse(paths, checks, language, write)
    read = lambda these: [row for path in these for row in read_rows(path, format=format, columns=columns).rows]
    rows = read(paths)
    texts, against = [text_of(row) for row in rows], [text_of(row) for row in read(test)]
    asked = [check for check in checks if check != "leaked" or test]
    found = [
        Finding(number + 1, row_place(rows[number], paths), check, why)
        for check in asked
        for number, why in _of_check(check, texts, against, rows, language, scores)
    ]
    good = sorted(set(range(1, len(rows) + 1)) - {one.row for one in found})
    if write is not None:
        _write(write, paths, good)
    return _report(paths, rows, found, asked, good, f"the model {model}" if model else "") | {
        "written": str(write or "")
    }


def _refuse(paths: Sequence[Path], checks: Sequence[str], language: str, write: Path | None) -> None:
    unknown = [check for check in checks if check not in HOWS]
    if unknown or not checks:
        raise BadRequest("There is no such check.", wanted=", ".join(HOWS), found=", ".join(unknown) or "none")
    if language and language not in LANGUAGES:
        raise BadRequest("That language is not told apart.", wanted=", ".join(LANGUAGES), found=language)
    if write is not None and write.suffix != ".jsonl":
        raise BadRequest("Good rows are written as JSON lines.", wanted="a name ending in .jsonl", found=str(write))
    if write is not None and any(file.resolve() == write.resolve() for path in paths for file in _below(path)):
        raise BadRequest(f"{write} is one of the files that are read.", do="name another file for the good rows")


def _below(path: Path) -> list[Path]:
    return files_of(path) if path.exists() else []


def row_place(row: Row, paths: Sequence[Path]) -> str:
    """Where the row stands, or the file's name where a reader does not say."""
    return row.place or str(paths[0])


def _of_check(
    check: str, texts: list[str], test: list[str], rows: list[Row], language: str, scores: Scores | None
) -> Iterator[tuple[int, str]]:
    if check == "duplicated":
        yield from _duplicated(texts, rows)
    elif check == "leaked":
        yield from ((number, f"shares words with test row {row + 1}") for number, row in leaked(texts, test).items())
    elif check == "toxic" and scores is not None:
        values = scores(texts)
        yield from ((number, f"probability {value:.2f}") for number, value in enumerate(values) if value >= TOXIC_FROM)
    else:
        reasons = {"toxic": toxic, "personal": _personal, "low-quality": lambda text: low_quality(text, language)}[
            check
        ]
        yield from ((number, why) for number, text in enumerate(texts) for why in reasons(text))


def _personal(text: str) -> list[str]:
    return [f"{span.kind} at characters {span.start + 1} to {span.end}" for span in personal(text)]


def _duplicated(texts: list[str], rows: list[Row]) -> Iterator[tuple[int, str]]:
    """Rows of one text with different labels are told as such: one of them is wrong."""
    exact = exact_duplicates(texts)
    for number, first in exact.items():
        other = "with another label" if rows[number].label != rows[first].label else "again"
        yield number, f"row {first + 1} {other}"
    left = [number for number in range(len(texts)) if number not in exact]
    near = near_duplicates([texts[number] for number in left])
    yield from (
        (left[number], f"row {left[row] + 1} nearly, Jaccard {likeness:.2f}")
        for number, (row, likeness) in near.items()
    )


def _report(
    paths: Sequence[Path], rows: list[Row], found: list[Finding], asked: list[str], good: list[int], scorer: str
) -> dict[str, Any]:
    counts = {check: len({one.row for one in found if one.check == check}) for check in asked}
    how = HOWS | ({"toxic": f"{scorer}, {TOXIC_FROM} or more"} if scorer else {})
    return {
        "files": [str(path) for path in paths], "rows": len(rows), "good": len(good),
        "checks": {check: {"rows": counts[check], "how": how[check]} for check in asked},
        "not_checked": [check for check in HOWS if check not in asked],
        "findings": [asdict(one) for one in sorted(found, key=lambda one: one.row)],
    }  # fmt: skip


def _write(path: Path, paths: Sequence[Path], good: Sequence[int]) -> None:
    records = [value for one in paths for file in files_of(Path(one)) for _, value in records_of(file)]
    if not good:
        raise DataError(
            "No row is left to write.", found=f"{len(records)} rows, each with a finding", do="leave out --write"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(records[row - 1], ensure_ascii=False) for row in good)
    write_atomic(path, "".join(f"{line}\n" for line in lines))
