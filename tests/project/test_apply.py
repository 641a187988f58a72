"""Applying, in this process and in real ones: locked, stopped, killed, damaged, out of room."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

from genwright.base.errors import Busy, DataError, DiskFull, Interrupted, UnknownName
from genwright.base.events import Events, read_events
from genwright.project.apply import Outcome, apply, clean, contents, decide_project, fingerprint, locked, stop_on_signal
from genwright.project.graph import Stage
from genwright.project.spec import override, read_spec
from genwright.project.store import Store

TOY = Path(__file__).parent / "toy.py"


def run(folder: Path, *changes: str, **options: Any) -> Outcome:
    """Apply in this process."""
    spec = read_spec(folder / "genwright.toml")
    for change in changes:
        spec = override(spec, change)
    events = Events(folder / ".genwright" / "events.jsonl")
    return apply(spec, events=events, **{"stages": toy.STAGES, **options})


def told(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / ".genwright" / "events.jsonl") if event["kind"] == kind]


def actions(outcome: Outcome) -> dict[str, str]:
    return {one.stage: one.action for one in outcome.decisions}


def tree(folder: Path) -> dict[str, bytes]:
    """Everything that was made: artifacts with their manifests, and pointers."""
    root = folder / ".genwright"
    files = [path for name in ("artifacts", "latest") for path in (root / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(files)}


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Apply in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(TOY), str(folder), *words], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """(exit code, what it said on standard error). Errors: TimeoutExpired."""
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


# --- what runs, and what is reused


def test_everything_runs_once_and_is_then_reused(folder: Path) -> None:
    first = run(folder)
    assert actions(first) == {"grow": "run", "double": "run", "judge": "run"}
    assert first.exit_code == 0
    assert (first.artifacts["double"] / "deep" / "doubled.bin").stat().st_size == 2 * 12 * 20_000
    assert json.loads((first.artifacts["grow"] / "grow.json").read_text()) == {"pieces": 12}
    before = tree(folder)
    second = run(folder)
    assert set(actions(second).values()) == {"reuse"}
    assert tree(folder) == before
    assert second.artifacts == first.artifacts
    assert [event["stage"] for event in told(folder, "stage_reused")] == ["grow", "double", "judge"]
    assert [event["why"] for event in told(folder, "stage_started")] == ["never run"] * 3
    assert all(event["seconds"] >= 0 and len(event["key"]) == 64 for event in told(folder, "stage_finished"))
    assert told(folder, "run_started")[0]["project"] == "toy"


def test_a_change_runs_what_depends_on_it_and_says_so(folder: Path) -> None:
    run(folder)
    assert actions(run(folder, "adapt.epochs=2", "adapt.steps=12")) == {
        "grow": "reuse",
        "double": "reuse",
        "judge": "reuse",
    }
    assert actions(run(folder, "scope.target=20")) == {"grow": "reuse", "double": "reuse", "judge": "run"}
    assert told(folder, "stage_started")[-1]["why"] == "scope.target changed: 10.0 -> 20.0"
    (folder / "train.txt").write_text("three\n")
    assert actions(run(folder)) == {"grow": "run", "double": "run", "judge": "run"}
    whys = [event["why"] for event in told(folder, "stage_started")[-3:]]
    assert whys == ["train.txt changed", "grow changed", "scope.target changed: 20.0 -> 10.0; double changed"]


def test_going_back_to_old_settings_reuses_the_old_artifacts_and_points_at_them(folder: Path) -> None:
    old = run(folder).artifacts["grow"]
    new = run(folder, "adapt.steps=5").artifacts["grow"]
    assert old != new
    assert set(actions(run(folder)).values()) == {"reuse"}
    latest = Store(folder / ".genwright").latest("grow")
    assert latest is not None and latest.path == old


def test_until_stops_and_force_runs_again(folder: Path) -> None:
    assert list(actions(run(folder, until="double"))) == ["grow", "double"]
    run(folder)
    before = tree(folder)
    forced = run(folder, force=("double",))
    assert actions(forced) == {
        "grow": "reuse",
        "double": "run",
        "judge": "reuse",
    }  # it came out the same: no need for more
    assert tree(folder) == before
    for words in ({"until": "dubble"}, {"force": ("dubble",)}):
        with pytest.raises(UnknownName, match="There is no stage 'dubble'") as caught:
            run(folder, **words)
        assert caught.value.do == "did you mean 'double'?"


def test_a_forced_stage_that_comes_out_different_runs_what_reads_it(folder: Path) -> None:
    noisy = (toy.STAGES[0], Stage("double", "test_noise:noise", reads=("grow",)), toy.STAGES[2])
    sys.modules["test_noise"] = type(sys)("test_noise")
    sys.modules["test_noise"].noise = lambda context: {"time": time.time_ns()}  # type: ignore[attr-defined]
    run(folder, stages=noisy)
    assert actions(run(folder, stages=noisy, force=("double",))) == {"grow": "reuse", "double": "run", "judge": "run"}
    assert told(folder, "stage_started")[-1]["why"] == "double came out different"
    assert set(actions(run(folder, stages=noisy)).values()) == {"reuse"}


def test_deciding_changes_nothing(folder: Path) -> None:
    spec = read_spec(folder / "genwright.toml")
    assert [one.action for one in decide_project(spec, stages=toy.STAGES)] == ["run", "run", "run"]
    assert not (folder / ".genwright").exists()
    run(folder)
    before = tree(folder)
    assert [one.action for one in decide_project(spec, folder, stages=toy.STAGES)] == ["reuse", "reuse", "reuse"]
    assert tree(folder) == before


def test_a_missing_file_blocks_before_anything_is_spent(folder: Path) -> None:
    (folder / "train.txt").unlink()
    assert {one.action for one in decide_project(read_spec(folder / "genwright.toml"), stages=toy.STAGES)} == {
        "blocked"
    }
    with pytest.raises(DataError, match=r"grow cannot run: data\.train: train\.txt does not exist"):
        run(folder)
    assert told(folder, "stage_started") == []


def test_a_target_that_is_not_met_is_exit_code_3_also_when_reused(folder: Path) -> None:
    assert run(folder, "scope.target=99").exit_code == 3
    assert run(folder, "scope.target=99").exit_code == 3
    assert run(folder, "scope.target=99", until="double").exit_code == 0


def test_cleaning_removes_what_belongs_to_other_settings(folder: Path) -> None:
    run(folder)
    kept = tree(folder)
    run(folder, "adapt.steps=5")
    run(folder)
    spec = read_spec(folder / "genwright.toml")
    assert len(clean(spec, stages=toy.STAGES)) == 3
    assert len(clean(spec, remove=True, stages=toy.STAGES)) == 3
    assert tree(folder) == kept
    with locked(folder / ".genwright"), pytest.raises(Busy):
        clean(spec, remove=True, stages=toy.STAGES)


# --- what goes wrong in a stage


def test_a_stage_that_fails_is_told_and_keeps_its_work(folder: Path) -> None:
    broken = (toy.STAGES[0], Stage("double", "toy:broken", reads=("grow",)))
    with pytest.raises(ValueError, match="the oven is cold"):
        run(folder, stages=broken)
    assert told(folder, "stage_failed")[0]["error"] == "ValueError: the oven is cold"
    store = Store(folder / ".genwright")
    decisions = decide_project(read_spec(folder / "genwright.toml"), stages=broken)
    assert [(one.action, one.resumes) for one in decisions] == [("reuse", False), ("run", True)]
    assert store.has_work("double", decisions[1].key)
    assert list((folder / ".genwright" / "artifacts" / "double").iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    def meddle(context: Any) -> dict[str, Any]:
        (context.base / "train.txt").write_text("meddled\n")
        return {}

    sys.modules["test_meddle"] = type(sys)("test_meddle")
    sys.modules["test_meddle"].meddle = meddle  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="A file that grow reads was changed while it was read"):
        run(folder, stages=(Stage("grow", "test_meddle:meddle", files=("data.train",)),))
    assert Store(folder / ".genwright").latest("grow") is None


@pytest.mark.parametrize("harm", ["flip", "delete", "truncate"])
def test_a_damaged_artifact_is_named_set_aside_and_made_again(folder: Path, harm: str) -> None:
    artifact = run(folder).artifacts["grow"]
    whole = tree(folder)
    victim = artifact / ("manifest.json" if harm == "truncate" else "grown.bin")
    content = bytearray(victim.read_bytes())
    status = victim.stat()
    if harm == "flip":
        content[1000] ^= 4
        victim.write_bytes(content)
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif harm == "delete":
        victim.unlink()
    else:
        victim.write_bytes(content[: len(content) // 2])
    outcome = run(folder)
    assert actions(outcome) == {"grow": "run", "double": "reuse", "judge": "reuse"}
    assert tree(folder) == whole
    note = told(folder, "note")[0]["text"]
    assert victim.name in note and "set aside as .genwright/set-aside/grow-" in note
    assert len(list((folder / ".genwright" / "set-aside").iterdir())) == 1


def test_too_little_room_is_said_before_the_stage_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_ROOM", str(2**60))
    with pytest.raises(DiskFull, match="grow will not fit on the disk") as caught:
        run(folder)
    assert caught.value.wanted == "1048576 TiB free"
    assert Store(folder / ".genwright").latest("grow") is None


def test_a_disk_that_fills_up_leaves_nothing_half_written(folder: Path) -> None:
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv[1:] = [{str(folder)!r}]; sys.path.insert(0, {str(TOY.parent)!r})\n"
        f"runpy.run_path({str(TOY)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "DiskFull: The disk is full" in done.stderr and "Traceback" not in done.stderr
    assert told(folder, "stage_failed")[0]["error"].startswith("DiskFull")
    assert tree(folder) == {}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
    assert run(folder).exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_small_disk_that_is_really_full(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        for name in ("genwright.toml", "train.txt"):
            shutil.copy(folder / name, small)
        code, errors = finish(start(small))
        assert code == 1 and "DiskFull: The disk is full" in errors and "Traceback" not in errors
        store = Store(small / ".genwright")
        for path in (small / ".genwright" / "artifacts").glob("*/*"):  # whatever has a final name is whole
            assert store.find(path.parent.name, json.loads((path / "manifest.json").read_text())["key"])
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert finish(start(small))[0] == 0
        assert tree(small) == (run(folder) and tree(folder))
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- locks and signals, between real processes


def test_two_at_once(folder: Path) -> None:
    first = start(folder, TOY_PIECE_SECONDS="0.1")
    wait_for(lambda: told(folder, "progress"))
    code, errors = finish(start(folder))
    assert code == 2
    assert "Busy: Another process is working on this project." in errors
    assert f"process {first.pid}, since 20" in errors and f"kill {first.pid}" in errors
    first.kill()
    first.communicate()
    assert finish(start(folder))[0] == 0  # the kernel gave the lock back


def test_the_lock_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Busy, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(Busy, match="has only just begun"), locked(tmp_path):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_and_the_next_run_goes_on(folder: Path, number: signal.Signals) -> None:
    process = start(folder, TOY_PIECE_SECONDS="0.1")
    wait_for(lambda: len(told(folder, "progress")) >= 3)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 130, errors
    assert "Interrupted: Stopped on request in grow; what was done is kept." in errors and "Traceback" not in errors
    assert [event["stage"] for event in told(folder, "stage_stopped")] == ["grow"]
    made = len(told(folder, "progress"))
    assert made < 12
    assert finish(start(folder))[0] == 0
    assert [event["done"] for event in told(folder, "progress")] == list(range(1, 13))  # no piece was made twice
    assert told(folder, "stage_started")[1]["why"] == "never run; goes on where it was stopped"


def test_a_second_ctrl_c_stops_at_once(folder: Path) -> None:
    process = start(folder, TOY_PIECE_SECONDS="20")
    wait_for(lambda: told(folder, "stage_started"))
    began = time.monotonic()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 130 and time.monotonic() - began < 15
    assert "Traceback" not in errors and told(folder, "stage_stopped")


def test_a_request_between_two_stages_is_heard(folder: Path) -> None:
    def ask(context: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(context.stop)
        return {}

    sys.modules["test_ask"] = type(sys)("test_ask")
    sys.modules["test_ask"].ask = ask  # type: ignore[attr-defined]
    with pytest.raises(Interrupted, match="Stopped on request in double") as caught:
        run(folder, stages=(Stage("grow", "test_ask:ask"), toy.STAGES[1]))
    assert caught.value.exit_code == 130
    assert [event["stage"] for event in told(folder, "stage_finished")] == ["grow"]


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(stop)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_thread_may_apply_too(folder: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(folder).exit_code))
    thread.start()
    thread.join(timeout=60)
    assert codes == [0]


def check_nothing_is_half_there(folder: Path) -> None:
    """Whatever has a final name is whole."""
    store = Store(folder / ".genwright")
    for path in (folder / ".genwright" / "artifacts").glob("*/[0-9a-f]*"):
        assert store.find(path.parent.name, json.loads((path / "manifest.json").read_text())["key"])


def test_killed_at_random_moments_it_ends_with_the_same_bytes(folder: Path, tmp_path_factory: Any) -> None:
    calm = Path(shutil.copytree(folder, tmp_path_factory.mktemp("calm") / "project"))
    run(calm)
    chance, kills, lives = random.Random(11), 0, 0
    while kills < 12:
        process = start(folder, TOY_PIECE_SECONDS="0.03")
        try:
            assert finish(process, 0.1 + 0.3 * chance.random())[0] == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            check_nothing_is_half_there(folder)
            continue
        assert tree(folder) == tree(calm)
        shutil.rmtree(folder / ".genwright")
        lives += 1
        assert lives < 40, "the machine is too fast to be killed"
    assert finish(start(folder))[0] == 0
    assert tree(folder) == tree(calm)
    assert not list((folder / ".genwright").rglob(".*")) and not list((folder / ".genwright" / "work").glob("*/*"))


# --- what a key's value names on this machine


def test_fingerprints_are_of_content(tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "a").write_text("a")
    one = fingerprint(tmp_path / "model")
    os.utime(tmp_path / "model" / "deep" / "a", (1, 1))
    assert fingerprint(tmp_path / "model") == one
    (tmp_path / "model" / "deep" / "a").rename(tmp_path / "model" / "deep" / "b")
    assert fingerprint(tmp_path / "model") != one
    assert fingerprint(tmp_path / "none") == ""
    assert contents("", tmp_path) == {}
    assert contents("none", tmp_path) == {"none": ""}
    models = ["folder:model", "hub:a/b", "a-catalogue-name"]
    assert contents(models, tmp_path) == {"model": fingerprint(tmp_path / "model")}


def test_a_function_of_a_file_is_its_file_and_a_model_may_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def score(*_): return 1.0\n")
    before = contents("rewards.py:score", tmp_path)
    assert list(before) == ["rewards.py"] and before["rewards.py"]
    (tmp_path / "rewards.py").write_text("def score(*_): return 2.0\n")
    assert contents("rewards.py:score", tmp_path) != before
    assert contents("gone.py:score", tmp_path) == {"gone.py": ""}
    assert contents(["smollm2-135m-instruct"], tmp_path) == {}
