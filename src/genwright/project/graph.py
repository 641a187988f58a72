"""What must run, and why: pure functions from what is wanted and what is recorded to a decision per stage.

A stage's key is the SHA-256 of its name, its version, the project's values it reads, the content of the files it reads,
and the keys of its inputs. Equal keys mean equal work, so whatever is kept under a key can be used again. What does not
change a result (a price, how often to save) is no part of a key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from genwright.base.files import sha256_of_json
from genwright.project.values import toml

Fields = Mapping[str, Any]
"""What versions a stage: "adapt.steps" -> 100, "file data.train" -> SHA-256, "input scope" -> key, "version" -> 1."""


@dataclass(frozen=True)
class Stage:
    """One stage of the life cycle, in the order in which stages run."""

    name: str
    run: str
    """ "module:function", called with a Context; the dict it returns becomes <stage>.json."""

    reads: tuple[str, ...] = ()
    """Stages whose artifacts it reads."""

    keys: tuple[str, ...] = ()
    """Keys, or whole tables, of the project file that change its result."""

    without: tuple[str, ...] = ()
    """Keys of those tables that do not."""

    files: tuple[str, ...] = ()
    """Keys whose values name files or folders; their content changes the result."""

    version: int = 1
    """Raised when the stage's code changes what comes out."""

    tried_with: tuple[str, ...] = ()
    """Keys that change its result too where it chooses among several models, for they are tried with them."""

    when: str = ""
    """The key without which a project has no such stage; empty: every project has it."""

    needs: str = ""
    """ "module:function" from a Context to the free bytes of disk it needs; empty: unknown."""


STAGES = (
    Stage(
        "scope", "genwright.stages:scope",
        keys=("project.seed", "scope.task", "scope.metric", "scope.target", "data"),
        files=("data.train", "data.validation", "data.test", "data.text"),
    ),
    Stage(
        "select", "genwright.stages:select", reads=("scope",),
        keys=("select", "hardware.device", "hardware.memory", "scope.budget"), without=("select.offline",), files=("select.models",),
        tried_with=(
            "project.seed", "adapt.objective", "adapt.ladder", "adapt.examples", "adapt.max_new_tokens", "adapt.temperature",
            "adapt.precision",
        ),
    ),
    Stage(
        "adapt", "genwright.stages:adapt", reads=("scope", "select"), keys=("project.seed", "scope.budget", "adapt"),
        without=("adapt.method", "adapt.checkpoint_every", "adapt.mtbf_hours", "adapt.recompute"),
        files=("adapt.reward", "adapt.teacher"),
    ),
    Stage("evaluate", "genwright.stages:evaluate", reads=("scope", "select", "adapt")),
    Stage(
        "unlearn", "genwright.stages:unlearn", reads=("scope", "select", "adapt", "evaluate"), keys=("project.seed", "unlearn"),
        files=("unlearn.forget", "unlearn.retain", "unlearn.also", "unlearn.texts", "unlearn.suites", "unlearn.never_saw"),
        when="unlearn.forget",
    ),
    Stage(
        "integrate", "genwright.stages:integrate", reads=("scope", "select", "adapt", "evaluate", "unlearn"),
        keys=("integrate",),
        version=2,
    ),
)  # fmt: skip
"""adapt.method is in the ladder already; exact resume makes checkpoints, and when they are saved, of no consequence."""


def stages_of(stages: Sequence[Stage], values: Fields) -> tuple[Stage, ...]:
    """The stages that a project has, with the keys that count in it.

    Those with a `when` are there only where it is set, and none reads one that is not there; `tried_with` counts only
    where there is something to try.
    """
    taken = [stage for stage in stages if not stage.when or values.get(stage.when)]
    names = {stage.name for stage in taken}
    reads = lambda stage: tuple(name for name in stage.reads if name in names)
    more = lambda stage: stage.tried_with if _tries_several(values) else ()
    return tuple(replace(stage, reads=reads(stage), keys=stage.keys + more(stage)) for stage in taken)


def _tries_several(values: Fields) -> bool:
    """Whether more than one model is tried: several are named, or none and the catalogue's are."""
    models = values.get("select.models")
    return models is not None and len(models) != 1 and values.get("select.trial_rows") != 0


@dataclass(frozen=True)
class Wanted:
    """A stage as the project file wants it. `missing` names what it cannot start without."""

    key: str
    fields: Fields
    missing: str = ""


@dataclass(frozen=True)
class Found:
    """What the store has under a wanted key. `digest` is of its content, `inputs` the digests it was made from."""

    digest: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    damage: str = ""
    """Why it cannot be used; empty when it is whole."""


@dataclass(frozen=True)
class Decision:
    """What happens to a stage, and why in words."""

    stage: str
    action: Literal["run", "reuse", "blocked"]
    why: str
    key: str
    resumes: bool = False
    """Whether an earlier run of the same work was interrupted and left something to go on from."""


def wanted(stages: Sequence[Stage], values: Fields, contents: Mapping[str, Mapping[str, str]]) -> dict[str, Wanted]:
    """Fields and key of every stage. `contents`: key -> {file it names: SHA-256, or "" where there is none}."""
    found: dict[str, Wanted] = {}
    for stage in stages:
        fields: dict[str, Any] = {"version": stage.version}
        keys = [key for key in values if _within(key, stage.keys) and not _within(key, stage.without)]
        fields |= {key: values[key] for key in keys}
        files = {f"file {path}": (key, digest) for key in stage.files for path, digest in contents.get(key, {}).items()}
        fields |= {name: digest for name, (_, digest) in files.items()}
        fields |= {f"input {other}": found[other].key for other in stage.reads}
        gone = [f"{key}: {name[5:]} does not exist" for name, (key, digest) in files.items() if not digest]
        found[stage.name] = Wanted(sha256_of_json({"stage": stage.name, **fields}), fields, "; ".join(gone))
    return found


def decide(
    stages: Sequence[Stage],
    wants: Mapping[str, Wanted],
    found: Mapping[str, Found],
    last: Mapping[str, Fields],
    *,
    force: Collection[str] = (),
    works: Collection[str] = (),
) -> list[Decision]:
    """A decision per stage, in order. `last`: fields of the newest artifacts; `works`: stages with work to resume.

        a file it reads is missing ──────── yes ──► blocked   "data.train: train.jsonl does not exist"
          │ no
        a stage it reads is blocked ─────── yes ──► blocked   "scope is blocked"
          │ no
        forced ──────────────────────────── yes ──► run       "forced"
          │ no
        nothing under its key ───────────── yes ──► run       "never run" · "adapt.steps changed: 100 -> 200"
          │ no
        damaged ─────────────────────────── yes ──► run       "model/model.safetensors is missing"
          │ no
        an input is not the one it read ─── yes ──► run       "scope runs again and may differ"
          │ no
        reuse                                                 "nothing that it depends on has changed"

    An input that was lost and is made again under the same key is presumed to come out the same: stages are
    deterministic. `apply` decides anew after every stage, so if it does not, the stages that read it run.
    """
    decisions: dict[str, Decision] = {}
    for stage in stages:
        want, have = wants[stage.name], found.get(stage.name)
        action, why = _decide(stage, want, have, found, last.get(stage.name), decisions, force)
        resumes = action == "run" and stage.name in works
        decisions[stage.name] = Decision(stage.name, action, why, want.key, resumes)
    return list(decisions.values())


def _decide(
    stage: Stage, want: Wanted, have: Found | None, found: Mapping[str, Found], last: Fields | None,
    before: Mapping[str, Decision], force: Collection[str],
) -> tuple[Literal["run", "reuse", "blocked"], str]:  # fmt: skip
    blocked = [name for name in stage.reads if before[name].action == "blocked"]
    if want.missing or blocked:
        return "blocked", want.missing or f"{blocked[0]} is blocked"
    if stage.name in force:
        return "run", "forced"
    if have is None:
        return "run", "never run" if last is None else differences(last, want.fields)
    if have.damage:
        return "run", have.damage
    again = [name for name in stage.reads if before[name].action == "run" and name in {*force, *_may_differ(before)}]
    if again:
        return "run", f"{', '.join(again)} runs again and may differ"
    other = [name for name in stage.reads if _usable(found.get(name)) and found[name].digest != have.inputs.get(name)]
    if other:
        return "run", f"{', '.join(other)} came out different"
    return "reuse", "nothing that it depends on has changed"


def _may_differ(before: Mapping[str, Decision]) -> list[str]:
    """Stages that run because one before them was forced: their outcome is open too."""
    return [name for name, decision in before.items() if decision.why.endswith(("may differ", "came out different"))]


def _usable(found: Found | None) -> bool:
    return found is not None and not found.damage


def differences(last: Fields, now: Fields) -> str:
    """Why two sets of fields give two keys, the project's own values first.

    >>> differences({"version": 1, "adapt.steps": 100}, {"version": 1, "adapt.steps": 200})
    'adapt.steps changed: 100 -> 200'
    """
    changed = [name for name in {**now, **last} if last.get(name) != now.get(name)]
    own = [_difference(name, last, now) for name in changed if not name.startswith("input ")]
    inputs = [f"{name.removeprefix('input ')} changed" for name in changed if name.startswith("input ")]
    return "; ".join(own + inputs) or "its artifact is gone"


def _difference(name: str, last: Fields, now: Fields) -> str:
    if name.startswith("file "):
        file = name.removeprefix("file ")
        if name in last and name in now:
            return f"{file} changed"
        return f"{file} is {'new' if name in now else 'not read any more'}"
    if name == "version":
        return "this version of Genwright does it differently"
    return f"{name} changed: {_said(name, last)} -> {_said(name, now)}"


def _said(name: str, fields: Fields) -> str:
    return toml(fields[name]) if name in fields else "not set"


def _within(key: str, tables: Collection[str]) -> bool:
    return any(key == table or key.startswith(f"{table}.") for table in tables)
