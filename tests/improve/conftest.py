"""Tiny projects of any objective and adapter, trained through the whole consumer of the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.tiny import rows as tiny_rows
from tests.e2e.tiny import write_model, write_project

from genwright.base.events import Events
from genwright.base.files import files_below, sha256_of_file
from genwright.catalogue.parts import LAYOUTS, OBJECTIVES
from genwright.data.files import write_rows
from genwright.data.sources import read_rows
from genwright.improve.training import Job, train_to_end
from genwright.improve.workshop import Workshop
from genwright.parallel.mesh import SINGLE
from genwright.plan.estimate import Estimate, Range
from genwright.plan.priced.roofline import Rates
from genwright.project.spec import override, read_spec

SET: dict[str, tuple[str, ...]] = {
    "rmu": ("adapt.rmu.layer=1",), "last-layers": ("adapt.last-layers.layers=1",), "lora": ("adapt.lora.dropout=0.2",),
    "rslora": ("adapt.rslora.dropout=0.2",), "dora": ("adapt.dora.dropout=0.2",), "grpo": ("adapt.answers=3", "adapt.updates=2"),
    "ppo": ("adapt.answers=1",),
}  # fmt: skip
"""What a part needs on a model of three layers, or makes the test harder: chance in the forward pass, rounds of two steps."""


def kind_of(objective: Any) -> str:
    """The kind of tiny rows that its layout is named after, or the first that it learns from and that there are."""
    for kind in (objective.layout, *objective.rows):
        try:
            tiny_rows(kind)
        except KeyError:
            continue
        return str(kind)
    pytest.skip(f"no tiny rows of kind {objective.rows}")


@pytest.fixture
def tiny_spec(tmp_path: Path) -> Callable[[str, str], Any]:
    """The spec of a tiny project, with its rows and its model on the disk."""

    def make(objective: str, method: str) -> Any:
        part = OBJECTIVES[objective]
        family = LAYOUTS[part.layout].families[0]
        write_project(
            tmp_path, kind=kind_of(part), task="chat", family=family, method=method, objective=objective,
            adapt='reward = "rewards.py:score"\n' if part.layout == "prompts" else "",
        )  # fmt: skip
        dataset = read_rows(tmp_path / "rows.jsonl", format="auto", columns={})
        write_rows(tmp_path / "train.jsonl", dataset.rows[:22])
        write_rows(tmp_path / "validation.jsonl", dataset.rows[22:26])
        write_model(tmp_path / "teacher", family, seed=1)
        changes = ["adapt.steps=4", "adapt.batch_size=8", *SET.get(objective, ()), *SET.get(method, ())]
        if {"teacher_ids_NK", "generic_ids_N"} & set(part().columns):
            changes.append("adapt.teacher='./teacher'")
        if not part.couples_rows:
            changes.append("adapt.pack_tokens=100")
        spec = read_spec(tmp_path / "genwright.toml")
        for change in changes:
            spec = override(spec, change)
        return spec

    return make


class AfterPolls:
    """Asked after each step that may be resumed from; says stop at the given one."""

    def __init__(self, polls: int) -> None:
        self.left = polls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def job_of(spec: Any, method: str, folder: Path, stop: Any = lambda: False) -> Job:
    """The training of a rung, its work in the folder."""
    events = Events(folder / "events.jsonl", ())
    workshop = Workshop(spec, scope=spec.base, model=spec.base / "model", made=folder, events=events, stop=stop)
    return workshop.job(method, folder / method, SINGLE)


def trained(spec: Any, method: str, folder: Path, stop: Any = lambda: False) -> dict[str, str]:
    """The hashes of what one training leaves."""
    out = folder / "out"
    train_to_end(job_of(spec, method, folder, stop), out)
    return {path.relative_to(out).as_posix(): sha256_of_file(path) for path in files_below(out)}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One thread for tiny tensors; time priced by a roofline, for measuring operations is tested with the plan; and no collecting of garbage before each measurement of memory, which none is here for."""
    monkeypatch.setattr("genwright.plan.here.verify.release_freed_memory", lambda: None)
    monkeypatch.setattr("genwright.improve.training.release_freed_memory", lambda: None)
    monkeypatch.setattr(
        "genwright.plan.here.rungs.calibrate", lambda *_, **__: Rates(bytes_per_second=1e9, flops_per_second=1e9)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NOTHING = Estimate(
    {name: Range(1.0, 1.0, 1.0) for name in ("host_bytes", "train_seconds", "evaluate_seconds", "seconds")}
)
"""A plan for tests that are of something else: tracing a step takes longer than training a tiny model."""


@pytest.fixture
def shop(tiny_spec: Callable[[str, str], Any], tmp_path: Path) -> Callable[..., Workshop]:
    """A tiny project's workshop, in one working folder whatever it is asked for; its test rows cannot be read."""
    spec = tiny_spec("instruction", "lora")
    for change in ("adapt.objective=''", "adapt.max_new_tokens=3", "adapt.pack_tokens=2048", "adapt.batch_size=4"):
        spec = override(spec, change)
    (tmp_path / "test.jsonl").write_text("whoever reads this fails")
    (tmp_path / "made").mkdir()

    def make(*changes: str) -> Workshop:
        changed = spec
        for change in changes:
            changed = override(changed, change)
        events = Events(tmp_path / "events.jsonl", ())
        return Workshop(changed, scope=spec.base, model=tmp_path / "model", made=tmp_path / "made", events=events)

    return make


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rungs are climbed without a plan."""
    monkeypatch.setattr("genwright.improve.climbing.plan_ladder", lambda made: dict.fromkeys(made.ladder, NOTHING))
