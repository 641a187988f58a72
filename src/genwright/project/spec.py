"""genwright.toml, read into the dataclasses of `tables`: every key is known, of its type, in range, and has an effect.

A Spec keeps what was given beside what it means, so it can say where each value came from, and take an override as if
it had stood in the file. Keys are dotted: "adapt.steps", "scope.budget.usd", "adapt.lora.rank".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.base.errors import SpecError
from genwright.base.schema import REQUIRED, Field
from genwright.project.checks import check_known, check_value, refuse_future, refuse_inert, type_words
from genwright.project.keys import EITHER, TABLES, known_keys, open_tables, parts_used
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
from genwright.project.toml_text import flatten, lines_of, parse, value_of
from genwright.project.values import MismatchError, fit, plain, toml


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
        return flatten(to_json(self), known=open_tables())


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
    given = flatten(parse(text, path.name))
    lines = lines_of(text)
    origins = {key: f"{path.name}:{lines.get(key, 1)}" for key in given}
    refuse_future(given, origins)
    for key in given:
        check_known(key, origins[key])
    refuse_inert(given, origins)
    return _build(given, origins, path)


def spec_from_given(given: dict[str, Any], path: Path) -> Spec:
    """The spec of dotted keys that were read and checked before, as another process hands them over."""
    return _build(given, dict.fromkeys(given, "override"), Path(path))


def override(spec: Spec, assignment: str) -> Spec:
    """The spec as if "adapt.steps=50" stood in the file. Values are TOML; bare words are text. Errors: SpecError."""
    key, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not key:
        raise SpecError(f"'{assignment}' sets nothing.", wanted="table.key=value", do="for instance adapt.steps=50")
    changes = flatten({key: value_of(text)}, prefix="")
    place = f"--set {assignment}"
    for name in changes:
        check_known(name, place)
    replaced = {other for pair in EITHER for other in pair if any(name in pair for name in changes)} | set(changes)
    whole = tuple(f"{name}." for name in (key, *changes))  # a table that is set anew keeps nothing of the old one
    kept = {name: value for name, value in spec.given.items() if name not in replaced and not name.startswith(whole)}
    given = kept | changes
    origins = {name: spec.origins.get(name, "override") for name in kept} | dict.fromkeys(changes, "override")
    refuse_inert(given, origins, only=set(changes))
    return _build(given, origins, spec.path)


def to_json(spec: Spec) -> dict[str, Any]:
    """The resolved whole, as nested tables of plain values; a method's settings stand below `adapt`."""
    whole = {name: plain(getattr(spec, name)) for name in TABLES}
    whole["adapt"] |= {method: plain(values) for method, values in spec.methods.items()}
    return whole


def _build(given: dict[str, Any], origins: dict[str, str], path: Path) -> Spec:
    values = {key: _checked(key, field, given, origins, path) for key, field in known_keys().items()}
    if values["adapt.method"]:
        values["adapt.ladder"] = (values["adapt.method"],)  # a method is a ladder of one rung
    made = {name: cls(**_of_table(values, name)) for name, cls in TABLES.items() if name != "scope"}
    scope = Scope(**_of_table(values, "scope"), budget=Budget(**_of_table(values, "scope.budget")))
    used = parts_used(values["adapt.ladder"], values["adapt.objective"], values["scope.task"])
    tables = {part: _of_table(values, f"adapt.{part}") for part in sorted(used)}
    methods = {part: table for part, table in tables.items() if table}
    return Spec(**made, scope=scope, methods=methods, path=path, given=given, origins=origins)


def _of_table(values: dict[str, Any], table: str) -> dict[str, Any]:
    inside = {key.removeprefix(f"{table}."): value for key, value in values.items() if key.startswith(f"{table}.")}
    return {name: value for name, value in inside.items() if "." not in name}


def _checked(key: str, field: Field, given: dict[str, Any], origins: dict[str, str], path: Path) -> Any:
    """One key's value: given and checked, or its default."""
    for outer in (key, *(key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1))):
        if outer in given and outer not in known_keys() and given[outer] != {}:
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
            f"{place}: {key} has a value of the wrong type.", wanted=type_words(key), found=toml(given[key]), do=do
        ) from None
    check_value(key, value, place)
    return value


def _open_table(key: str, field: Field, given: dict[str, Any], origins: dict[str, str]) -> dict[str, Any]:
    inside = {name: value for name, value in given.items() if name.startswith(f"{key}.")}
    wrong = {name: value for name, value in inside.items() if not isinstance(value, str)}
    if key in given and given[key] != {}:
        wrong = {key: given[key]}
    for name, value in wrong.items():
        raise SpecError(
            f"{origins[name]}: {name} has a value of the wrong type.", wanted=type_words(key), found=toml(value)
        )
    return {name.removeprefix(f"{key}."): value for name, value in inside.items()}
