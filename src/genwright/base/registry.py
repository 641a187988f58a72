"""Names of parts, resolved on first use: a name costs nothing until somebody wants the object behind it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from genwright.base.errors import UnknownName

MOST_NAMED = 40
"""Names that a message lists; of more than these, the nearest."""


def nearest(name: str, known: Iterator[str] | list[str]) -> str:
    """The known name closest to a misspelt one, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else ""


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownName:
    """The one wording for a name nobody knows."""
    close, names = nearest(name, known), sorted(set(known))
    told = (
        names if len(names) <= MOST_NAMED else sorted(difflib.get_close_matches(name, names, n=MOST_NAMED, cutoff=0.0))
    )
    return UnknownName(
        f"There is no {kind} '{name}'.",
        wanted=f"one of {', '.join(told)}" + (f" and {len(names) - len(told)} more" if len(told) < len(names) else ""),
        do=f"did you mean '{close}'?" if close else "",
    )


def resolve(path: str) -> Any:
    """The object behind "module:object"."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Registry(Mapping[str, Any]):
    """kind + {name: "module:object"}. `registry[name]` imports; `paths[name]` does not."""

    def __init__(self, kind: str, paths: dict[str, str]) -> None:
        self.kind, self.paths = kind, paths

    def path(self, name: str) -> str:
        """The "module:object" of a name. Errors: UnknownName with the nearest one."""
        if name not in self.paths:
            raise unknown_name(self.kind, name, list(self.paths))
        return self.paths[name]

    def __getitem__(self, name: str) -> Any:
        return resolve(self.path(name))

    def __contains__(self, name: object) -> bool:
        return name in self.paths

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)
