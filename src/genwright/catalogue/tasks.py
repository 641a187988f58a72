"""The kinds of work that a project can be for, and the defaults each of them brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from genwright.catalogue.tables import pick, read_table


@dataclass(frozen=True)
class Task:
    """One kind of work. `families` says which models fit, the rest are the defaults a project may overrule."""

    name: str
    """How a project file names it: `scope.task`."""
    title: str
    """What it is, in a few words."""
    families: tuple[str, ...]
    """decoder, encoder, encoder-decoder: those that fit, in order of preference."""
    why: str
    """The reason for that order."""
    format: str
    """The row format that suits it best; any format of the same kind of row works."""
    objective: str
    """What a decoder is trained with when `adapt.objective` is left empty: `objectives` of the decoder."""
    objectives: dict[str, str]
    """The objective that fits each family."""
    metric: str
    """What `scope.metric` is when left empty."""
    metric_note: str
    """What that metric does not see."""
    profile: str
    """The application profile when `scope.profile` is left empty."""
    description: str
    """What goes in and what comes out."""
    example: str
    """One row, input → output."""


@cache
def tasks() -> Mapping[str, Task]:
    """Every task by name, in the catalogue's order."""
    return MappingProxyType(read_table("tasks", Task))


def task(name: str) -> Task:
    """The task of a name. Errors: UnknownName with the nearest one."""
    return pick("task", name, tasks())
