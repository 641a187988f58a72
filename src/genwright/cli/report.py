"""Write the report: one page that needs nothing but itself, with what was planned beside what was measured.

Beside it goes the card of the model that was made, in the hub's format. With --json, the same facts for programs, and nothing is
written.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic
from genwright.base.registry import resolve
from genwright.cli.rooms import call, project_folder
from genwright.cli.terminal import Terminal

CARD = "model-card.md"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--out", metavar="FILE", help="where the page goes (default: report.html in the project)")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Write the page, or print its facts as JSON."""
    base = project_folder(arguments)
    if arguments.json:
        terminal.answer(facts(base), lambda console: None)
        return 0
    page = call("genwright.web.report:render", base)
    path = Path(arguments.out) if arguments.out else base / "report.html"
    write_atomic(path, page)
    told = [f"Wrote {path} ({len(page.encode()) // 1024} KiB). Open it in a browser."]
    results = call("genwright.web.summaries:read_results", base)
    if "integrate" in results.stages:
        write_atomic(path.with_name(CARD), call("genwright.models.made_card:write_card", results.name, results.stages))
        told.append(f"Wrote {path.with_name(CARD)}: the card of the model that was made, for its README.md.")
    terminal.answer({}, lambda console: console.print("\n".join(told)))
    return 0


def facts(base: Path) -> dict[str, Any]:
    """What the page tells. Errors: BadRequest when nothing was applied yet."""
    results = resolve("genwright.web.summaries:read_results")(base)
    if not results.stages:
        raise BadRequest(f"There is nothing to report in {base}.", do="run `genwright apply` first")
    compare = resolve("genwright.web.summaries:compare")
    compared = {
        rung["name"]: [
            {**asdict(one), "ratio": one.ratio, "within": one.within}
            for one in compare(rung.get("planned"), rung.get("measured"))
        ]
        for rung in results.rungs()
    }
    return {"project": results.name, "summaries": results.stages, "keys": results.keys, "planned_measured": compared}
