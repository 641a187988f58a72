"""What is refused before anything is spent, and when training stops by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from genwright.base.errors import DataError, DoesNotFit, RecipeError
from genwright.improve.judging import judge
from genwright.improve.placing import memory_bytes, placement_of
from genwright.improve.planning import refuse_what_does_not_fit
from genwright.improve.workshop import Workshop
from genwright.plan.estimate import Estimate, Range
from genwright.project.spec import spec_from_text

TOML = """
[project]
name = "x"
[scope]
task = "chat"
[data]
train = "t.jsonl"
"""


def workshop(tmp_path: Path, more: str = "") -> Workshop:
    spec = spec_from_text(TOML + more, tmp_path / "genwright.toml")
    return Workshop(spec, scope=tmp_path, model=tmp_path, made=tmp_path, events=None)


def exactly(value: float) -> Range:
    return Range(value, value, value)


def test_a_rung_that_does_not_fit_is_refused_with_its_breakdown(tmp_path: Path) -> None:
    small = workshop(tmp_path, '[hardware]\nmemory = "2 GiB"\n')
    assert memory_bytes(small.spec) == 2 * 2**30
    planned = Estimate({"host_bytes": exactly(3 * 2**30)}, {"weights": 2.0 * 2**30, "activations": 1.0 * 2**30})
    with pytest.raises(
        DoesNotFit, match=r"(?s)lora needs 3 GiB of memory \(weights 2 GiB, activations 1 GiB\).*has 2 GiB.*lower adapt"
    ):
        refuse_what_does_not_fit(small, "lora", planned)
    refuse_what_does_not_fit(small, "lora", Estimate({"host_bytes": exactly(2**30)}))


def test_a_disk_that_is_too_small_is_said_before_it_is_full(tmp_path: Path) -> None:
    planned = Estimate({"host_bytes": exactly(1.0), "disk_bytes": exactly(1e18)})
    with pytest.raises(DoesNotFit, match=r"(?s)lora needs .* of disk.*genwright clean"):
        refuse_what_does_not_fit(workshop(tmp_path), "lora", planned)


@pytest.mark.parametrize(
    ("hardware", "told"),
    [
        ('device = "h100"', "trains on this machine"),
        ("count = 1000", "This machine has"),
        ('strategy = "zero3"', "needs at least 2 devices"),
        ("offload = true", "has none"),
        ("sharding_factor = 2", "has no effect"),
    ],
)
def test_other_hardware_is_refused_rather_than_ignored(tmp_path: Path, hardware: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        placement_of(workshop(tmp_path, f"[hardware]\n{hardware}\n").spec)


def test_an_objective_that_cannot_learn_from_the_rows_is_refused(tmp_path: Path) -> None:
    made = workshop(tmp_path, '[adapt]\nobjective = "causal"\n')
    made._rows["train"] = [SimpleNamespace(kind="chat")] * 8
    with pytest.raises(
        RecipeError, match=r"(?s)'causal' does not learn from these rows.*rows of kind text.*choose adapt.objective"
    ):
        made.recipe("lora")


def test_judging_without_rows_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no validation rows to judge on.*validation_fraction"):
        judge(workshop(tmp_path), "zero-shot", [], split="validation")
