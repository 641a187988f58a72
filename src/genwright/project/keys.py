"""Which keys a project file may have: the tables, the fields they declare, their bounds and the names they take."""

from __future__ import annotations

from functools import cache

from genwright.base.registry import resolve
from genwright.base.schema import Field, declared
from genwright.project.tables import (
    Adapt,
    Data,
    Evaluate,
    Hardware,
    Integrate,
    Project,
    Scope,
    Select,
    Serve,
    Unlearn,
)
from genwright.project.values import Bounds

VERSION = 1
"""The newest version of the project file that this Genwright reads."""


TABLES: dict[str, type] = {
    "project": Project, "scope": Scope, "data": Data, "select": Select, "adapt": Adapt, "hardware": Hardware,
    "integrate": Integrate, "serve": Serve, "evaluate": Evaluate, "unlearn": Unlearn,
}  # fmt: skip


BUDGET = "genwright.project.tables:Budget"


ADAPTERS = "genwright.catalogue.parts:ADAPTERS"


OBJECTIVES = "genwright.catalogue.parts:OBJECTIVES"


TASKS = "genwright.catalogue.tasks:tasks"


NAMES: dict[str, tuple[str, str]] = {
    "scope.task": ("task", TASKS),
    "scope.metric": ("metric", "genwright.catalogue.parts:METRICS"),
    "scope.profile": ("profile", "genwright.catalogue.profiles:profiles"),
    "adapt.ladder": ("rung", "genwright.catalogue.parts:RUNGS"),
    "adapt.method": ("rung", "genwright.catalogue.parts:RUNGS"),
    "adapt.objective": ("objective", OBJECTIVES),
    "unlearn.adapter": ("adapter", ADAPTERS),
    "hardware.device": ("device", "genwright.catalogue.devices:devices"),
}
"""Keys whose values are names: what is named, and the registry (or the function that makes it) that knows them."""


BOUNDS: dict[str, Bounds] = {
    "project.seed": Bounds(0),
    "project.version": Bounds(1),
    "scope.budget.hours": Bounds(0, above=True),
    "scope.budget.usd": Bounds(0, above=True),
    "scope.budget.kwh": Bounds(0, above=True),
    "data.validation_fraction": Bounds(0, 0.5),
    "data.test_fraction": Bounds(0, 0.5),
    "select.trial_rows": Bounds(0),
    "select.context": Bounds(0),
    "adapt.examples": Bounds(1),
    "adapt.steps": Bounds(0),
    "adapt.epochs": Bounds(0, above=True),
    "adapt.batch_size": Bounds(1),
    "adapt.pack_tokens": Bounds(1),
    "adapt.max_tokens": Bounds(0),
    "adapt.learning_rate": Bounds(0),
    "adapt.warmup_fraction": Bounds(0, 1),
    "adapt.weight_decay": Bounds(0),
    "adapt.max_norm": Bounds(0),
    "adapt.checkpoint_every": Bounds(1),
    "adapt.validate_every": Bounds(0),
    "adapt.patience": Bounds(0),
    "adapt.validation_rows": Bounds(0),
    "adapt.max_new_tokens": Bounds(1),
    "adapt.temperature": Bounds(0),
    "adapt.answers": Bounds(1),
    "adapt.updates": Bounds(1),
    "hardware.count": Bounds(1),
    "hardware.sharding_factor": Bounds(0),
    "hardware.tensor_degree": Bounds(1),
    "adapt.recompute": Bounds(0),
    "adapt.mtbf_hours": Bounds(0, above=True),
    "hardware.watts": Bounds(0, above=True),
    "serve.context": Bounds(64),
    "serve.usd_per_million_prompt": Bounds(0),
    "serve.usd_per_million_cached": Bounds(0),
    "serve.usd_per_million_generated": Bounds(0),
    "serve.parallel": Bounds(1, 256),
    "hardware.usd_per_hour": Bounds(0),
    "evaluate.seeds": Bounds(1, 100),
    "unlearn.steps": Bounds(1),
    "unlearn.batch_size": Bounds(2),
    "unlearn.learning_rate": Bounds(0),
    "unlearn.keep": Bounds(0, 1, above=True),
    "unlearn.relearn_steps": Bounds(0),
}
"""What a number may be."""


EITHER = (
    ("adapt.ladder", "adapt.method"),
    ("adapt.steps", "adapt.epochs"),
    ("data.validation", "data.validation_fraction"),
    ("data.test", "data.test_fraction"),
)
"""Pairs of which the file may give one: the other would have no effect. An override of one takes the other's place."""


def all_keys() -> list[str]:
    """Every dotted key a project file may have, methods' settings included."""
    return list(known_keys())


@cache
def tables_of_keys() -> dict[str, str]:
    """Table -> "module:Class" that declares its keys, in the order of the file."""
    own = {name: f"genwright.project.tables:{cls.__name__}" for name, cls in TABLES.items()}
    scope = list(own).index("scope") + 1
    tables = dict([*list(own.items())[:scope], ("scope.budget", BUDGET), *list(own.items())[scope:]])
    parts = {**resolve(ADAPTERS).paths, **resolve(OBJECTIVES).paths}
    return tables | {f"adapt.{name}": path for name, path in parts.items()}


@cache
def known_keys() -> dict[str, Field]:
    """Dotted key -> declared field."""
    declarations = {table: declared(path)[1] for table, path in tables_of_keys().items()}
    fields = {f"{table}.{field.name}": field for table, inside in declarations.items() for field in inside}
    return {key: field for key, field in fields.items() if key not in declarations}


def parts_used(ladder: tuple[str, ...], objective: str, task: str) -> set[str]:
    """Methods and objectives whose tables have an effect. Which of a task's objectives it is depends on the model."""
    tasks = resolve(TASKS)()
    named = set(tasks[task].objectives.values()) if task in tasks else set(resolve(OBJECTIVES))
    trained_with = {part for rung in ladder for part in WITHIN.get(rung, ())}
    return {*ladder} | trained_with | ({objective} if objective else named)


WITHIN = {"lora-search": ("lora",), "pre-training": ("full",), "preference": ("lora", "dpo")}
"""Rung -> the parts that it trains with under other names."""


def open_tables() -> tuple[str, ...]:
    """Keys whose value is a table of the user's own names."""
    return tuple(key for key, field in known_keys().items() if field.type.startswith("dict"))
