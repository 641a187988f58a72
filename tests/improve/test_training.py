"""The consumer of the loop: when it saves, when it stops, what it says when memory is over, which weights it ends with."""

from __future__ import annotations

import pytest

from genwright.improve.training import Cadence, Progress


def test_training_stops_after_patience_validations_without_a_better_one() -> None:
    progress = Progress([(10, 2.0), (20, 1.5), (30, 1.6)])
    assert progress.best() == (20, 1.5)
    assert not progress.exhausted(2)
    progress.history.append((40, 1.7))
    assert progress.exhausted(2) and not progress.exhausted(3) and not progress.exhausted(0)
    assert not Progress().exhausted(1)


def test_every_so_many_steps_and_at_the_milestones() -> None:
    assert [step for step in range(1, 10) if Cadence(4).due(step)] == [4, 8]
    assert [step for step in range(1, 10) if Cadence(4, milestones=(5,)).due(step)] == [4, 5, 8]
    assert [step for step in range(1, 10) if Cadence("auto", milestones=(5,)).due(step)] == [5]


def test_auto_is_youngs_interval_of_what_a_save_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """sqrt(2 * 2 s * 4 h) - 2 s = 238 s; with a failure an hour, sqrt(2 * 2 s * 1 h) - 2 s = 118 s."""
    now = [0.0]
    monkeypatch.setattr("genwright.improve.training.time.perf_counter", lambda: now[0])
    usual, often = Cadence("auto"), Cadence("auto", mtbf_seconds=3600.0)
    now[0] = 19.0
    assert not usual.due(1)
    now[0] = 21.0
    assert usual.due(2)
    for cadence, interval in ((usual, 238), (often, 118)):
        cadence.costs.append(2.0)
        cadence.last = 21.0
        now[0] = 21.0 + interval - 1
        assert not cadence.due(3)
        now[0] = 21.0 + interval + 1
        assert cadence.due(4)
