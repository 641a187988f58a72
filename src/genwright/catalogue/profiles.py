"""Application profiles: how long prompts and answers are, which is what serving is sized for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from genwright.catalogue.tables import pick, read_table


@dataclass(frozen=True)
class Profile:
    """The shape of one application's requests, in tokens."""

    name: str
    """How a project file names it: `scope.profile`."""
    title: str
    """What it is, in a few words."""
    shape: str
    """prompt-heavy: more tokens are read than written (compute-bound prefill leads); generation-heavy: the reverse."""
    input_tokens: int
    """Typical (median) prompt."""
    output_tokens: int
    """Typical (median) answer."""
    basis: str
    """measured: percentiles of a public trace, recomputed by a test; definition: our own choice, no data behind it."""
    source: str
    """Where the numbers are from."""
    date: str
    """Of the trace, or of the definition."""
    description: str
    """Which requests it stands for."""
    input_percentiles: dict[str, int] | None = None
    """p25, p50, p75, p90, p95, p99 of the prompt's tokens; None without a trace."""
    output_percentiles: dict[str, int] | None = None
    """The same of the answer's tokens."""
    requests: int | None = None
    """Requests in the trace."""
    marks: list[str] | None = None
    """Words that requests of it have, as regular expressions, in lower case: how a request is recognised."""
    ttft_seconds: float | None = None
    """Target: time to the first token."""
    tpot_seconds: float | None = None
    """Target: time per token after it."""
    most_output_tokens: int | None = None
    """Limit where a request states none."""
    batch: str = "online"
    """online: a person waits; offline: throughput counts, and any batch will do."""


@cache
def profiles() -> Mapping[str, Profile]:
    """Every profile by name, in the catalogue's order."""
    return MappingProxyType(read_table("profiles", Profile))


def profile(name: str) -> Profile:
    """The profile of a name. Errors: UnknownName with the nearest one."""
    return pick("profile", name, profiles())
