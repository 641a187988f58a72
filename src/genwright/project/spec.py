"""genwright.toml, read into the dataclasses of `tables`: every key is known, of its type, in range, and has an effect.

A Spec keeps what was given beside what it means, so it can say where each value came from, and take an override as if
it had stood in the file. Keys are dotted: "adapt.steps", "scope.budget.usd", "adapt.lora.rank".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, SpecError
from genwright.base.registry import nearest, resolve
from genwright.base.schema import REQUIRED, Field, declared
from genwright.base.units import Bytes
from genwright.project.tables import (
    Adapt,
    Budget,
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
from genwright.project.values import Bounds, MismatchError, fit, plain, toml, words

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


@dataclass(frozen=True)
class Spec:
    """A whole project file. `methods` has the settings of each method and objective in use that has any, defaults included."""

    project: Project
    scope: Scope
    data: Data
    select: Select
    adapt: Adapt
    hardware: Hardware
    integrate: Integrate
    serve: Serve
    evaluate: Evaluate
    unlearn: Unlearn
    methods: dict[str, dict[str, Any]]
    path: Path
    """The file."""
    given: dict[str, Any]
    """Dotted key -> value, for the keys that were given."""
    origins: dict[str, str]
    """Dotted key -> "genwright.toml:12" or "override", for the keys that were given."""

    @property
    def base(self) -> Path:
        """The project's folder, absolute: paths in the file start here."""
        return self.path.resolve().parent

    def flat(self) -> dict[str, Any]:
        """Dotted key -> resolved value as JSON, for every key that has an effect in this project."""
        return _flatten(to_json(self), known=_tables_with_open_keys())


def read_spec(path: Path) -> Spec:
    """Read and check a project file. Errors: SpecError with file and line."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(f"There is no {path}.", do="`genwright init` makes one") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        place = f"{path.name}:{line}"
        raise SpecError(f"{place}: this is not UTF-8 text.", found=error.reason, do="save it as UTF-8") from None
    return spec_from_text(text, path)


def spec_from_text(text: str, path: Path) -> Spec:
    """Check a project file's text. `path` is where it stands or will stand. Errors: SpecError with file and line."""
    path = Path(path)
    given = _flatten(_parse(text, path.name))
    lines = _lines(text)
    origins = {key: f"{path.name}:{lines.get(key, 1)}" for key in given}
    _refuse_future(given, origins)
    for key in given:
        _check_known(key, origins[key])
    _refuse_inert(given, origins)
    return _build(given, origins, path)


def spec_from_given(given: dict[str, Any], path: Path) -> Spec:
    """The spec of dotted keys that were read and checked before, as another process hands them over."""
    return _build(given, dict.fromkeys(given, "override"), Path(path))


def override(spec: Spec, assignment: str) -> Spec:
    """The spec as if "adapt.steps=50" stood in the file. Values are TOML; bare words are text. Errors: SpecError."""
    key, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not key:
        raise SpecError(f"'{assignment}' sets nothing.", wanted="table.key=value", do="for instance adapt.steps=50")
    changes = _flatten({key: _value(text)}, prefix="")
    place = f"--set {assignment}"
    for name in changes:
        _check_known(name, place)
    replaced = {other for pair in EITHER for other in pair if any(name in pair for name in changes)} | set(changes)
    whole = tuple(f"{name}." for name in (key, *changes))  # a table that is set anew keeps nothing of the old one
    kept = {name: value for name, value in spec.given.items() if name not in replaced and not name.startswith(whole)}
    given = kept | changes
    origins = {name: spec.origins.get(name, "override") for name in kept} | dict.fromkeys(changes, "override")
    _refuse_inert(given, origins, only=set(changes))
    return _build(given, origins, spec.path)


def to_json(spec: Spec) -> dict[str, Any]:
    """The resolved whole, as nested tables of plain values; a method's settings stand below `adapt`."""
    whole = {name: plain(getattr(spec, name)) for name in TABLES}
    whole["adapt"] |= {method: plain(values) for method, values in spec.methods.items()}
    return whole


def all_keys() -> list[str]:
    """Every dotted key a project file may have, methods' settings included."""
    return list(_fields())


def explain(key: str, spec: Spec | None = None) -> str:
    """What a key does, its type, its default, and with a spec its value and its origin. Errors: SpecError."""
    if key in _tables():
        return _explain_table(key, spec)
    if key not in _fields():
        raise _unknown(key, "--explain")
    one = _fields()[key]
    lines = [key, f"  {one.doc}", f"  type:    {_type_words(key)}", f"  default: {_default_words(one)}"]
    if spec is not None:
        values, place = spec.flat(), spec.origins.get(key, "default")
        value = toml(values[key]) if key in values else "(not used: no rung of the ladder reads it)"
        lines.append(f"  value:   {value}   ({place})")
    return "\n".join(lines)


def reference() -> str:
    """Every table and key as Markdown: the body of docs/project-file.md."""
    return "\n".join(_reference_table(table, path) for table, path in _tables().items() if declared(path)[1])


# --- the schema, flattened


@cache
def _tables() -> dict[str, str]:
    """Table -> "module:Class" that declares its keys, in the order of the file."""
    own = {name: f"genwright.project.tables:{cls.__name__}" for name, cls in TABLES.items()}
    scope = list(own).index("scope") + 1
    tables = dict([*list(own.items())[:scope], ("scope.budget", BUDGET), *list(own.items())[scope:]])
    parts = {**resolve(ADAPTERS).paths, **resolve(OBJECTIVES).paths}
    return tables | {f"adapt.{name}": path for name, path in parts.items()}


@cache
def _fields() -> dict[str, Field]:
    """Dotted key -> declared field."""
    declarations = {table: declared(path)[1] for table, path in _tables().items()}
    fields = {f"{table}.{field.name}": field for table, inside in declarations.items() for field in inside}
    return {key: field for key, field in fields.items() if key not in declarations}


def _parts_used(ladder: tuple[str, ...], objective: str, task: str) -> set[str]:
    """Methods and objectives whose tables have an effect. Which of a task's objectives it is depends on the model."""
    tasks = resolve(TASKS)()
    named = set(tasks[task].objectives.values()) if task in tasks else set(resolve(OBJECTIVES))
    trained_with = {part for rung in ladder for part in WITHIN.get(rung, ())}
    return {*ladder} | trained_with | ({objective} if objective else named)


WITHIN = {"lora-search": ("lora",), "pre-training": ("full",), "preference": ("lora", "dpo")}
"""Rung -> the parts that it trains with under other names."""


def _tables_with_open_keys() -> tuple[str, ...]:
    """Keys whose value is a table of the user's own names."""
    return tuple(key for key, field in _fields().items() if field.type.startswith("dict"))


# --- reading


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = re.sub(r" \(at .*\)$", "", str(error))
        line = re.search(r"at line (\d+)", str(error))
        number = int(line[1]) if line else text.count("\n") + 1
        place = f"{name}:{number}"
        raise SpecError(f"{place}: this is not TOML: {told}.", do="correct the line; text needs quotes") from None


def _flatten(value: Mapping[str, Any], prefix: str = "", known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nested tables -> dotted keys. An empty table, and one named in `known`, stays a value."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner and key not in known:
            flat |= _flatten(inner, f"{key}.", known)
        else:
            flat[key] = inner
    return flat


def _lines(text: str) -> dict[str, int]:
    """Dotted key -> the line on which its statement begins. Call with text that is known to be TOML.

    tomllib keeps no positions. But a TOML statement ends at the first line where what has been read since its start is
    itself TOML, so we feed it line by line.
    """
    found: dict[str, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header, statement = statement.lstrip().startswith("["), ""
        if is_header:
            header = ".".join(_path(parsed)) + "."
            found.setdefault(header[:-1], start)
        else:
            found |= dict.fromkeys(_flatten(parsed, header), start)
    return found


def _path(parsed: Any) -> list[str]:
    """The names in a table header that was parsed alone."""
    if isinstance(parsed, list):
        return _path(parsed[0])
    return [name for key, inner in parsed.items() for name in (key, *_path(inner))]


def _value(text: str) -> Any:
    """A TOML value; text that is none is taken as it stands, since a shell eats quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if re.fullmatch(r"[^\"'\[\]{}]+", text):
            return text
        do = "quote it for your shell: --set 'adapt.ladder=[\"lora\"]'"
        raise SpecError(f"'{text}' is not a TOML value.", do=do) from None


# --- checking


def _refuse_future(given: dict[str, Any], origins: dict[str, str]) -> None:
    version = given.get("project.version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise SpecError(
            f"{origins['project.version']}: this project file is of a newer version of Genwright.",
            wanted=f"version = {VERSION} or lower", found=f"version = {version}", do="pip install --upgrade genwright",
        )  # fmt: skip


def _check_known(key: str, place: str) -> None:
    if key in _fields() or key.startswith(tuple(f"{open_key}." for open_key in _tables_with_open_keys())):
        return
    if key in _tables():
        return  # an empty table; that it is not a value is seen when it is built
    raise _unknown(key, place)


def _unknown(key: str, place: str) -> SpecError:
    """The same name in another table is nearer than a similar name in this one."""
    known = [*_fields(), *(table for table, path in _tables().items() if declared(path)[1])]
    table, _, name = key.rpartition(".")
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    beside = [other for other in known if other.rpartition(".")[0] == table]
    close = nearest(key, elsewhere) or (elsewhere or [""])[0] or nearest(key, beside) or nearest(key, known)
    return SpecError(
        f"{place}: there is no key '{key}'.",
        wanted=f"one of {', '.join(other.rpartition('.')[2] for other in beside)}" if beside else "",
        do=f"did you mean '{close}'?" if close else "`genwright plan --explain TABLE` lists a table's keys",
    )


def _refuse_inert(given: dict[str, Any], origins: dict[str, str], only: set[str] | None = None) -> None:
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
    ladder, objective = _ladder(given), str(given.get("adapt.objective") or "")
    effective = _parts_used(ladder, objective, str(given.get("scope.task")))
    for part in ({*resolve(ADAPTERS), *resolve(OBJECTIVES)}) - effective:
        used = [key for key in looked_at if key == f"adapt.{part}" or key.startswith(f"adapt.{part}.")]
        for key in used[:1]:
            raise _no_effect(part, origins[key], ladder, objective)


def _refuse_half_unlearn(given: dict[str, Any], origins: dict[str, str], looked_at: set[str]) -> None:
    """[unlearn] without its rows: those to forget, or those to keep."""
    said = [
        key for key in looked_at if key.startswith("unlearn.") and given[key] and given[key] != _fields()[key].default
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


def _ladder(given: dict[str, Any]) -> tuple[str, ...]:
    if given.get("adapt.method"):
        return (given["adapt.method"],)
    ladder = given.get("adapt.ladder", Adapt.ladder)
    return tuple(name for name in ladder if isinstance(name, str)) if isinstance(ladder, list | tuple) else ()


# --- building


def _build(given: dict[str, Any], origins: dict[str, str], path: Path) -> Spec:
    values = {key: _checked(key, field, given, origins, path) for key, field in _fields().items()}
    if values["adapt.method"]:
        values["adapt.ladder"] = (values["adapt.method"],)  # a method is a ladder of one rung
    made = {name: cls(**_of_table(values, name)) for name, cls in TABLES.items() if name != "scope"}
    scope = Scope(**_of_table(values, "scope"), budget=Budget(**_of_table(values, "scope.budget")))
    used = _parts_used(values["adapt.ladder"], values["adapt.objective"], values["scope.task"])
    tables = {part: _of_table(values, f"adapt.{part}") for part in sorted(used)}
    methods = {part: table for part, table in tables.items() if table}
    return Spec(**made, scope=scope, methods=methods, path=path, given=given, origins=origins)


def _of_table(values: dict[str, Any], table: str) -> dict[str, Any]:
    inside = {key.removeprefix(f"{table}."): value for key, value in values.items() if key.startswith(f"{table}.")}
    return {name: value for name, value in inside.items() if "." not in name}


def _checked(key: str, field: Field, given: dict[str, Any], origins: dict[str, str], path: Path) -> Any:
    """One key's value: given and checked, or its default."""
    for outer in (key, *(key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1))):
        if outer in given and outer not in _fields() and given[outer] != {}:
            raise SpecError(f"{origins[outer]}: '{outer}' is a table.", found=toml(given[outer]), do=f"write [{outer}]")
    if field.type.startswith("dict"):
        return _open_table(key, field, given, origins)
    if key not in given:
        if field.default is REQUIRED:
            raise SpecError(
                f"{path.name}: {key} is missing.", wanted=field.doc, do=f"add it below [{key.partition('.')[0]}]"
            )
        return field.default
    place = origins[key]
    try:
        value = fit(given[key], field.type)
    except MismatchError:
        do = f"write [{toml(given[key])}]" if field.type.startswith("tuple") and isinstance(given[key], str) else ""
        raise SpecError(
            f"{place}: {key} has a value of the wrong type.", wanted=_type_words(key), found=toml(given[key]), do=do
        ) from None
    _check_value(key, value, place)
    return value


def _open_table(key: str, field: Field, given: dict[str, Any], origins: dict[str, str]) -> dict[str, Any]:
    inside = {name: value for name, value in given.items() if name.startswith(f"{key}.")}
    wrong = {name: value for name, value in inside.items() if not isinstance(value, str)}
    if key in given and given[key] != {}:
        wrong = {key: given[key]}
    for name, value in wrong.items():
        raise SpecError(
            f"{origins[name]}: {name} has a value of the wrong type.", wanted=_type_words(key), found=toml(value)
        )
    return {name.removeprefix(f"{key}."): value for name, value in inside.items()}


def _check_value(key: str, value: Any, place: str) -> None:
    if key in BOUNDS and isinstance(value, int | float) and not BOUNDS[key].hold(value):
        raise SpecError(f"{place}: {key} is out of range.", wanted=str(BOUNDS[key]), found=toml(value))
    if key in NAMES:
        for name in (value,) if isinstance(value, str) else value:
            _check_name(key, name, place)
    if key == "adapt.ladder" and (not value or len(set(value)) < len(value)):
        raise SpecError(f"{place}: adapt.ladder needs at least one rung, and each once.", found=toml(value))
    if key in ("project.name", "data.train") and not value.strip():
        raise SpecError(f"{place}: {key} is empty.", wanted=_fields()[key].doc)
    if key == "hardware.memory" and value:
        try:
            Bytes.parse(value)
        except BadRequest as error:
            raise SpecError(f"{place}: {key}: {error.what}", wanted=error.wanted, found=error.found) from None
    if key == "select.models":
        for name in value:
            _check_model(name, place)


def _check_name(key: str, name: str, place: str) -> None:
    if name == _fields()[key].default and isinstance(name, str):
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


# --- explaining


def _type_words(key: str) -> str:
    limits = f", {BOUNDS[key]}" if key in BOUNDS else ""
    named = f" (name of a {NAMES[key][0]})" if key in NAMES else ""
    return f"{words(_fields()[key].type)}{named}{limits}"


def _default_words(field: Field) -> str:
    if field.type.startswith("dict"):
        return "{}"
    if field.default is REQUIRED:
        return "none: it must be given"
    return "left out" if field.default is None else toml(field.default)


def _explain_table(table: str, spec: Spec | None) -> str:
    keys = [f"{table}.{field.name}" for field in declared(_tables()[table])[1]]
    values = {} if spec is None else spec.flat()
    lines = [f"  {key} = {toml(values[key])}" if values.get(key) is not None else f"  {key}" for key in keys]
    return "\n".join([f"[{table}]", f"  {' '.join(declared(_tables()[table])[0].split())}", *lines])


def _reference_table(table: str, path: str) -> str:
    doc, fields = declared(path)
    rows = [
        f"| `{field.name}` | {_type_words(f'{table}.{field.name}')} | {_cell(_default_words(field))} | {field.doc} |"
        for field in fields
        if f"{table}.{field.name}" in _fields()
    ]
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"### [{table}]", "", " ".join(doc.split()), "", *head, *rows, ""])


def _cell(default: str) -> str:
    return default if default.startswith(("none:", "left")) else f"`{default}`"
