"""The record of a run: append-only JSON lines, the one thing that progress bar, report, web page and tests read.

Every line has `time` (seconds since the epoch), `kind` and usually `stage`. Kinds and their fields:

    run_started     project, version          stage_started   stage, why         stage_finished  stage, seconds, key
    stage_reused    stage, key                stage_failed    stage, error       stage_stopped   stage
    note            stage, text               progress        stage, what, done, total, unit
    step            stage, rung, step, total, loss, grad_norm, tokens, learned_tokens, seconds, learning_rate, skipped
    checkpoint      stage, step, seconds      planned         stage, rung, ...   measured        stage, rung, ...
    score           stage, rung, split, metric, value, low, high, n
    validation      stage, rung, step, loss   environment     versions of what it ran with, and the machine
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.files import disk_full_is_an_error

Event = dict[str, Any]


class Events:
    """Writes events to a file and to whoever listens (the progress bar)."""

    def __init__(self, path: Path, listeners: tuple[Callable[[Event], None], ...] = ()) -> None:
        self.path, self.listeners = path, listeners
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, kind: str, **fields: Any) -> Event:
        """Append one line; a line is written whole or, after a kill, ignored by `read_events`. Errors: DiskFull."""
        event: Event = {"time": time.time(), "kind": kind, **fields}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        torn = self.path.exists() and not _ends_with_newline(self.path)
        with disk_full_is_an_error(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + line if torn else line)
        for listener in self.listeners:
            listener(event)
        return event


def read_events(path: Path) -> list[Event]:
    """Every whole line of the record; a line torn by a kill is skipped."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # splitlines would also cut at U+2028
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [event for event in events if isinstance(event, dict) and "kind" in event]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        if file.tell() == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
