"""What a project file may not say: unknown keys, keys without effect, values out of range, names of nothing."""

from __future__ import annotations

from typing import Any

from genwright.base.errors import BadRequest, SpecError
from genwright.base.registry import nearest, resolve
from genwright.base.schema import declared
from genwright.base.units import Bytes
from genwright.project.keys import (
    ADAPTERS,
    BOUNDS,
    EITHER,
    NAMES,
    OBJECTIVES,
    VERSION,
    known_keys,
    open_tables,
    parts_used,
    tables_of_keys,
)
from genwright.project.tables import (
    Adapt,
)
from genwright.project.values import toml, words


def refuse_future(given: dict[str, Any], origins: dict[str, str]) -> None:
    """Errors: SpecError for a file of a version to come."""
    version = given.get("project.version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise SpecError(
            f"{origins['project.version']}: this project file is of a newer version of Genwright.",
            wanted=f"version = {VERSION} or lower", found=f"version = {version}", do="pip install --upgrade genwright",
        )  # fmt: skip


def check_known(key: str, place: str) -> None:
    """Errors: SpecError for a key that no table declares, with the nearest that one does."""
    if key in known_keys() or key.startswith(tuple(f"{open_key}." for open_key in open_tables())):
        return
    if key in tables_of_keys():
        return  # an empty table; that it is not a value is seen when it is built
    raise unknown(key, place)


def unknown(key: str, place: str) -> SpecError:
    """The same name in another table is nearer than a similar name in this one."""
    known = [*known_keys(), *(table for table, path in tables_of_keys().items() if declared(path)[1])]
    table, _, name = key.rpartition(".")
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    beside = [other for other in known if other.rpartition(".")[0] == table]
    close = nearest(key, elsewhere) or (elsewhere or [""])[0] or nearest(key, beside) or nearest(key, known)
    return SpecError(
        f"{place}: there is no key '{key}'.",
        wanted=f"one of {', '.join(other.rpartition('.')[2] for other in beside)}" if beside else "",
        do=f"did you mean '{close}'?" if close else "`genwright plan --explain TABLE` lists a table's keys",
    )


def refuse_inert(given: dict[str, Any], origins: dict[str, str], only: set[str] | None = None) -> None:
    """A key without effect is an error. `only`: look at these keys, the others were overridden on purpose."""
    looked_at = set(given) if only is None else only
    for pair in EITHER:
        if all(key in given and key in looked_at for key in pair):
            first, second = sorted(pair, key=lambda key: _line_number(origins[key]))
            raise SpecError(f"{origins[second]}: {second} and {first} are both given.", do="keep one of the two")
    if given.get("adapt.patience") and not given.get("adapt.validate_every") and "adapt.patience" in looked_at:
        raise SpecError(
            f"{origins['adapt.patience']}: adapt.patience has no effect without validations.",
            do="set adapt.validate_every, or leave patience out",
        )
    if given.get("integrate.quantize", "none") != "none" and given.get("integrate.engine") != "llamacpp":
        raise SpecError(
            f"{origins['integrate.quantize']}: integrate.quantize has no effect on what is made for transformers.",
            do='set integrate.engine = "llamacpp", or leave quantize out',
        )
    _refuse_half_unlearn(given, origins, looked_at)
    ladder, objective = ladder_of(given), str(given.get("adapt.objective") or "")
    effective = parts_used(ladder, objective, str(given.get("scope.task")))
    for part in ({*resolve(ADAPTERS), *resolve(OBJECTIVES)}) - effective:
        used = [key for key in looked_at if key == f"adapt.{part}" or key.startswith(f"adapt.{part}.")]
        for key in used[:1]:
            raise _no_effect(part, origins[key], ladder, objective)


def _refuse_half_unlearn(given: dict[str, Any], origins: dict[str, str], looked_at: set[str]) -> None:
    """[unlearn] without its rows: those to forget, or those to keep."""
    said = [
        key
        for key in looked_at
        if key.startswith("unlearn.") and given[key] and given[key] != known_keys()[key].default
    ]
    missing = [name for name in ("forget", "retain") if not given.get(f"unlearn.{name}")]
    if said and missing:
        raise SpecError(
            f"{origins[said[0]]}: {said[0]} has no effect without unlearn.{missing[0]}.",
            do="name the rows to forget and the rows to keep, or leave [unlearn] out",
        )  # fmt: skip


def _no_effect(part: str, origin: str, ladder: tuple[str, ...], objective: str) -> SpecError:
    if part in resolve(ADAPTERS):
        return SpecError(
            f"{origin}: [adapt.{part}] has no effect: '{part}' is not in the ladder.",
            found=f"adapt.ladder = {toml(list(ladder))}", do="add it to the ladder, or remove the table",
        )  # fmt: skip
    return SpecError(
        f"{origin}: [adapt.{part}] has no effect: '{part}' is not what is minimised.",
        found=f"adapt.objective = {toml(objective)}" if objective else "the task's own objective",
        do=f'set adapt.objective = "{part}", or remove the table',
    )  # fmt: skip


def _line_number(origin: str) -> int:
    digits = origin.rpartition(":")[2]
    return int(digits) if digits.isdigit() else 0


def ladder_of(given: dict[str, Any]) -> tuple[str, ...]:
    """The rungs that a file asks for, before they are checked."""
    if given.get("adapt.method"):
        return (given["adapt.method"],)
    ladder = given.get("adapt.ladder", Adapt.ladder)
    return tuple(name for name in ladder if isinstance(name, str)) if isinstance(ladder, list | tuple) else ()


def check_value(key: str, value: Any, place: str) -> None:
    """Errors: SpecError for a value out of bounds, a name of nothing, a memory or model that cannot be."""
    if key in BOUNDS and isinstance(value, int | float) and not BOUNDS[key].hold(value):
        raise SpecError(f"{place}: {key} is out of range.", wanted=str(BOUNDS[key]), found=toml(value))
    if key in NAMES:
        for name in (value,) if isinstance(value, str) else value:
            _check_name(key, name, place)
    if key == "adapt.ladder" and (not value or len(set(value)) < len(value)):
        raise SpecError(f"{place}: adapt.ladder needs at least one rung, and each once.", found=toml(value))
    if key in ("project.name", "data.train") and not value.strip():
        raise SpecError(f"{place}: {key} is empty.", wanted=known_keys()[key].doc)
    if key == "hardware.memory" and value:
        try:
            Bytes.parse(value)
        except BadRequest as error:
            raise SpecError(f"{place}: {key}: {error.what}", wanted=error.wanted, found=error.found) from None
    if key == "select.models":
        for name in value:
            _check_model(name, place)


def _check_name(key: str, name: str, place: str) -> None:
    if name == known_keys()[key].default and isinstance(name, str):
        return  # "" or "auto": left to the kit
    kind, path = NAMES[key]
    known = resolve(path)
    names = list(known() if callable(known) else known)
    if name not in names:
        close = nearest(name, names)
        raise SpecError(
            f"{place}: {key}: there is no {kind} '{name}'.", wanted=f"one of {', '.join(names)}",
            do=f"did you mean '{close}'?" if close else "",
        )  # fmt: skip


def _check_model(name: str, place: str) -> None:
    """What looks like a plain name must be in the catalogue; sources and paths are checked when they are fetched."""
    known = resolve("genwright.catalogue.models:models")()
    if name in known or ":" in name or "/" in name or "\\" in name or name.endswith(".gguf"):
        return
    close = nearest(name, list(known))
    raise SpecError(
        f"{place}: select.models: there is no model '{name}' in the catalogue.",
        wanted="a name from `genwright models list`, or a source: hub:OWNER/NAME, folder:PATH, gguf:PATH, wheel:...",
        do=f"did you mean '{close}'?" if close else "",
    )


def type_words(key: str) -> str:
    """A key's type, what it names, and its bounds."""
    limits = f", {BOUNDS[key]}" if key in BOUNDS else ""
    named = f" (name of a {NAMES[key][0]})" if key in NAMES else ""
    return f"{words(known_keys()[key].type)}{named}{limits}"
