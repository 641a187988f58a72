"""Serve what the project made, as OpenAI's API does: chat, completions, models, metrics, and a page at /.

Without a key everybody who reaches the port may ask; the first --add-key closes the door for all others.
"""

from __future__ import annotations

import asyncio
import signal
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, MissingExtra
from genwright.cli import numbers
from genwright.cli.rooms import call, override_options, project, project_folder
from genwright.cli.terminal import Terminal

LIMITS = {"requests_per_minute": int, "tokens_per_day": int, "usd_per_month": float}


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--port", type=numbers.count_or_none, default=8000, metavar="N", help="0: any free one (default: 8000)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    parser.add_argument("--add-key", metavar="NAME", help="make an API key, print it once, and leave")
    parser.add_argument(
        "--limit", metavar="NAME=N", action="append", default=[], help=f"of a new key: {', '.join(LIMITS)}"
    )
    parser.add_argument("--experts", metavar="A,B", help="of a new key: the experts that it may use (default: all)")
    parser.add_argument("--admin", action="store_true", help="of a new key: it may add and remove experts")
    parser.add_argument("--remove-key", metavar="NAME", help="forget an API key, and leave")
    parser.add_argument("--keys", action="store_true", help="list the API keys, and leave")
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Keys, or the server until it is stopped."""
    _refuse_contradictions(arguments)
    if arguments.add_key or arguments.remove_key or arguments.keys:
        return _keys(arguments, terminal)
    spec, base = project(arguments)
    try:
        house = call("genwright.serve.house:build", spec, base, say=terminal.say)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "Serving") from None
    call("genwright.serve.server:run", _serve(house, spec, base, arguments, terminal))
    return 0


def _refuse_contradictions(arguments: Namespace) -> None:
    if (arguments.limit or arguments.experts or arguments.admin) and not arguments.add_key:
        raise BadRequest("--limit, --experts and --admin are of a new key.", do="add --add-key NAME")
    if not 0 <= arguments.port <= 65535:
        raise BadRequest(f"There is no port {arguments.port}.", wanted="a number from 0 to 65535")


async def _serve(house: Any, spec: Any, base: Path, arguments: Namespace, terminal: Terminal) -> None:
    certificate, key = (base / name if name else None for name in (spec.serve.certificate, spec.serve.certificate_key))
    try:
        bound = call("genwright.serve.server:listening", arguments.host, arguments.port)
        server = call("genwright.serve.server:server_of", house.app, certificate, key)
    except OSError as error:
        raise BadRequest(
            f"Port {arguments.port} cannot be listened at: {error.strerror}.", do="choose another --port"
        ) from None
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    scheme = "https" if certificate else "http"
    address = f"{scheme}://{arguments.host}:{bound.getsockname()[1]}"
    facts = {"url": address, "model": house.answers.parts.model, "engine": house.pool.first.name}
    terminal.answer(
        facts, lambda console: console.print(f"{facts['model']} at {address} (engine {facts['engine']}); Ctrl-C stops.")
    )
    await call("genwright.serve.server:run_until", server, bound, stop)


def _keys(arguments: Namespace, terminal: Terminal) -> int:
    keys = call("genwright.serve.keys:Keys", project_folder(arguments) / ".genwright" / "serve" / "keys.json")
    if arguments.remove_key:
        keys.remove(arguments.remove_key)
        terminal.answer(
            {"removed": arguments.remove_key}, lambda console: console.print(f"Removed {arguments.remove_key}.")
        )
    elif arguments.add_key:
        experts = tuple(arguments.experts.split(",")) if arguments.experts else None
        limits = dict(map(_limit, arguments.limit))
        secret = keys.make(arguments.add_key, experts=experts, admin=arguments.admin, **limits)
        told = f"{secret}\nIt is not kept and not shown again."
        terminal.answer({"name": arguments.add_key, "key": secret}, lambda console: console.print(told))
    else:
        rows = [
            {name: getattr(key, name) for name in ("name", "begins", *LIMITS, "experts", "admin")}
            for key in keys.all().values()
        ]
        lines = [f"{row['name']}  {row['begins']}..." for row in rows] or ["There are no keys: everybody may ask."]
        terminal.answer(rows, lambda console: console.print("\n".join(lines)))
    return 0


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, LIMITS[name](value)
    except (KeyError, ValueError):
        raise BadRequest(f"'{text}' is no limit.", wanted=f"one of {', '.join(LIMITS)}, as NAME=NUMBER") from None
