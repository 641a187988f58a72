"""The other rooms of the house, reached by name when a command needs them: so no command imports torch to say hello."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.registry import resolve

FILE = "genwright.toml"


def call(path: str, *arguments: Any, **options: Any) -> Any:
    """Call "module:function"."""
    return resolve(path)(*arguments, **options)


def project_folder(arguments: Namespace) -> Path:
    """The folder named by --project. Errors: BadRequest where it has no genwright.toml."""
    base = Path(arguments.project)
    if not (base / FILE).exists():
        raise BadRequest(
            f"There is no {FILE} in {base.resolve()}.",
            wanted="the folder of a project",
            do="`genwright init` makes one; `--project DIR` names another folder",
        )
    return base


def project(arguments: Namespace) -> tuple[Any, Path]:
    """(the project's Spec with every override of this command in it, its folder)."""
    base = project_folder(arguments)
    spec = call("genwright.project.spec:read_spec", base / FILE)
    for assignment in overrides(arguments):
        spec = call("genwright.project.spec:override", spec, assignment)
    return spec, base


def overrides(arguments: Namespace) -> list[str]:
    """--set and --offline, which is short for one, as "table.key=value"."""
    wanted = list(getattr(arguments, "set", None) or [])
    return [*wanted, "select.offline=true"] if arguments.offline else wanted


def override_options(parser: ArgumentParser) -> None:
    """The option that changes a key of the project for this one command."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="use another value for one key, such as adapt.steps=50; repeatable",
    )
