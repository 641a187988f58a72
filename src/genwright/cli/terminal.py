"""What a command says and where: people read standard output, programs read it too with --json, never both at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 140
"""Columns of a table written to a file or a pipe, where there is no terminal to ask."""


class Terminal:
    """One command's output. With `json`, standard output is one JSON value; everything else goes to standard error."""

    def __init__(self, *, json: bool = False) -> None:
        self.wants_json = json
        self._answer_stream: TextIO = sys.stdout
        self._cleanup = ExitStack()

    def __enter__(self) -> Terminal:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that has no "✓" shows "?", it does not fail
        if self.wants_json:  # a library that prints must not spoil the JSON
            self._cleanup.enter_context(redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def answer(self, facts: Any, draw: Callable[[Console], None]) -> None:
        """The command's result: as JSON, or drawn for a person."""
        if self.wants_json:
            print(json.dumps(facts, indent=2, ensure_ascii=False, default=str), file=self._answer_stream, flush=True)
        else:
            draw(self.console())

    def console(self) -> Console:
        """Where people read: standard output, or standard error when standard output carries JSON."""
        return console(sys.stderr if self.wants_json else sys.stdout)

    def say(self, text: str) -> None:
        """A remark while the work goes on: standard error."""
        print(text, file=sys.stderr, flush=True)


def console(stream: TextIO) -> Console:
    """A rich console that never interprets our text as markup and does not wrap what goes to a file."""
    from rich.console import Console

    wide = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=wide, highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty())


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = ()) -> Any:
    """A quiet table. Cells are strings or rich Text, never markup; columns numbered in `right` align right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", show_header=any(headings))
    for index, heading in enumerate(headings):
        drawn.add_column(heading, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return drawn


def text(words: str, style: str = "") -> Any:
    """A styled piece of text."""
    from rich.text import Text

    return Text(words, style=style)


def heading(words: str) -> Any:
    """The title of a part of the answer."""
    return text(f"\n{words}", "bold")
