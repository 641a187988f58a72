"""From measurements to the result, on rounds made by hand."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compare

    yield compare
    sys.modules.pop("compare")


def run(seconds: float, loss: float, learned: int = 100) -> dict:
    return {
        "steps": 3, "warmup_steps": 1, "learned_tokens": learned, "learned_tokens_with_warmup": learned + 50,
        "seconds": seconds, "cpu_seconds": 2 * seconds, "step_seconds": [seconds / 2, seconds / 2],
        "trained_parameters": 7, "documents_leak": None, "settings": {"threads": 2}, "versions": {},
        "held_out": {"loss": loss},
    }  # fmt: skip


def test_ratios_are_paired_and_ours_over_theirs(compare):
    """On a machine that slows down three times, theirs takes 2, 4 and 3 times as long in the same round."""
    rounds = [
        {"ours": run(1.0, 1.0), "trl": run(2.0, 1.1)},
        {"ours": run(10.0, 1.0), "trl": run(40.0, 1.3)},
        {"ours": run(2.0, 1.0), "trl": run(6.0, 1.2)},
    ]
    found = compare.peer_result(rounds, "trl")
    assert (found["ratio"], found["ratio_low"], found["ratio_high"]) == (3.0, 2.0, 4.0)
    assert found["ratio_of_processor_time"] == found["ratio_of_median_steps"] == 3.0
    assert found["loss"] == 1.2
    assert found["unequal"] == []


def test_a_stall_moves_the_wall_ratio_but_not_the_median_step(compare):
    stalled = run(12.0, 1.0) | {"steps": 4, "step_seconds": [1.0, 10.0, 1.0], "learned_tokens": 150}
    calm = run(3.0, 1.0) | {"steps": 4, "step_seconds": [1.0, 1.0, 1.0], "learned_tokens": 150}
    found = compare.peer_result([{"ours": calm, "trl": stalled}], "trl")
    assert found["ratio"] == 4.0
    assert found["ratio_of_median_steps"] == 1.0


def test_unequal_work_is_told(compare):
    found = compare.peer_result([{"ours": run(1.0, 1.0), "trl": run(1.0, 1.0, learned=120)}], "trl")
    assert found["unequal"] == ["learned tokens: ours 150, theirs 170"]


def test_floor_share_takes_the_faster_rate(compare):
    ours = run(2.0, 1.0) | {"floor_flops": {"total": 100.0}}
    found = compare.floor_share(ours, {"flops_per_second": 80.0}, {"flops_per_second": 100.0})
    assert found["floor_share"] == 0.5


def test_table_names_every_side(compare):
    rounds = [{"ours": run(1.0, 1.0) | {"floor_share": 0.5}, "trl": run(2.0, 1.1, learned=120)}]
    peer = compare.peer_result(rounds, "trl") | {"options": {"precision": "fp32"}}
    text = compare.table({"peers": {"trl": peer}, **compare.our_result(rounds), "untrained_loss": 4.0})
    assert "genwright" in text
    assert "NOT EQUAL: trl: learned tokens: ours 150, theirs 170" in text
    assert "50.0 %" in text
