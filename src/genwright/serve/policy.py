"""What a guard does about what it sees: a TOML file of rules, checked when it is read.

window = 200                       # characters of output that are looked at before they are released; 0: none
safe_reply = "I cannot help with that."

[rules.harmful]
action = "block"                   # allow, warn, redact (personal-data only), block, route
threshold = 0.9                    # a score between 0 and 1; personal-data needs none
where = "both"                     # input, output, both

[model]                            # optional: a guard model behind an address, asked where our own score is unsure
url = "http://127.0.0.1:9000/v1"
name = "guard"
seconds = 2.0
on_error = "allow"                 # or "block"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from genwright.base.errors import SpecError
from genwright.base.registry import nearest
from genwright.serve.contracts import Action

LABELS = ("harmful", "injection", "personal-data", "escalation")
ACTIONS = ("allow", "warn", "redact", "block", "route")
SAFE_REPLY = "I cannot help with that. If there is something else, I am glad to."
Where = Literal["input", "output", "both"]


@dataclass(frozen=True)
class Rule:
    """What to do about one label."""

    action: Action = "block"
    threshold: float | None = None
    """None: the guard's own, at 1 % false alarms where it was trained."""
    where: Where = "both"


@dataclass(frozen=True)
class GuardModel:
    """A guard model behind an OpenAI-compatible address."""

    url: str
    name: str = "guard"
    seconds: float = 2.0
    on_error: Literal["allow", "block"] = "allow"


USUAL: dict[str, Rule] = {
    "harmful": Rule(),
    "injection": Rule(where="input"),
    "personal-data": Rule("redact"),
    "escalation": Rule(where="input"),
}


@dataclass(frozen=True)
class Policy:
    """Rules by label; a label without a rule is not looked for."""

    rules: Mapping[str, Rule] = field(default_factory=lambda: dict(USUAL))
    window: int = 200
    safe_reply: str = SAFE_REPLY
    model: GuardModel | None = None

    def rule(self, label: str, where: Literal["input", "output"]) -> Rule | None:
        """The rule of a label at a place, or None."""
        rule = self.rules.get(label)
        return rule if rule is not None and rule.where in (where, "both") and rule.action != "allow" else None


def read_policy(path: Path) -> Policy:
    """Errors: SpecError for a key or value that is not one."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} is no policy.", wanted="TOML", found=str(error)) from None
    _known(told, ("rules", "window", "safe_reply", "model"), "")
    rules = {label: _rule(label, values) for label, values in told.get("rules", {}).items()}
    window = told.get("window", 200)
    if not isinstance(window, int) or isinstance(window, bool) or not 0 <= window <= 10_000:
        raise SpecError("window is a number of characters.", wanted="0 to 10000", found=str(window))
    model = told.get("model")
    if model is not None:
        _known(model, [one.name for one in fields(GuardModel)], "model.")
    return Policy(
        rules or dict(USUAL), window, str(told.get("safe_reply", SAFE_REPLY)), GuardModel(**model) if model else None
    )


def _rule(label: str, values: Any) -> Rule:
    _known({label: values}, LABELS, "rules.")
    _known(values, [one.name for one in fields(Rule)], f"rules.{label}.")
    rule = Rule(**values)
    if rule.action not in ACTIONS or (rule.action == "redact" and label != "personal-data"):
        wanted = ", ".join(one for one in ACTIONS if one != "redact" or label == "personal-data")
        raise SpecError(f"rules.{label}.action cannot be '{rule.action}'.", wanted=wanted)
    if rule.where not in ("input", "output", "both"):
        raise SpecError(f"rules.{label}.where cannot be '{rule.where}'.", wanted="input, output, both")
    if rule.threshold is not None and not 0 <= rule.threshold <= 1:
        raise SpecError(f"rules.{label}.threshold is a probability.", wanted="0 to 1", found=str(rule.threshold))
    return rule


def _known(told: Any, names: Any, place: str) -> None:
    for name in told:
        if name not in names:
            close = nearest(name, list(names))
            raise SpecError(
                f"A policy has no {place}{name}.",
                wanted=", ".join(names),
                do=f"did you mean '{close}'?" if close else "",
            )
