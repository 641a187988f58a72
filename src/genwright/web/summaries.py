"""What a project recorded, for those who show it: the stages' summaries, the events, planned beside measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.base.events import Event, read_events
from genwright.base.files import json_lines
from genwright.base.units import Bytes, Flops, Joules, Money, Quantity, Seconds
from genwright.project.store import Store

STAGES = ("scope", "select", "adapt", "evaluate", "unlearn", "integrate")
SELDOM = ("unlearn",)
"""Stages that only some projects have."""

QUANTITIES: dict[str, tuple[str, type[Quantity]]] = {
    "train_peak_bytes": ("memory: training, longest batch", Bytes),
    "evaluate_peak_bytes": ("memory: evaluating", Bytes),
    "save_peak_bytes": ("memory: saving", Bytes),
    "resume_peak_bytes": ("memory: resuming", Bytes),
    "merge_peak_bytes": ("memory: merging", Bytes),
    "host_bytes": ("memory: host", Bytes),
    "disk_bytes": ("disk", Bytes),
    "flops_per_step": ("work per step", Flops),
    "step_seconds": ("time per step", Seconds),
    "train_seconds": ("time to train", Seconds),
    "evaluate_seconds": ("time to evaluate", Seconds),
    "seconds": ("time, whole rung", Seconds),
    "joules": ("energy", Joules),
    "usd": ("money", Money),
}
"""What a plan foretells and a run measures, in the order in which both are shown: key -> (title, unit)."""


@dataclass(frozen=True)
class Comparison:
    """One quantity, planned beside measured. None is unknown, never zero; `why` says why a plan has no number."""

    key: str
    planned: float | None
    low: float | None
    high: float | None
    measured: float | None
    why: str = ""

    @property
    def title(self) -> str:
        """The quantity in words."""
        return QUANTITIES[self.key][0]

    @property
    def ratio(self) -> float | None:
        """Measured over planned: 1 is a perfect plan, 2 is a run that took twice what was foretold."""
        return self.measured / self.planned if self.planned and self.measured is not None else None

    @property
    def within(self) -> bool | None:
        """Whether the measurement fell in the foretold range. None where either is unknown."""
        if self.measured is None or self.low is None or self.high is None:
            return None
        return self.low <= self.measured <= self.high

    def show(self, value: float | None) -> str:
        """A value of this quantity with its unit, or "unknown"."""
        return "unknown" if value is None else str(QUANTITIES[self.key][1](value))

    def show_range(self) -> str:
        """The range in words, or an empty string where the plan gave none."""
        return "" if self.low is None or self.high is None else f"{self.show(self.low)} to {self.show(self.high)}"


def compare(planned: dict[str, Any] | None, measured: dict[str, Any] | None) -> list[Comparison]:
    """Every quantity that the plan or the run mentions, in the order of QUANTITIES."""
    planned, measured = planned or {}, measured or {}
    low, high, unknown = (planned.get(part) or {} for part in ("low", "high", "unknown"))
    return [
        Comparison(key, planned.get(key), low.get(key), high.get(key), measured.get(key), str(unknown.get(key, "")))
        for key in QUANTITIES
        if planned.get(key) is not None or measured.get(key) is not None or key in unknown
    ]


@dataclass(frozen=True)
class Results:
    """A project's record. `stages` holds the summary of each finished stage, `folders` its artifact."""

    base: Path
    name: str
    stages: dict[str, dict[str, Any]]
    folders: dict[str, Path]
    events: list[Event]
    look: dict[str, Any] | None = None
    keys: dict[str, str] = field(default_factory=dict)

    def rungs(self) -> list[dict[str, Any]]:
        """The rungs that were climbed, in order, as adapt.json tells them; merging the chosen one was measured later."""
        adapt, integrate = self.stages.get("adapt", {}), self.stages.get("integrate", {})
        merged = {name: value for name, value in (integrate.get("measured") or {}).items() if name != "seconds"}
        return [
            {
                **rung,
                "measured": {**rung.get("measured", {}), **(merged if rung["name"] == adapt.get("chosen") else {})},
            }
            for rung in adapt.get("rungs", [])
            if not rung.get("skipped")
        ]

    def scores(self, rung: str) -> dict[str, dict[str, Any]]:
        """Test scores of a rung by metric; empty where it was not evaluated."""
        return self.stages.get("evaluate", {}).get("scores", {}).get(rung, {})

    def model_note(self) -> str:
        """What the fetched model is not, such as "dequantised Q4_1, not the original weights"; mostly empty."""
        folder = self.folders.get("select")
        return str(_json(folder / "model" / "genwright_source.json").get("note", "")) if folder else ""

    def predictions(self, rung: str) -> list[dict[str, Any]]:
        """Test rows of a rung: {prompt, reference, prediction, score}."""
        folder = self.folders.get("evaluate")
        path = folder / f"predictions-{rung}.jsonl" if folder else None
        return json_lines(path) if path and path.exists() else []


def shortened(why: str, reasons: int = 3) -> str:
    """The first reasons of a decision; how many more there are is said, and `--json` has them all."""
    given = why.split("; ")
    left = len(given) - reasons
    return why if left <= 0 else "; ".join(given[:reasons]) + f"; and {left} more"


def read_results(base: Path) -> Results:
    """Gather what `apply` recorded below a project folder. Missing parts are simply not there."""
    root = base / ".genwright"
    folders = {stage: folder for stage in STAGES if (folder := _newest(root, stage)) is not None}
    stages = {stage: _json(folder / f"{stage}.json") for stage, folder in folders.items()}
    events = read_events(root / "events.jsonl")
    plan = _json(root / "plan.json")
    look = stages.get("adapt", {}).get("look") or stages.get("scope", {}).get("look") or plan.get("look")
    keys = {stage: folder.name for stage, folder in folders.items()}
    return Results(base, _name(base, events), stages, folders, events, look, keys)


def _newest(root: Path, stage: str) -> Path | None:
    artifact = Store(root).latest(stage)
    return None if artifact is None else artifact.path


def _name(base: Path, events: list[Event]) -> str:
    named = [str(event["project"]) for event in events if event["kind"] == "run_started" and event.get("project")]
    return named[-1] if named else base.resolve().name


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
