"""Progress of a run, told from its events: bars on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from genwright.base.events import Event
from genwright.base.units import Seconds
from genwright.cli.draw import score_words
from genwright.cli.terminal import console

LINE_SECONDS = 5.0
"""Time between two lines about the same piece of work, in a log."""


class Progress(Protocol):
    """Listens to events while it is open."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __call__(self, event: Event) -> None:
        """Tell one event."""
        ...


def progress(stream: TextIO) -> Progress:
    """Bars where a person watches, lines where a log is kept."""
    return Bars(stream) if stream.isatty() else Lines(stream)


class Pace:
    """Rate and remaining time from the last `window` reports of one piece of work."""

    def __init__(self, window: int = 20) -> None:
        self.steps: deque[tuple[float, float, float]] = deque(maxlen=window)

    def add(self, *, seconds: float, tokens: float = 0.0, done: float = 1.0) -> None:
        """One report: `done` pieces and `tokens` tokens took `seconds`."""
        self.steps.append((seconds, tokens, done))

    def tokens_per_second(self) -> float | None:
        """None until something was timed."""
        seconds = sum(step[0] for step in self.steps)
        return sum(step[1] for step in self.steps) / seconds if seconds > 0 else None

    def remaining(self, left: float) -> float | None:
        """Seconds for `left` more pieces at the recent pace. None until something was timed."""
        done = sum(step[2] for step in self.steps)
        return left * sum(step[0] for step in self.steps) / done if done > 0 else None


class Teller:
    """Turns events into sentences and keeps the pace of each piece of work. A subclass shows them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.paces: dict[str, Pace] = {}
        self.seen: dict[str, tuple[float, float]] = {}

    def step(self, event: Event) -> str:
        """A step in words, such as step 40/200  loss 1.232  512 tokens/s  ETA 3.2 min."""
        pace = self.paces.setdefault(work_name(event), Pace())
        pace.add(seconds=event.get("seconds") or 0.0, tokens=event.get("tokens") or 0.0)
        loss = event.get("loss")
        parts = [f"step {event['step']}/{event['total']}", "loss -" if loss is None else f"loss {loss:.3f}"]
        rate = pace.tokens_per_second()
        parts += [f"{rate:,.0f} tokens/s"] if rate else []
        return "  ".join([*parts, *_eta(pace.remaining(event["total"] - event["step"]))])

    def piece(self, event: Event) -> str:
        """Progress in words, such as 120/400 rows  ETA 12 s; the time between two events gives the pace."""
        name, done, total = work_name(event), event.get("done") or 0, event.get("total") or 0
        before = self.seen.get(name)
        self.seen[name] = (self.clock(), done)
        pace = self.paces.setdefault(name, Pace())
        if before is not None and done > before[1]:
            pace.add(seconds=self.clock() - before[0], done=done - before[1])
        return "  ".join([f"{done:,}/{total:,} {event.get('unit', '')}".rstrip(), *_eta(pace.remaining(total - done))])

    def remark(self, event: Event) -> str | None:
        """The sentence of an event that is not a step of some work, or None where there is nothing to say."""
        kind = event["kind"]
        if kind == "stage_started":
            return f"run: {event.get('why') or 'wanted'}"
        if kind == "stage_reused":
            return "reused: nothing that it depends on has changed"
        if kind == "stage_finished":
            return f"done in {Seconds(event.get('seconds') or 0)}"
        if kind == "stage_failed":
            return f"failed: {event.get('error', '')}"
        if kind == "stage_stopped":
            return "stopped; what was done is kept, run again to resume"
        return self._detail(event)

    def _detail(self, event: Event) -> str | None:
        if event["kind"] == "validation":
            return f"{event['rung']} step {event['step']}: validation loss {event['loss']:.4f}"
        if event["kind"] == "note":
            return str(event.get("text", ""))
        if event["kind"] == "score":
            rows = f", {event['n']} rows" if event.get("n") else ""
            return f"{event['rung']} {event['split']} {event['metric']}: {score_words(event)}{rows}"
        return None


class Lines(Teller):
    """One line a remark, and one every few seconds while a piece of work goes on."""

    def __init__(
        self, stream: TextIO, *, every: float = LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self.stream, self.every = stream, every
        self.told: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def __call__(self, event: Event) -> None:
        """Tell an event, unless the same work spoke moments ago. The first and the last word are always told."""
        if event["kind"] in ("step", "progress"):
            at_end = event.get("total") and (event.get("step") or event.get("done")) == event["total"]
            words = self.step(event) if event["kind"] == "step" else self.piece(event)
            name, now = work_name(event), self.clock()
            if at_end or now - self.told.get(name, -self.every) >= self.every:
                self.told[name] = now
                self._print(event, f"{event.get('rung') or event.get('what') or ''}  {words}".strip())
        elif (words_or_none := self.remark(event)) is not None:
            self._print(event, words_or_none)

    def _print(self, event: Event, words: str) -> None:
        try:
            print(f"{event.get('stage', ''):<10} {words}", file=self.stream, flush=True)
        except BrokenPipeError:  # the reader left; the work goes on
            return


class Bars(Teller):
    """A bar for each piece of work that goes on, remarks above it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.bars = Progress(
            TextColumn("{task.fields[stage]:<10}", markup=False),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[words]}", markup=False),
            TimeElapsedColumn(),
            console=console(stream),
            transient=True,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        """Move a bar, or say a remark above the bars."""
        if event["kind"] in ("step", "progress"):
            self._move(event)
        elif (words := self.remark(event)) is not None:
            if event["kind"].startswith("stage_"):
                self._clear()
            self.bars.console.print(f"{event.get('stage', ''):<10} {words}")

    def _move(self, event: Event) -> None:
        name, title = work_name(event), str(event.get("rung") or event.get("what") or "")
        is_step, stage = event["kind"] == "step", event.get("stage", "")
        words = self.step(event) if is_step else self.piece(event)
        done, total = event["step"] if is_step else event.get("done"), event.get("total")
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(title, total=total, stage=stage, words=words)
        self.bars.update(self.tasks[name], completed=done, total=total, words=words)
        if done == total:  # a finished bar becomes a line above those that go on
            self.bars.remove_task(self.tasks.pop(name))
            self.bars.console.print(f"{stage:<10} {title}  {words}")

    def _clear(self) -> None:
        for task in self.tasks.values():
            self.bars.remove_task(task)
        self.tasks.clear()


def work_name(event: Event) -> str:
    """What tells one piece of work from another: stage, rung and what is done."""
    return f"{event.get('stage')}/{event.get('rung')}/{event.get('what')}/{event['kind']}"


def _eta(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"ETA {Seconds(round(seconds))}"]
