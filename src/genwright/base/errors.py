"""The error tree. Every error tells a person what was wanted, what was found and what to do.

GenwrightError                 exit 1   the work failed
├── BadRequest                 exit 2   the request was wrong; nothing was changed
│   ├── UnknownName            a name no registry knows
│   ├── SpecError              genwright.toml: a key, a value, a version
│   ├── DataError              a data file or a row
│   ├── ModelError             a model folder, file or hub id
│   ├── RecipeError            parts that do not go together
│   ├── MissingExtra           an optional dependency is not installed
│   └── Busy                   another process holds the project
├── DoesNotFit                 exit 3   the plan says that it cannot fit
├── Corrupt                    exit 1   an artifact or checkpoint is not what was written
├── OutOfMemory                exit 1   the memory ran out all the same: at which peak, and what to change
├── DiskFull                   exit 1   no room on the disk; nothing half-written was left
├── Diverged                   exit 1   the loss stopped being a number
├── WorkerDied                 exit 1   one of several processes ended before its work did
└── Interrupted                exit 130 stopped on request; run again to resume
"""

from __future__ import annotations


class GenwrightError(Exception):
    """`what` happened, then optionally what was `wanted`, what was `found` and what to `do`."""

    exit_code = 1

    def __init__(self, what: str, *, wanted: str = "", found: str = "", do: str = "") -> None:
        self.what, self.wanted, self.found, self.do = what, wanted, found, do
        lines = [what]
        lines += [f"  wanted: {wanted}"] if wanted else []
        lines += [f"  found:  {found}"] if found else []
        lines += [f"  do:     {do}"] if do else []
        super().__init__("\n".join(lines))


class BadRequest(GenwrightError):
    """The request was wrong. Nothing was changed."""

    exit_code = 2


class UnknownName(BadRequest):
    """A name that no registry knows; the message names the nearest one."""


class SpecError(BadRequest):
    """genwright.toml: an unknown key, a value of the wrong type, a version from the future."""


class DataError(BadRequest):
    """A data file or one of its rows; the message names file and line."""


class ModelError(BadRequest):
    """A model folder, file or hub id that cannot be had or cannot be trusted."""


class RecipeError(BadRequest):
    """Parts that do not go together: objective, adapter, precision, strategy, data, model."""


class MissingExtra(BadRequest):
    """An optional dependency is not installed; the message is the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            do=f"pip install 'genwright[{extra}]'",
        )


class Busy(BadRequest):
    """Another process holds the project's lock."""


class DoesNotFit(GenwrightError):
    """The plan says that it cannot fit; the message has the breakdown and the nearest remedy."""

    exit_code = 3


class Corrupt(GenwrightError):
    """An artifact or checkpoint is not what was written: a missing file, a flipped byte."""


class OutOfMemory(GenwrightError):
    """Memory ran out at one of the plan's peaks; the message has two remedies. What was saved is kept."""


class DiskFull(GenwrightError):
    """No room on the disk. Nothing half-written was left under a final name."""


class Diverged(GenwrightError):
    """The loss or the gradient stopped being a number for longer than was allowed."""


class WorkerDied(GenwrightError):
    """One of several processes ended before its work did; the message has its rank and its last words."""


class Interrupted(GenwrightError):
    """Stopped on request (SIGTERM, SIGINT); what was done is kept, run again to resume."""

    exit_code = 130
