"""Trains one recipe to its end: consumes the loop, tells, validates, saves often enough, and resumes exactly."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.base.errors import Interrupted, RecipeError
from genwright.base.events import Events
from genwright.base.files import files_below
from genwright.data.layouts import Feed
from genwright.engine import checkpoint
from genwright.engine.build import Built, build
from genwright.engine.columns import with_columns
from genwright.engine.loop import TrainedStep, mean_loss, train
from genwright.engine.recipe import Recipe
from genwright.engine.rollouts import Rounds, Worth
from genwright.models.attention import NAME
from genwright.models.load import load_model
from genwright.plan.cadence import interval_seconds
from genwright.plan.verify import measuring, release_freed_memory
from genwright.precision.policy import resolve

FIRST_SAVE_SECONDS = 20.0
"""Until a save was timed, its cost is unknown: save once after so long, then at the computed interval."""


def refuse_second() -> Any:
    """Where no second model was named. Errors: RecipeError."""
    raise RecipeError("This objective learns from a second model.", wanted="adapt.teacher", do="name a model in adapt.teacher")


@dataclass(frozen=True)
class Job:
    """One training: what, on which rows, where, and whom to tell."""

    rung: str
    recipe: Recipe
    model: Path
    train: Feed
    validation: Feed
    work: Path
    """Survives a kill: checkpoints and the best weights."""
    events: Events
    stop: Callable[[], bool]
    checkpoint_every: str | int = "auto"
    validate_every: int = 0
    patience: int = 0
    load_second: Callable[[], Any] = refuse_second
    """Loads the model that makes columns, where an objective learns from one."""
    answering: Answerer | None = None
    """What it takes to learn from own answers: the tokenizer, and what an answer is worth."""


@dataclass(frozen=True)
class Answerer:
    """A tokenizer and a worth: (number of the training row, the answer's tokens) to a reward."""

    tokenizer: Any
    worth: Worth


@dataclass
class Progress:
    """What the consumer of the loop remembers; saved with every checkpoint."""

    history: list[tuple[int, float]] = field(default_factory=list)
    """(step, validation loss)."""
    seconds: float = 0.0
    """Of all steps so far, in this process and in those before it."""
    steps: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    skipped: int = 0

    def add(self, done: TrainedStep) -> None:
        """One more step."""
        self.seconds += done.seconds
        self.steps += 1
        self.tokens += done.tokens
        self.learned_tokens += done.learned_tokens
        self.skipped += done.skipped

    def best(self) -> tuple[int, float] | None:
        """The lowest validation loss so far and its step."""
        return min(self.history, key=lambda item: item[1]) if self.history else None

    def exhausted(self, patience: int) -> bool:
        """Whether the last `patience` validations all failed to improve on the best."""
        best = self.best()
        return best is not None and patience > 0 and sum(step > best[0] for step, _ in self.history) >= patience


class Saver:
    """Decides when to save: every so many steps, or at the interval that loses least."""

    def __init__(self, every: str | int) -> None:
        self.every = every
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether the step just done should be saved."""
        if isinstance(self.every, int) and self.every:
            return step % self.every == 0
        wait = interval_seconds(statistics.median(self.seconds)) if self.seconds else FIRST_SAVE_SECONDS
        return time.perf_counter() - self.last >= wait

    def saved(self, seconds: float) -> None:
        """Note what a save cost."""
        self.seconds.append(seconds)
        self.last = time.perf_counter()


def train_to_end(job: Job, out: Path) -> dict[str, Any]:
    """Train, write what was trained to `out`, and return what was measured. Errors: Interrupted (saved first), Diverged."""
    with measuring() as loading:
        built = build(job.recipe, lambda dtype, attention: _load(job, dtype, attention))
        job = with_all_columns(job, built)  # before a checkpoint is restored: the reference is the model as it was found
    say = lambda text: job.events.write("note", stage="adapt", text=text)
    found = checkpoint.latest(job.work / "checkpoints", recipe=job.recipe.identity(), say=say)
    progress, start = Progress(), 0
    if found is not None:
        checkpoint.restore_(built, found)
        progress, start = Progress(**found.state["progress"]), found.step
        say(f"resuming {job.rung} after step {start} of {job.recipe.steps}")
    with measuring() as training:
        saves = _steps(job, built, progress, start)
    best = progress.best()
    if best is not None and job.patience:
        checkpoint.load_best_(job.work / "best.safetensors", built)
    with measuring() as saving:
        _save(job, built, progress, max(job.recipe.steps, start))
    with measuring() as resuming:
        newest = checkpoint.latest(job.work / "checkpoints", recipe=job.recipe.identity(), say=say)
        if newest is not None:
            checkpoint.restore_(built, newest)
    shutil.rmtree(out, ignore_errors=True)
    job.recipe.adapter.save(built.model, out)
    del built
    release_freed_memory()
    disk = sum(path.stat().st_size for folder in (job.work / "checkpoints", out) for path in files_below(folder))
    return {
        "train_peak_bytes": max(training.peak_bytes, loading.peak_bytes),
        "save_peak_bytes": saving.peak_bytes,
        "resume_peak_bytes": resuming.peak_bytes,
        "disk_bytes": disk,
        "step_seconds": progress.seconds / progress.steps if progress.steps else None,
        "train_seconds": progress.seconds + sum(saves),
        "load_seconds": loading.seconds,
        "save_seconds": statistics.median(saves) if saves else saving.seconds,
        "learned_tokens": progress.learned_tokens,
        "tokens": progress.tokens,
        "skipped_steps": progress.skipped,
        "validation": progress.history,
    }


def _load(job: Job, dtype: Any, attention: str) -> Any:
    return load_model(job.model, dtype=dtype, attention=attention, head=job.recipe.head)


def with_all_columns(job: Job, built: Built) -> Job:
    """The job with what a second model says of its rows."""
    add = lambda feed: with_columns(job.recipe, built, feed, job.load_second)
    return dataclasses.replace(job, train=add(job.train), validation=add(job.validation) if job.validate_every else job.validation)


def _rounds(job: Job, built: Built) -> Rounds | None:
    """Rollouts, where the objective learns from them. A reference that is no switched-off adapter is a model of its own."""
    if job.answering is None:
        return None
    wants = "reference_N" in job.recipe.objective.columns and not hasattr(built.model, "disable_adapter")
    frozen = _load(job, resolve(job.recipe.precision).compute, NAME) if wants else None
    return Rounds(built, job.recipe, job.train, job.answering.tokenizer, job.answering.worth, frozen)


def _steps(job: Job, built: Built, progress: Progress, start: int) -> list[float]:
    """Run the loop from `start`, telling of every step; returns the seconds of each save."""
    saver = Saver(job.checkpoint_every)
    for done in train(built, job.recipe, job.train, start=start, rounds=_rounds(job, built)):
        progress.add(done)
        job.events.write("step", stage="adapt", rung=job.rung, total=job.recipe.steps, **_told(done))
        if job.validate_every and done.step % job.validate_every == 0:
            _validate(job, built, progress, done.step)
        stopping = done.resumable and job.stop()
        if stopping or (done.resumable and saver.due(done.step)):
            saver.saved(_save(job, built, progress, done.step))
        if stopping:
            raise Interrupted(
                f"Stopped after step {done.step} of {job.recipe.steps} of {job.rung}; it is saved.",
                do="run `genwright apply` to go on from there",
            )
        if progress.exhausted(job.patience):
            job.events.write(
                "note", stage="adapt", text=f"stopped early at step {done.step}: validation no longer improves"
            )
            break
    return saver.seconds


def _told(done: TrainedStep) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(done).items() if name != "rows"}


def _validate(job: Job, built: Built, progress: Progress, step: int) -> None:
    loss = mean_loss(built, job.recipe, job.validation)
    best = progress.best()
    progress.history.append((step, loss))
    job.events.write("validation", stage="adapt", rung=job.rung, step=step, loss=loss)
    if job.patience and (best is None or loss < best[1]):
        checkpoint.save_best(job.work / "best.safetensors", built)


def _save(job: Job, built: Built, progress: Progress, step: int) -> float:
    seconds = checkpoint.save(
        job.work / "checkpoints", built, step=step, recipe=job.recipe.identity(), state={"progress": vars(progress)}
    )  # fmt: skip
    job.events.write("checkpoint", stage="adapt", rung=job.rung, step=step, seconds=seconds)
    return seconds
