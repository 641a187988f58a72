"""Do what the plan says: lock, decide, run a stage, record, decide again. Safe to kill at any moment, and to repeat."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from genwright import __version__
from genwright.base.errors import Busy, Corrupt, DataError, DiskFull, GenwrightError, Interrupted
from genwright.base.events import Events
from genwright.base.files import disk_full_is_an_error, files_below, free_bytes, sha256_of_file, sha256_of_json
from genwright.base.registry import resolve, unknown_name
from genwright.base.units import Bytes
from genwright.project import graph
from genwright.project.graph import STAGES, Decision, Stage, Wanted
from genwright.project.spec import Spec
from genwright.project.store import Artifact, Removable, Store

FOLDER = ".genwright"
"""Where a project keeps everything that was made from its file."""


@dataclass(frozen=True)
class Context:
    """All that a stage knows."""

    spec: Spec
    inputs: Mapping[str, Path]
    """Artifact folders of the stages it reads."""
    out: Path
    """An empty folder that becomes the artifact when the stage returns."""
    work: Path
    """A folder that survives a kill; what an interrupted run left is in it."""
    events: Events
    stop: Callable[[], bool]
    """Whether somebody asked to stop. A stage polls it, keeps what it has in `work`, and raises Interrupted."""
    base: Path
    """The project's folder."""


@dataclass(frozen=True)
class Outcome:
    """What came of an apply. `exit_code` is 3 when the last stage that judges says "target not met", else 0."""

    exit_code: int
    decisions: tuple[Decision, ...]
    artifacts: Mapping[str, Path]


def apply(
    spec: Spec, *, events: Events, until: str | None = None, force: Sequence[str] = (), stages: Sequence[Stage] = STAGES
) -> Outcome:
    """Bring every stage (or those up to `until`) to where the project file wants it; `force` runs stages that need not.

    Errors: Busy while another apply runs; DataError for a missing file; Interrupted on SIGTERM or Ctrl-C; whatever a
    stage raises. In every case what was finished is kept, and running again goes on from there.
    """
    stages = graph.stages_of(stages, spec.flat())
    chosen = _until(stages, until)
    for name in force:
        _known(stages, name)
    with locked(spec.base / FOLDER), stop_on_signal() as stop:
        return _Run(spec, events, stop, chosen, force).all()


def decide_project(
    spec: Spec, base: Path | None = None, *, force: Collection[str] = (), stages: Sequence[Stage] = STAGES
) -> list[Decision]:
    """What `apply` would do now, stage by stage. Changes nothing."""
    stages = graph.stages_of(stages, spec.flat())
    return _decide(stages, _wanted(spec, stages), Store((base or spec.base) / FOLDER), force)


def clean(spec: Spec, *, remove: bool = False, stages: Sequence[Stage] = STAGES) -> list[Removable]:
    """What the project as it stands does not need; with `remove`, it is removed. Errors: Busy while an apply runs."""
    stages = graph.stages_of(stages, spec.flat())
    store = Store(spec.base / FOLDER)
    keep = {name: want.key for name, want in _wanted(spec, stages).items()}
    if not remove:
        return store.removable(keep)
    with locked(store.root):
        return store.clean(keep, remove=True)


class _Run:
    """One apply, under the lock. What the files say is read once, at the start."""

    def __init__(
        self, spec: Spec, events: Events, stop: Callable[[], bool], stages: Sequence[Stage], force: Sequence[str]
    ) -> None:
        self.spec, self.events, self.stop, self.stages, self.force = spec, events, stop, stages, set(force)
        self.store = Store(spec.base / FOLDER)
        self.wants = _wanted(spec, stages)
        self.done: dict[str, Artifact] = {}
        self.decisions: list[Decision] = []

    def all(self) -> Outcome:
        """Every stage in order, decided anew before each: the one before may have come out different."""
        self.store.sweep()
        self.events.write("run_started", project=self.spec.project.name, version=__version__)
        self._refuse_blocked()
        for stage in self.stages:
            decision = next(one for one in self._decide() if one.stage == stage.name)
            self.decisions.append(decision)
            if decision.action == "reuse":
                self._reuse(stage, self.wants[stage.name])
            else:
                self._run(stage, decision, self.wants[stage.name])
        folders = {name: artifact.path for name, artifact in self.done.items()}
        return Outcome(_exit_code(self.done), tuple(self.decisions), folders)

    def _decide(self) -> list[Decision]:
        return _decide(self.stages, self.wants, self.store, self.force)

    def _refuse_blocked(self) -> None:
        """Before anything is spent."""
        for one in self._decide():
            if one.action == "blocked":
                raise DataError(f"{one.stage} cannot run: {one.why}.", do="correct the path in genwright.toml")

    def _reuse(self, stage: Stage, want: Wanted) -> None:
        artifact = self.store.find(stage.name, want.key)
        assert artifact is not None, "decided to reuse what is not there"
        self.done[stage.name] = artifact
        self.store.point(stage.name, want.key, want.fields)  # a kill may have come between artifact, pointer and this
        self.store.drop_work(stage.name, want.key)
        self.events.write("stage_reused", stage=stage.name, key=want.key)

    def _run(self, stage: Stage, decision: Decision, want: Wanted) -> None:
        if self.stop():
            raise _interrupted(stage.name)
        self._set_aside_damaged(stage, want)
        if stage.name in self.force:
            self.store.drop_work(stage.name, want.key)
        why = f"{decision.why}; goes on where it was stopped" if decision.resumes else decision.why
        self.events.write("stage_started", stage=stage.name, why=why)
        started = time.monotonic()
        try:
            self._publish(stage, want)
        except (Interrupted, KeyboardInterrupt):
            self.events.write("stage_stopped", stage=stage.name)
            raise _interrupted(stage.name) from None
        except Exception as error:
            self._tell_failure(stage, error)
            raise
        self.force.discard(stage.name)
        self.events.write("stage_finished", stage=stage.name, seconds=time.monotonic() - started, key=want.key)

    def _publish(self, stage: Stage, want: Wanted) -> None:
        """The stage's function, between an empty folder and a manifest."""
        digests = {name: self.done[name].digest for name in stage.reads}
        with self.store.publish(stage.name, want.key, want.fields, digests) as out:
            context = Context(
                spec=self.spec, inputs={name: self.done[name].path for name in stage.reads}, out=out,
                work=self.store.work(stage.name, want.key), events=self.events, stop=self.stop, base=self.spec.base,
            )  # fmt: skip
            _check_room(stage, context)
            summary = resolve(stage.run)(context)
            text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
            (out / f"{stage.name}.json").write_text(text, encoding="utf-8")
            self._refuse_changed_files(stage, want)
        artifact = self.store.find(stage.name, want.key)
        assert artifact is not None, "published what is not there"
        self.done[stage.name] = artifact

    def _refuse_changed_files(self, stage: Stage, want: Wanted) -> None:
        """Else what was made from the new content would be kept under the old content's key."""
        if stage.files and _wanted(self.spec, self.stages)[stage.name].key != want.key:
            raise DataError(f"A file that {stage.name} reads was changed while it was read.", do="run again")

    def _set_aside_damaged(self, stage: Stage, want: Wanted) -> None:
        try:
            self.store.find(stage.name, want.key)
        except Corrupt as damage:
            place = self.store.set_aside(stage.name, want.key).relative_to(self.spec.base)
            text = f"{stage.name} is damaged: {damage.what} It was set aside as {place} and is made again."
            self.events.write("note", stage=stage.name, text=text)

    def _tell_failure(self, stage: Stage, error: Exception) -> None:
        try:
            self.events.write("stage_failed", stage=stage.name, error=f"{type(error).__name__}: {error}")
        except (OSError, DiskFull):  # a full disk cannot take the record either; the error itself is what must be seen
            return


def _decide(
    stages: Sequence[Stage], wants: Mapping[str, Wanted], store: Store, force: Collection[str]
) -> list[Decision]:
    found = {name: one for name, want in wants.items() if (one := _found(store, name, want.key)) is not None}
    last = {name: fields for name in wants if (fields := store.last_fields(name)) is not None}
    works = [name for name, want in wants.items() if store.has_work(name, want.key)]
    return graph.decide(stages, wants, found, last, force=force, works=works)


def _wanted(spec: Spec, stages: Sequence[Stage]) -> dict[str, Wanted]:
    values = spec.flat()
    keys = {key for stage in stages for key in stage.files}
    return graph.wanted(stages, values, {key: contents(_sources(key, values, spec.base), spec.base) for key in keys})


def _sources(key: str, values: Mapping[str, Any], base: Path) -> Any:
    """What of a key's value has content: of a project its result, of a suite its rows too."""
    value = values.get(key)
    if key == "unlearn.suites":
        return [*value, *rows_of(value, base)] if value else value
    if key == "unlearn.never_saw" and value and (base / value / "genwright.toml").exists():
        made = Store(base / value / FOLDER).latest("integrate")
        return [] if made is None else [str(made.path)]
    return [value] if key in ("adapt.teacher", "unlearn.never_saw") and value else value


def rows_of(suites: Sequence[str], base: Path) -> list[str]:
    """The files of rows that suite files name; of a suite that cannot be read, none: it is told when it is asked."""
    found = []
    for name in suites:
        try:
            told = tomllib.loads((base / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        tables = [told, *(told.get("suite") or [])]
        files = [str(table["file"]) for table in tables if isinstance(table, dict) and table.get("file")]
        found += [str(Path(name).parent / file) for file in files]
    return found


def _found(store: Store, stage: str, key: str) -> graph.Found | None:
    try:
        artifact = store.find(stage, key)
    except Corrupt as damage:
        return graph.Found("", damage=damage.what)
    return None if artifact is None else graph.Found(artifact.digest, artifact.inputs)


def contents(value: Any, base: Path) -> dict[str, str]:
    """The local files and folders that a key's value names -> SHA-256 of their content; "" for one that is not there.

    In a list (model sources), what is no path on this machine is a name, whose content is fixed by the name. Of
    "FILE.py:FUNCTION" it is the file.
    """
    if isinstance(value, list):
        paths = [name.removeprefix("folder:").removeprefix("gguf:") for name in value]
        return {path: fingerprint(base / path) for path in paths if (base / path).exists()}
    path = value.partition(":")[0] if value and ".py:" in value else value
    return {path: fingerprint(base / path)} if path else {}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and content of everything in a folder; "" where there is nothing."""
    if path.is_dir():
        return sha256_of_json({str(file.relative_to(path)): sha256_of_file(file) for file in files_below(path)})
    return sha256_of_file(path) if path.is_file() else ""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the project. The kernel lets go when the process ends, however it ends. Errors: Busy names the holder."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _busy(file.read()) from None
        with disk_full_is_an_error(root / "lock"):
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
            file.flush()
        yield


def _busy(holder: str) -> Busy:
    try:
        who = json.loads(holder)
        pid, found = who["pid"], f"process {who['pid']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        pid, found = "PID", "a process that has only just begun"
    return Busy("Another process is working on this project.", found=found, do=f"wait for it, or stop it: kill {pid}")


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C only raise a flag, so that work can be saved; a second Ctrl-C stops at once.

    Only the main thread may set signal handlers; in another, nothing asks.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_room(stage: Stage, context: Context) -> None:
    if not stage.needs:
        return
    needed, free = int(resolve(stage.needs)(context)), free_bytes(context.out)
    if needed > free:
        raise DiskFull(
            f"{stage.name} will not fit on the disk.", wanted=f"{Bytes(needed)} free", found=f"{Bytes(free)} free",
            do="free some space (`genwright clean` lists what can go) and run again",
        )  # fmt: skip


def _exit_code(done: Mapping[str, Artifact]) -> int:
    """The test rows have the last word over the validation rows."""
    verdicts = [artifact.summary().get("met") for artifact in done.values()]
    said = [met for met in verdicts if met is not None]
    return 3 if said and said[-1] is False else 0


def _interrupted(stage: str) -> GenwrightError:
    return Interrupted(f"Stopped on request in {stage}; what was done is kept.", do="run the command again to go on")


def _known(stages: Sequence[Stage], name: str) -> int:
    names = [stage.name for stage in stages]
    if name not in names:
        raise unknown_name("stage", name, names)
    return names.index(name)


def _until(stages: Sequence[Stage], until: str | None) -> Sequence[Stage]:
    return stages if until is None else stages[: _known(stages, until) + 1]
