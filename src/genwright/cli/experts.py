"""The library of experts that `model = "auto"` chooses from.

list, add DIR (an adapter's folder; --texts FILE with its training queries, one a line or as .jsonl, makes its profile), remove NAME,
test (held-out queries of every expert), plot FILE.svg. A server that runs takes a change at its next request.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, MissingExtra
from genwright.cli.rooms import FILE, call, project_folder
from genwright.cli.terminal import Terminal, table

ROOM = "genwright.serve.expert_report"
ACTIONS = ("list", "add", "remove", "test", "plot")


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("action", choices=ACTIONS, nargs="?", default="list", help="default: list")
    parser.add_argument(
        "name", metavar="WHAT", nargs="?", help="the folder to add, the expert to remove, the SVG to write"
    )
    parser.add_argument("--library", metavar="DIR", help="default: serve.library of the project")
    parser.add_argument(
        "--as", dest="as_name", metavar="NAME", default="", help="add: the expert's name (default: its card's)"
    )
    parser.add_argument("--texts", metavar="FILE", help="add: the queries it was trained on, one a line or .jsonl")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Do the action."""
    needs = arguments.action in ("add", "remove", "plot")
    if needs != bool(arguments.name):
        raise BadRequest(
            f"`experts {arguments.action}` {'needs a name or a path' if needs else 'takes no name'}.",
            do="genwright experts --help",
        )
    if (arguments.texts or arguments.as_name) and arguments.action != "add":
        raise BadRequest("--texts and --as belong to `experts add`.", do="leave them out")
    folder = Path(arguments.library) if arguments.library else _of_project(arguments)
    try:
        library = call(f"{ROOM}:library_of", folder)
        return {"list": _list, "add": _add, "remove": _remove, "test": _test, "plot": _plot}[arguments.action](
            library, arguments, terminal
        )
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "Experts") from None


def _of_project(arguments: Namespace) -> Path:
    base = project_folder(arguments)
    return base / str(call("genwright.project.spec:read_spec", base / FILE).serve.library)


def _list(library: Any, arguments: Namespace, terminal: Terminal) -> int:
    rows = call(f"{ROOM}:listed", library)
    shown = [
        tuple("" if row[key] is None else str(row[key]) for key in ("name", "version", "base", "rows", "licence"))
        for row in rows
    ]
    head = ("expert", "version", "base", "rows", "licence")
    terminal.answer(rows, lambda console: console.print(table(head, shown, right=(3,)) if shown else _empty(library)))
    return 0


def _empty(library: Any) -> str:
    return (
        f"No expert is in {library.root} yet. `genwright experts add DIR` takes one in: an adapter's folder; and so does\n"
        "`genwright apply` of a project with integrate.merge = false."
    )


def _add(library: Any, arguments: Namespace, terminal: Terminal) -> int:
    texts = Path(arguments.texts) if arguments.texts else None
    if texts is not None and not texts.is_file():
        raise BadRequest(f"There is no file {texts}.", wanted="queries, one a line")
    told = call(f"{ROOM}:take_in", library, Path(arguments.name), arguments.as_name, texts)
    terminal.answer(
        told, lambda console: console.print(f"{told['name']} is in the library, version {told['version']}.")
    )
    return 0


def _remove(library: Any, arguments: Namespace, terminal: Terminal) -> int:
    library.remove(arguments.name)
    terminal.answer(
        {"removed": arguments.name},
        lambda console: console.print(f"{arguments.name} is gone; what runs on it ends as it began."),
    )
    return 0


def _test(library: Any, arguments: Namespace, terminal: Terminal) -> int:
    told = call(f"{ROOM}:report_of", library)
    terminal.answer(told, lambda console: _draw(console, told))
    return 0


def _draw(console: Any, told: dict[str, Any]) -> None:
    asked, outside = told["queries"], told["false_routes_of_background"]
    console.print(
        f"{asked} held-out queries of {told['experts']} experts: {told['correct']:.1%} reach their expert, "
        f"{told['abstained']:.1%} go to the base; of our background {outside:.1%} go to an expert. Regret {told['regret']:.3f}."
    )
    rows = []
    for name, row in told["confusion"].items():
        wrong = ", ".join(
            f"{other or 'base'} {count}"
            for other, count in sorted(row.items(), key=lambda one: -one[1])
            if other != name
        )
        rows.append((name, str(sum(row.values())), str(row.get(name, 0)), wrong))
    console.print(table(("expert", "queries", "right", "others"), rows, right=(1, 2)))


def _plot(library: Any, arguments: Namespace, terminal: Terminal) -> int:
    told = call(f"{ROOM}:report_of", library)
    call(f"{ROOM}:write_plot", told, Path(arguments.name))
    terminal.answer({"out": arguments.name}, lambda console: console.print(f"Wrote {arguments.name}."))
    return 0
