"""The consumer of the loop: when it saves, when it stops, what it says when memory is over, which weights it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.improve.conftest import job_of

from genwright.base.errors import OutOfMemory
from genwright.improve.training import Cadence, Progress, train_to_end
from genwright.project.spec import override


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


def test_a_milestone_is_left_as_a_solution_that_loads_elsewhere(tiny_spec: Callable, tmp_path: Path) -> None:
    """Step 2's adapter, opened with `peft` alone, is what training had then: two steps trained alone end there."""
    spec = tiny_spec("instruction", "lora")
    (tmp_path / "run").mkdir()
    train_to_end(replace(job_of(spec, "lora", tmp_path / "run"), milestones=(2,)), tmp_path / "run" / "adapter")
    left = tmp_path / "run" / "milestones" / "step-000002"
    assert json.loads((left / "solution.json").read_text())["form"] == "adapter"
    at_two, at_four = (
        load_file(folder / "adapter_model.safetensors") for folder in (left / "adapter", tmp_path / "run" / "adapter")
    )
    saved = load_file(tmp_path / "run" / "lora" / "training" / "checkpoints" / "step-000002" / "trained.safetensors")
    plain = {name.replace(".default", ""): tensor for name, tensor in saved.items()}
    assert plain.keys() == at_two.keys() and all(torch.equal(at_two[name], tensor) for name, tensor in plain.items())
    assert any(not torch.equal(at_two[name], at_four[name]) for name in at_two)


def test_with_patience_it_ends_with_the_best_weights_not_the_last(
    tiny_spec: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validated after each step, and saved after each: the result is the weights of the step with the least loss, step 2."""
    losses = iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr("genwright.improve.training.mean_loss", lambda *_: next(losses))
    spec = tiny_spec("instruction", "lora")
    (tmp_path / "run").mkdir()
    job = replace(
        job_of(spec, "lora", tmp_path / "run"),
        validate_every=1,
        patience=9,
        checkpoint_every=1,
        milestones=(1, 2, 3, 4),
    )
    assert train_to_end(job, tmp_path / "run" / "adapter")["validation"] == [(1, 3.0), (2, 1.0), (3, 2.0), (4, 1.5)]
    ended, at_best = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "run" / "adapter", tmp_path / "run" / "milestones" / "step-000002" / "adapter")
    )
    assert all(torch.equal(tensor, at_best[name]) for name, tensor in ended.items())
    last = load_file(tmp_path / "run" / "milestones" / "step-000004" / "adapter" / "adapter_model.safetensors")
    assert any(not torch.equal(tensor, last[name]) for name, tensor in ended.items())


FULL = "DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."
WHERE = {
    "train": "genwright.engine.loop.train_step",
    "save": "genwright.engine.checkpoint.snapshot",
    "resume": "genwright.engine.checkpoint.restore_",
}


@pytest.mark.parametrize("peak", WHERE)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(FULL)])
def test_memory_that_runs_out_names_its_peak_and_two_remedies(
    peak: str, error: Exception, tiny_spec: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = override(tiny_spec("instruction", "lora"), "adapt.pack_tokens=1024")
    (tmp_path / "run").mkdir()
    job = replace(job_of(spec, "lora", tmp_path / "run"), checkpoint_every=1)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(WHERE[peak], fail)
    with pytest.raises(OutOfMemory, match=f"it is the plan's {peak} peak") as told:
        train_to_end(job, tmp_path / "run" / "adapter")
    remedies = ["adapt.pack_tokens = 512", "adapt.lora.rank = 8"] if peak == "train" else ["adapt.lora.rank = 8"]
    assert all(remedy in told.value.do for remedy in remedies) and "; or " in told.value.do


def test_another_error_of_torch_is_not_called_memory(
    tiny_spec: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec("instruction", "lora")
    (tmp_path / "run").mkdir()
    monkeypatch.setattr("genwright.engine.loop.train_step", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        train_to_end(job_of(spec, "lora", tmp_path / "run"), tmp_path / "run" / "adapter")
