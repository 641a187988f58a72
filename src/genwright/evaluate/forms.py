"""What a suite's rows can ask of a model: a form says which fields a row has, which metrics fit, and scores the rows.

A form is one row of `catalogue.parts.SUITES`. It asks a `Target`, which stands for a model in memory or behind an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from genwright.base.errors import BadRequest, DataError
from genwright.base.files import json_lines

Message = dict[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """How a suite's rows are asked and scored."""

    metric: str
    """One that the form knows."""
    seed: int = 0
    own: Mapping[str, Any] = field(default_factory=dict)
    """The form's own options, those that the suite leaves out at the form's defaults."""


class Target(Protocol):
    """What is judged. An address only replies: asked for more, it raises BadRequest."""

    name: str

    def reply(self, conversations: Sequence[Sequence[Message]], options: Options) -> list[str]:
        """The next turn of each; an empty text where none came. Reads max_tokens and temperature of `options.own`."""

    def continuations(self, texts: Sequence[str], stops: Sequence[str], max_tokens: int) -> list[str]:
        """What follows each plain text, greedily, before the first stop."""

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """`score.Likelihood` of each (context, answer)."""

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of each whole text, nats."""

    def close(self) -> None:
        """Nothing more will be asked: let go of the memory."""


@dataclass(frozen=True)
class Scored:
    """What came of a suite's rows, in their order."""

    scores: list[float]
    """By the metric: 0 to 100, or in the metric's unit."""
    answers: list[str] = field(default_factory=list)
    """What was said to each row; kept for people to look at."""
    also: dict[str, float] = field(default_factory=dict)
    """Figures of the whole that stand beside the score."""
    weights: list[float] | None = None
    """What each row counts for, such as a text's bytes; alike where there are none."""
    lower_is_better: bool = False


@dataclass(frozen=True)
class Form:
    """One kind of suite."""

    name: str
    fields: Mapping[str, Any]
    """Field -> its type, or several, for `isinstance`. A row may have more."""
    metrics: tuple[str, ...]
    """Those that fit; a suite that names none has the first. None here: those of the task that it runs."""
    run: Callable[[Target, Sequence[Row], Options], Scored]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keys that a suite of this form may set, and their defaults, whose types they keep."""
    check: Callable[[Row], str] = lambda row: ""
    """What is wrong with a row whose fields have the right types; an empty text where nothing is."""
    read: Callable[[Path, Mapping[str, Any]], list[Row]] | None = None
    """The rows of a file or folder, given the form's options. None: JSON lines."""
    asks: tuple[str, ...] = ("reply",)
    """The methods of the target that it calls."""
    percent: bool = True
    """Whether scores lie between 0 and 100, so that what so many rows can show is known before they are asked."""


def suite_rows(path: Path) -> list[Row]:
    """A JSON object a line. Errors: DataError with file and line, or for a file without rows."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.", wanted="a suite's rows, one JSON object a line")
    rows = json_lines(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path.name}, row {number}: this is no JSON object.", wanted="{...}", found=str(row)[:60])
    if not rows:
        raise DataError(f"{path} is empty: it has no rows.", wanted="at least one row")
    return rows


def checked(rows: Sequence[Row], form: Form, where: str) -> Sequence[Row]:
    """The rows, each with every field of the form. Errors: DataError naming row and field."""
    for number, row in enumerate(rows, 1):
        for name, kind in form.fields.items():
            if name not in row:
                raise DataError(
                    f"{where}, row {number}: the field '{name}' is missing.", wanted=f"{' + '.join(form.fields)} for the form {form.name}",
                    found=", ".join(row) or "no fields",
                )  # fmt: skip
            if not isinstance(row[name], kind) or isinstance(row[name], bool):
                raise DataError(f"{where}, row {number}: '{name}' is {type(row[name]).__name__}.", wanted=_words(kind))
        if wrong := form.check(row):
            raise DataError(f"{where}, row {number}: {wrong}")
    return rows


def _words(kind: Any) -> str:
    names = {"str": "text", "int": "a whole number", "list": "a list", "dict": "an object", "float": "a number"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names.get(one.__name__, one.__name__) for one in kinds)


def options_of(form: Form, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The form's options with those given. Errors: BadRequest for one it does not have, or of another type."""
    for name, value in given.items():
        if name not in form.options:
            raise BadRequest(
                f"{where}: a suite of the form {form.name} has no '{name}'.", found=name,
                wanted=", ".join(["name, form, file, metric, seeds", *form.options]),
            )  # fmt: skip
        kind = type(form.options[name])
        fits = isinstance(value, (int, float) if kind is float else (list, tuple) if kind is tuple else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise BadRequest(f"{where}: {name} has a value of the wrong type.", wanted=kind.__name__, found=repr(value))
    return {**form.options, **given}
