"""The rule of timing."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import clock

    yield clock
    sys.modules.pop("clock")


def test_the_first_step_counts_neither_seconds_nor_tokens(clock):
    watch = clock.StepClock()
    watch.wall, watch.cpu = [10.0, 12.0, 13.0], [1.0, 3.0, 6.0]
    found = watch.measured([100, 10, 20], [200, 30, 40], [300, 50, 60])
    assert found["seconds"] == 3.0
    assert found["cpu_seconds"] == 5.0
    assert found["learned_tokens"] == 30
    assert found["tokens"] == 70
    assert found["computed_tokens"] == 110
    assert found["learned_tokens_with_warmup"] == 130
    assert found["learned_tokens_per_second"] == 10.0
    assert found["step_seconds"] == [2.0, 1.0]


def test_one_step_is_too_few(clock):
    watch = clock.StepClock()
    watch.tick()
    with pytest.raises(SystemExit, match="1 steps are too few to time"):
        watch.measured([1], [1], [1])
