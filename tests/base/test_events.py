"""The record of a run: whole lines, even after a kill in the middle of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from genwright.base.events import Events, read_events


def test_what_is_written_is_read_and_told(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    events = Events(tmp_path / "deep" / "events.jsonl", (heard.append,))
    events.write("note", stage="scope", text="grüße\n2")
    events.write("step", stage="adapt", step=1)
    assert read_events(events.path) == heard
    assert [event["kind"] for event in heard] == ["note", "step"]
    assert heard[0]["time"] <= heard[1]["time"]


def test_a_torn_last_line_is_skipped_and_the_next_starts_a_new_one(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    events.write("note", text="first")
    events.write("note", text="second")
    whole = events.path.read_bytes()
    events.path.write_bytes(whole[:-9])
    events.write("note", text="third")
    assert [event["text"] for event in read_events(events.path)] == ["first", "third"]


@given(st.integers(0, 400), st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_a_record_cut_anywhere_keeps_every_whole_line(tmp_path_factory: Any, cut: int, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    events = Events(path)
    for text in texts:
        events.write("note", text=text)
    kept = path.read_bytes()[:cut]
    path.write_bytes(kept)
    whole = kept.count(b"\n")
    assert [event["text"] for event in read_events(path)][:whole] == texts[:whole]
    events.write("note", text="after")
    assert read_events(path)[-1]["text"] == "after"


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.jsonl") == []


def test_lines_that_are_no_events_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('[1]\n"x"\n{"no": "kind"}\n' + json.dumps({"kind": "note"}) + "\n")
    assert read_events(tmp_path / "e.jsonl") == [{"kind": "note"}]


LIMITED = """
import resource, sys
from pathlib import Path
from genwright.base.errors import DiskFull
from genwright.base.events import Events
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
events = Events(Path(sys.argv[1]))
events.write("note", text="first")
try:
    events.write("note", text="x" * 500)
except DiskFull as full:
    print(full.what)
"""


def test_a_full_disk_is_said_and_the_record_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"The disk is full: {path} could not be written.\n", done.stderr
    Events(path).write("note", text="after")
    assert [event["text"] for event in read_events(path)] == ["first", "after"]
