"""Train, validation and test by hash: where a row goes depends on nothing but its group (or content) and the seed.

So adding rows never moves another, and near-duplicates, told by their group, never stand on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from genwright.base.errors import DataError
from genwright.base.files import sha256_of_json
from genwright.data.formats import Row

SPLITS = ("train", "validation", "test")

GROUPINGS = ("", "group", "command-path")
"""What data.group may say: every row for itself, the column `group`, or the answer's text before its first " -"."""


def split(
    rows: Mapping[str, Sequence[Row]], *, validation: float, test: float, seed: int, group_by: str
) -> dict[str, list[Row]]:
    """Rows of each split, with `Row.group` filled. A validation or test file that is given is taken as it is.

    validation, test: fractions of the training file's groups, unused where that file is given. Errors: DataError for
    an unknown grouping, a row without its group, or a split that ends up with no rows.
    """
    given = {name: grouped(rows[name], group_by) for name in SPLITS if rows.get(name)}
    shares = {"test": 0.0 if "test" in given else test, "validation": 0.0 if "validation" in given else validation}
    if sum(shares.values()) >= 1 or min(shares.values()) < 0:
        raise DataError(
            f"Validation ({validation}) and test ({test}) leave nothing to train on.",
            wanted="fractions from 0 up whose sum is less than 1",
        )
    parts: dict[str, list[Row]] = {
        "train": [],
        "validation": given.get("validation", []),
        "test": given.get("test", []),
    }
    for row in given.get("train", []):
        at = place(row.group or row.key, seed)
        name = (
            "test" if at < shares["test"] else "validation" if at < shares["test"] + shares["validation"] else "train"
        )
        parts[name].append(row)
    _refuse_empty(parts, shares)
    return parts


def place(group: str, seed: int) -> float:
    """A number in [0, 1) that is the group's own: the first 53 bits of SHA-256 of seed and group."""
    digest = hashlib.sha256(f"{seed}\n{group}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def grouped(rows: Sequence[Row], group_by: str) -> list[Row]:
    """The rows with `group` filled as data.group asks. "" leaves every row for itself."""
    if group_by not in GROUPINGS:
        raise DataError(
            f'data.group = "{group_by}" is not a grouping.',
            wanted=" or ".join(f'"{name}"' for name in GROUPINGS),
            do=f'for a column of that name: data.group = "group" and data.columns = {{ group = "{group_by}" }}',
        )
    if group_by == "":
        return [replace(row, group="") for row in rows]
    return [replace(row, group=_group(row, group_by)) for row in rows]


def _group(row: Row, group_by: str) -> str:
    if group_by == "group" and not row.group:
        raise DataError(
            f'{row.place}: the row has no group, and data.group = "group".',
            wanted="a column `group` that is filled in every row",
            do='name the column (data.columns = { group = "your column" }), or leave out data.group',
        )
    if group_by == "group":
        return row.group
    if row.kind == "text":
        raise DataError(
            f'{row.place}: a text has no answer, and data.group = "command-path" reads the answer.',
            do="leave out data.group",
        )
    return " ".join(str(row.conversation[-1]["content"]).partition(" -")[0].split())


def check_leakage(splits: Mapping[str, Sequence[Row]]) -> list[str]:
    """Warnings in words where a prompt stands in two splits with different answers.

    Errors: DataError with counts where a row (by content) or a group stands in two splits.
    """
    pairs = [(one, other) for number, one in enumerate(SPLITS) for other in SPLITS[number + 1 :]]
    warnings = []
    for one, other in pairs:
        here, there = splits.get(one, ()), splits.get(other, ())
        _refuse_shared("rows", {row.key: row for row in here}, {row.key: row for row in there}, one, other)
        _refuse_shared(
            "groups",
            {row.group: row for row in here if row.group},
            {row.group: row for row in there if row.group},
            one,
            other,
        )
        shared = {_prompt(row) for row in here} & {_prompt(row) for row in there} - {""}
        if shared:
            warnings.append(
                f"{len(shared)} prompts stand in both {one} and {other}, with other answers: "
                "whoever remembers the one may gain or lose by the other."
            )
    return warnings


def _refuse_shared(what: str, here: Mapping[str, Row], there: Mapping[str, Row], one: str, other: str) -> None:
    shared = [key for key in there if key in here]
    if shared:
        raise DataError(
            f"{len(shared)} {what} stand in both {one} and {other}, so a score on {other} would flatter.",
            found=f"of {len(here)} {what} in {one} and {len(there)} in {other}; "
            f"for example {here[shared[0]].place} and {there[shared[0]].place}",
            do=f"remove them from one of the files, or give one file and let it be split (leave out data.{other})",
        )


def _prompt(row: Row) -> str:
    """The hash of everything but the answer; empty for texts, which have none."""
    return "" if row.kind == "text" else sha256_of_json(list(row.conversation[:-1]))


def _refuse_empty(parts: Mapping[str, Sequence[Row]], shares: Mapping[str, float]) -> None:
    wanted = ["train", *(name for name, share in shares.items() if share > 0)]
    for name in wanted:
        if not parts[name]:
            raise DataError(
                f"The split '{name}' has no rows.",
                found=", ".join(f"{one}: {len(rows)} rows" for one, rows in parts.items()),
                do=f"give more rows or more groups, another data.{name}_fraction, or a file of its own (data.{name})",
            )
