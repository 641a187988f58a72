"""Progress from events: enough lines to see life and pace in a log, not one a step."""

from __future__ import annotations

import io
from typing import Any

import pytest

from genwright.cli.progress import Bars, Lines, Pace, progress


def step(number: int, *, seconds: float = 0.5, total: int = 100, loss: float | None = 1.5) -> dict[str, Any]:
    return {"kind": "step", "stage": "adapt", "rung": "lora", "step": number, "total": total, "loss": loss,
            "tokens": 1000, "learned_tokens": 300, "seconds": seconds}  # fmt: skip


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(events: list[dict[str, Any]], *, tick: float = 0.5) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, every=5.0, clock=clock) as listener:
        for event in events:
            clock.now += tick
            listener(event)
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_every_five_seconds_and_the_first_and_last_step() -> None:
    told = lines([step(number) for number in range(1, 101)])
    assert told[0] == "adapt      lora  step 1/100  loss 1.500  2,000 tokens/s  ETA 50 s"
    assert [line.split()[3] for line in told] == [f"{n}/100" for n in (*range(1, 100, 10), 100)]
    assert told[-1].endswith("ETA 0 s")


def test_remaining_time_follows_the_recent_pace() -> None:
    told = lines(
        [step(n, seconds=10.0) for n in range(1, 31)] + [step(n, seconds=1.0) for n in range(31, 81)], tick=5.0
    )
    assert "ETA 20 s" in told[79] and "1,000 tokens/s" in told[79]


def test_rows_being_answered_have_a_pace_too() -> None:
    told = lines(
        [{"kind": "progress", "stage": "evaluate", "what": "lora answers", "done": done, "total": 400, "unit": "rows"}
         for done in (0, 100, 200, 400)], tick=10.0,
    )  # fmt: skip
    assert told == [
        "evaluate   lora answers  0/400 rows",
        "evaluate   lora answers  100/400 rows  ETA 30 s",
        "evaluate   lora answers  200/400 rows  ETA 20 s",
        "evaluate   lora answers  400/400 rows  ETA 0 s",
    ]


def test_two_pieces_of_work_do_not_silence_each_other() -> None:
    other = {**step(1), "rung": "full"}
    assert len(lines([step(1), other, step(2)])) == 2


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"kind": "stage_started", "stage": "adapt", "why": "adapt.steps changed: 100 -> 200"},
         "adapt      run: adapt.steps changed: 100 -> 200"),
        ({"kind": "stage_reused", "stage": "scope"}, "scope      reused: nothing that it depends on has changed"),
        ({"kind": "stage_finished", "stage": "scope", "seconds": 90}, "scope      done in 1.5 min"),
        ({"kind": "stage_failed", "stage": "scope", "error": "DataError: x"}, "scope      failed: DataError: x"),
        ({"kind": "stage_stopped", "stage": "adapt"}, "adapt      stopped; what was done is kept, run again to resume"),
        ({"kind": "note", "stage": "select", "text": "dequantised"}, "select     dequantised"),
        ({"kind": "score", "stage": "adapt", "rung": "lora", "split": "validation", "metric": "chrf", "value": 51.2,
          "low": 46.0, "high": 56.1, "n": 388}, "adapt      lora validation chrf: 51.2 (46.0 to 56.1), 388 rows"),
        ({"kind": "validation", "stage": "adapt", "rung": "lora", "step": 30, "loss": 1.25},
         "adapt      lora step 30: validation loss 1.2500"),
    ],
)  # fmt: skip
def test_every_remark(event: dict[str, Any], line: str) -> None:
    assert lines([event]) == [line]


def test_what_nobody_needs_to_read_is_not_told() -> None:
    assert lines([{"kind": "checkpoint", "stage": "adapt", "step": 3, "seconds": 1}, {"kind": "run_started"}]) == []


def test_a_step_without_a_loss_is_told() -> None:
    assert "loss -" in lines([step(1, loss=None)])[0]


def test_a_reader_that_leaves_does_not_stop_the_work() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Lines(Gone())(step(1))


def test_a_pace_that_knows_nothing_says_nothing() -> None:
    assert Pace().remaining(10) is None and Pace().tokens_per_second() is None


def test_a_log_gets_lines_and_a_terminal_gets_bars() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(progress(io.StringIO()), Lines)
    assert isinstance(progress(Screen()), Bars)


def test_bars_show_step_loss_rate_and_remaining_time() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    with Bars(screen) as listener:
        listener({"kind": "stage_started", "stage": "adapt", "why": "never run"})
        listener(step(40))
        listener.bars.refresh()
        assert len(listener.bars.tasks) == 1
        listener(step(100, loss=0.25))
        assert listener.bars.tasks == []
        listener({"kind": "stage_finished", "stage": "adapt", "seconds": 3})
    shown = screen.getvalue()
    assert "run: never run" in shown and "done in 3 s" in shown
    assert "step 40/100  loss 1.500" in shown and "2,000 tokens/s  ETA 30 s" in shown
    assert "adapt      lora  step 100/100  loss 0.250" in shown
