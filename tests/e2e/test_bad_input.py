"""What bad input gets: a clear error and its exit code, nothing lost, no traceback (the fixture sees to that)."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genwright.base.events import read_events
from genwright.base.files import sha256_of_file

GOOD = '{"prompt": "f(x)", "completion": "Return x."}\n'


def bad_json(project: Path) -> None:
    (project / "data" / "summaries.jsonl").write_text(GOOD + '{"prompt": "g(x)", "completion": \n' + GOOD)


def empty_file(project: Path) -> None:
    (project / "data" / "summaries.jsonl").write_text("")


def not_utf8(project: Path) -> None:
    (project / "data" / "summaries.jsonl").write_bytes(
        GOOD.encode() + '{"prompt": "é", "completion": "x"}\n'.encode("latin-1")
    )


def no_answer(project: Path) -> None:
    (project / "data" / "summaries.jsonl").write_text(GOOD + '{"prompt": "g(x)", "completion": ""}\n')


def ambiguous(project: Path) -> None:
    row = {"prompt": "p", "completion": "c", "instruction": "i", "output": "o"}
    (project / "data" / "summaries.jsonl").write_text((json.dumps(row) + "\n") * 3)


def missing_file(project: Path) -> None:
    (project / "data" / "summaries.jsonl").unlink()


def long_prompt(project: Path) -> None:
    path = project / "data" / "summaries.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["prompt"] = "a b c d e f g " * 200 + row["prompt"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def no_weights(project: Path) -> None:
    (project / "model" / "model.safetensors").unlink()


def pickled_weights(project: Path) -> None:
    (project / "model" / "model.safetensors").rename(project / "model" / "pytorch_model.bin")


def remote_code(project: Path) -> None:
    path = project / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "modeling.Strange"}}))


def torn_weights(project: Path) -> None:
    path = project / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def edit(project: Path, old: str, new: str) -> None:
    path = project / "genwright.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def newer_version(project: Path) -> None:
    edit(project, 'name = "short"', 'name = "short"\nversion = 99')


def unknown_key(project: Path) -> None:
    edit(project, "steps = 24", "stepz = 24")


def unknown_table(project: Path) -> None:
    edit(project, "[select]", "[selekt]")


def unknown_task(project: Path) -> None:
    edit(project, '"summarization"', '"sumarization"')


def broken_toml(project: Path) -> None:
    edit(project, "steps = 24", "steps = = 24")


def wrong_type(project: Path) -> None:
    edit(project, "steps = 24", 'steps = "many"')


CASES = [
    (bad_json, [r"summaries.jsonl:2"]),
    (empty_file, ["summaries.jsonl", "empty"]),
    (not_utf8, ["summaries.jsonl:2", "UTF-8"]),
    (no_answer, ["summaries.jsonl:2"]),
    (ambiguous, ["summaries.jsonl", "format"]),
    (missing_file, ["summaries.jsonl"]),
    (long_prompt, ["512", "context"]),
    (no_weights, ["model", "safetensors"]),
    (pickled_weights, ["pickle"]),
    (remote_code, ["code"]),
    (torn_weights, ["model.safetensors"]),
    (newer_version, ["99", "version"]),
    (unknown_key, ["stepz", "steps", "genwright.toml:"]),
    (unknown_table, ["selekt", "select", "genwright.toml:"]),
    (unknown_task, ["sumarization", "summarization"]),
    (broken_toml, ["genwright.toml:"]),
    (wrong_type, ["steps", "many"]),
]


@pytest.mark.parametrize(("spoil", "words"), CASES, ids=[case[0].__name__ for case in CASES])
def test_bad_input_is_refused_with_a_reason(spoil, words: list[str], project: Path, genwright_here: Callable) -> None:
    spoil(project)
    done = genwright_here(project, "apply")
    assert done.code == 2, done.told
    for word in words:
        assert word.lower() in done.err.lower(), done.told
    assert "do:" in done.err or "wanted:" in done.err, "an error says what to do"
    assert not done.out or "Traceback" not in done.out


def test_no_project_here(tmp_path: Path, genwright_here: Callable) -> None:
    done = genwright_here(tmp_path, "apply")
    assert done.code == 2
    assert "genwright.toml" in done.err and "init" in done.err


def test_unknown_verb_is_told_the_nearest(tmp_path: Path, genwright_here: Callable) -> None:
    done = genwright_here(tmp_path, "aply")
    assert done.code == 2
    assert "apply" in done.err


def test_two_applies_at_once(project: Path, genwright: Callable, home: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "genwright", "--project", str(project), "apply"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: bool(read_events(project / ".genwright" / "events.jsonl")))
        done = genwright(project, "apply")
        assert done.code == 2
        assert str(first.pid) in done.err, "the error names the process that holds the project"
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=120) in (0, 130)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_full_disk_leaves_nothing_half_written(project: Path, genwright: Callable) -> None:
    """No file may grow beyond 64 KiB: the system's own word for a disk that is full, without filling one."""
    limit = 64 * 1024
    done = genwright(project, "apply", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.code == 1, done.told
    assert "disk is full" in done.err and "free" in done.err
    artifacts = project / ".genwright" / "artifacts"
    assert not list(artifacts.glob("adapt/*")), "what did not fit stands under its final name"
    for manifest in artifacts.glob("*/*/manifest.json"):
        for name, file in json.loads(manifest.read_text())["files"].items():
            assert sha256_of_file(manifest.parent / name) == file["sha256"]
    assert genwright(project, "apply").code == 0, "with room again, the same command goes through"


def test_the_good_project_passes(short_project: Path, tmp_path: Path, genwright: Callable) -> None:
    """What every case above spoils is sound to begin with."""
    project = Path(shutil.copytree(short_project, tmp_path / "sound"))
    assert genwright(project, "plan").code == 0
