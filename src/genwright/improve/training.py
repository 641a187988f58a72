"""Trains one recipe to its end: consumes the loop, tells, validates, saves often enough, and resumes exactly."""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.base.errors import Corrupt, Interrupted
from genwright.base.events import Events
from genwright.base.files import files_below
from genwright.data.layouts import Feed
from genwright.engine import checkpoint
from genwright.engine.build import Built, build
from genwright.engine.checkpoint import Checkpoint
from genwright.engine.columns import with_columns
from genwright.engine.loop import TrainedStep, mean_loss, train
from genwright.engine.recipe import Recipe
from genwright.engine.saving import Saved, Saver, agreed, latest_for_all
from genwright.improve.learning import Answerer, LoadSecond, no_second_model, rounds_of
from genwright.improve.solution import write_solution
from genwright.models.load import load_model
from genwright.models.tokenizer_files import copy_tokenizer
from genwright.parallel.mesh import SINGLE, Placement
from genwright.plan.cadence import DEFAULT_MTBF_SECONDS, interval_seconds
from genwright.plan.here.memory import memory_is_an_error
from genwright.plan.here.verify import Measured, measuring, release_freed_memory

FIRST_SAVE_SECONDS = 20.0
"""Until a save was timed, its cost is unknown: save once after so long, then at the computed interval."""
RESULT = "result"
"""Below a job's folder: the final weights of a training in several processes."""
MILESTONES = "milestones"
"""Beside what was trained: the solutions of the steps that the user named."""


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
    milestones: tuple[int, ...] = ()
    """Steps that are saved whatever the cadence, never dropped, and left as solutions of their own."""
    mtbf_seconds: float = DEFAULT_MTBF_SECONDS
    """Mean time between failures, for "auto"."""
    load_second: LoadSecond = no_second_model
    """Loads the model that makes columns, where an objective learns from one."""
    answering: Answerer | None = None
    """What it takes to learn from own answers."""
    place: Placement = SINGLE
    """How it is laid over devices."""
    until: float = math.inf
    """The moment (`time.time()`) at which the budget is spent: training ends there with what it has learned."""

    @property
    def checkpoints(self) -> Path:
        """Where they are."""
        return self.work / "checkpoints"

    def say(self, text: str) -> None:
        """A remark for whoever watches."""
        self.events.write("note", stage="adapt", text=text)


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
    stall_seconds: float = 0.0
    """What all saves so far cost the training."""

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Progress:
        """As it was saved."""
        return cls(**state | {"history": [(step, loss) for step, loss in state["history"]]})

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


class Cadence:
    """Decides when to save: at the milestones, and every so many steps or at the interval that loses least."""

    def __init__(
        self, every: str | int, milestones: Sequence[int] = (), mtbf_seconds: float = DEFAULT_MTBF_SECONDS
    ) -> None:
        self.every, self.milestones, self.mtbf_seconds = every, set(milestones), mtbf_seconds
        self.costs: list[float] = []
        """Seconds of each save: its stall, and its writing, which takes its share of the machine."""
        self.last = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether the step just done should be saved."""
        if step in self.milestones:
            return True
        if isinstance(self.every, int) and self.every:
            return step % self.every == 0
        wait = interval_seconds(statistics.median(self.costs), self.mtbf_seconds) if self.costs else FIRST_SAVE_SECONDS
        return time.perf_counter() - self.last >= wait


class Training:
    """One job under way: the model, what was learned of it so far, and who saves it."""

    def __init__(self, job: Job, built: Built) -> None:
        self.job, self.built, self.progress, self.start = job, built, Progress(), 0
        self.cadence = Cadence(job.checkpoint_every, job.milestones, job.mtbf_seconds)
        self.trained_bytes = sum(one.numel() * one.element_size() for one in built.parameters.values())
        identity = job.recipe.identity()
        self.saver = Saver(job.checkpoints, recipe=identity, milestones=job.milestones)
        self.best = Saver(job.work / "best", recipe=identity, keep=1, parts=(checkpoint.TRAINED,))
        self.rounds = rounds_of(job.answering, job.recipe, job.model, job.train, built)

    def memory(self, peak: Any) -> Any:
        """Around whatever may need too much."""
        return memory_is_an_error(peak, self.job.rung, self.job.recipe, trained_bytes=self.trained_bytes)

    def resume(self) -> Checkpoint | None:
        """Go on from the newest valid checkpoint, where there is one."""
        with self.memory("resume"):
            found = latest_for_all(self.job.checkpoints, recipe=self.job.recipe.identity(), say=self.job.say)
            if found is not None:
                checkpoint.restore_(self.built, found)
                self.progress, self.start = Progress.from_json(found.state["progress"]), found.step
        return found

    def steps(self) -> None:
        """Train to the end, telling of every step. Errors: Interrupted (saved first), Diverged, OutOfMemory, DiskFull."""
        if self.progress.exhausted(self.job.patience):
            return
        steps = train(self.built, self.job.recipe, self.job.train, start=self.start, rounds=self.rounds)
        before = time.time()
        while (done := self._next(steps)) is not None:
            self.progress.add(done)
            self.job.events.write("step", stage="adapt", rung=self.job.rung, total=self.job.recipe.steps, **_told(done))
            if self.job.validate_every and done.step % self.job.validate_every == 0:
                self._validate(done.step)
            self._tell(self.saver.finished())
            if done.resumable:
                self._save_or_stop(done.step)
            elif done.step in self.job.milestones:
                self.job.say(f"step {done.step} is in the middle of a round of answers, so it cannot be a milestone")
            if self.progress.exhausted(self.job.patience):
                self.job.say(f"stopped early at step {done.step}: validation no longer improves")
                return
            now = time.time()
            if any(agreed(now + (now - before) >= self.job.until)):  # another step like this one would be too much
                self.job.say(f"stopped at step {done.step} of {self.job.recipe.steps}: the budget is spent")
                return
            before = now

    def _save_or_stop(self, step: int) -> None:
        stopping, due = agreed(self.job.stop(), self.cadence.due(step))
        if stopping or due:
            self.save(step)
        if stopping:
            self._tell(self.saver.wait())
            raise Interrupted(
                f"Stopped after step {step} of {self.job.recipe.steps} of {self.job.rung}; it is saved.",
                do="run `genwright apply` to go on from there",
            )

    def _next(self, steps: Any) -> TrainedStep | None:
        with self.memory("train"):
            done: TrainedStep | None = next(steps, None)
            return done

    def _validate(self, step: int) -> None:
        with self.memory("train"):
            loss = mean_loss(self.built, self.job.recipe, self.job.validation)
        best = self.progress.best()
        self.progress.history.append((step, loss))
        self.job.events.write("validation", stage="adapt", rung=self.job.rung, step=step, loss=loss)
        if self.job.patience and (best is None or loss < best[1]):
            with self.memory("save"):
                self.progress.stall_seconds += self.best.save(self.built, step=step, state={})

    def save(self, step: int) -> None:
        """Begin to save; the training goes on meanwhile."""
        with self.memory("save"):
            stall = self.saver.save(self.built, step=step, state={"progress": vars(self.progress)})
        self.progress.stall_seconds += stall
        self.cadence.last = time.perf_counter()

    def finish(self) -> None:
        """Save the last step and wait until it is on the disk."""
        self.save(self.progress.steps)
        with self.memory("save"):
            self._tell(self.saver.wait())
            self.best.wait()

    def _tell(self, saved: list[Saved]) -> None:
        for one in saved:
            seconds = one.stall_seconds + one.write_seconds
            self.cadence.costs.append(seconds)
            self.job.events.write(
                "checkpoint", stage="adapt", rung=self.job.rung, step=one.step, seconds=seconds, stall_seconds=one.stall_seconds
            )  # fmt: skip

    def load_best_(self) -> None:
        """Go back to the best weights, where validation chose some. Errors: Corrupt."""
        best = self.progress.best()
        if best is not None and self.job.patience:
            found = checkpoint.opened(self.best.root / checkpoint.folder_name(best[0]))
            checkpoint.restore_(self.built, found, parts=(checkpoint.TRAINED,))


def train_to_end(job: Job, out: Path) -> dict[str, Any]:
    """Train, write what was trained to `out`, and return what was measured.

    Errors: Interrupted (saved first), Diverged, OutOfMemory naming the peak, DiskFull (what was saved before is kept).
    """
    training, measured = _trained(job)
    built = training.built
    del training
    shutil.rmtree(out, ignore_errors=True)
    job.recipe.adapter.save(built.model, out)
    _write_milestones(job, built, out)
    del built
    release_freed_memory()
    return measured | {"disk_bytes": _size(job.checkpoints) + _size(out)}


def train_share(job: Job) -> dict[str, Any]:
    """One process's part of a training: trained as `train_to_end` does; the final weights are left as a checkpoint in RESULT."""
    training, measured = _trained(job)
    with Saver(job.work / RESULT, recipe=job.recipe.identity(), keep=1, parts=(checkpoint.TRAINED,)) as saver:
        saver.save(training.built, step=training.progress.steps, state={})
        saver.wait()
    return measured | {"disk_bytes": _size(job.checkpoints)}


def _trained(job: Job) -> tuple[Training, dict[str, Any]]:
    """Train to the end, save, and prove that what was saved resumes; the weights kept are the best, where validation chose."""
    with measuring() as loading, memory_is_an_error("train", job.rung, job.recipe):
        built = _built(job)
        job = with_second_opinions(job, built)
    training = Training(job, built)
    with ExitStack() as stack:
        stack.enter_context(training.saver)
        stack.enter_context(training.best)
        if training.resume() is not None:
            job.say(f"resuming {job.rung} after step {training.start} of {job.recipe.steps}")
        with measuring() as trained:
            training.steps()
        with measuring() as saving:
            training.finish()
    with measuring() as resuming:
        training.resume()
    training.load_best_()
    progress, costs = training.progress, training.cadence.costs
    return training, _measured(progress, costs, loading=loading, trained=trained, saving=saving, resuming=resuming)


def with_second_opinions(job: Job, built: Built) -> Job:
    """The job with what a second model says of its rows, asked before a checkpoint is restored."""
    there = lambda feed: dataclasses.replace(feed, device=job.place.device)
    add = lambda feed: with_columns(job.recipe, built, there(feed), job.load_second)
    validation = add(job.validation) if job.validate_every else job.validation
    return dataclasses.replace(job, train=add(job.train), validation=validation)


def _built(job: Job) -> Built:
    load = lambda dtype, attention: load_model(job.model, dtype=dtype, attention=attention, head=job.recipe.head)
    return build(job.recipe, load, job.place)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_below(folder))


def _measured(
    progress: Progress,
    costs: list[float],
    *,
    loading: Measured,
    trained: Measured,
    saving: Measured,
    resuming: Measured,
) -> dict[str, Any]:
    return {
        "train_peak_bytes": max(trained.peak_bytes, loading.peak_bytes),
        "save_peak_bytes": saving.peak_bytes,
        "resume_peak_bytes": resuming.peak_bytes,
        "step_seconds": progress.seconds / progress.steps if progress.steps else None,
        "train_seconds": progress.seconds + progress.stall_seconds,
        "load_seconds": loading.seconds,
        "save_seconds": statistics.median(costs),
        "stall_seconds": progress.stall_seconds,
        "learned_tokens": progress.learned_tokens,
        "tokens": progress.tokens,
        "skipped_steps": progress.skipped,
        "validation": progress.history,
    }


def _told(done: TrainedStep) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(done).items() if name != "rows"}


def _write_milestones(job: Job, built: Built, out: Path) -> None:
    """Each milestone as a solution beside the result, so that it can be talked to when the checkpoints are gone."""
    for step in job.milestones:
        folder = job.checkpoints / checkpoint.folder_name(step)
        if folder.exists():
            _write_solution(
                job.recipe, job.model, built, checkpoint.opened(folder), out.parent / MILESTONES / folder.name
            )


def open_milestone(recipe: Recipe, model: Path, folder: Path, out: Path) -> None:
    """Make a checkpoint a solution that answers: built as it was trained, its weights put in place, written to `out`.

    Errors: Corrupt when it is damaged, or of another recipe than the project's.
    """
    found = checkpoint.opened(folder)
    if found.state["recipe"] != recipe.identity():
        raise Corrupt(
            f"{folder.name} was trained by another recipe than the project has now.", do="set the project's values back, or train again",
        )  # fmt: skip
    load = lambda dtype, attention: load_model(model, dtype=dtype, attention=attention, head=recipe.head)
    _write_solution(recipe, model, build(recipe, load), found, out)


def _write_solution(recipe: Recipe, model: Path, built: Built, found: Checkpoint, out: Path) -> None:
    checkpoint.restore_(built, found, parts=(checkpoint.TRAINED,))
    form = recipe.adapter.form
    recipe.adapter.save(built.model, out / form)
    if form == "model":
        copy_tokenizer(model, out / form)
    write_solution(out, form=form, examples=0, head=recipe.head)
