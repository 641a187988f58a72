"""uvicorn, with patience that ends: heads of requests are bounded in bytes and in seconds, idle connections are closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
IDLE_SECONDS = 30
"""Between two requests on one connection."""

REFUSED = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"


class BoundedHead(HttpToolsProtocol):
    """A connection whose request's head may not grow or take for ever."""

    def connection_made(self, transport: Any) -> None:
        """The clock of the first head starts."""
        super().connection_made(transport)
        self._head_bytes: int | None = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock outlives its connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the head is whole."""
        if self._head_bytes is not None:
            end = data.find(b"\r\n\r\n")
            self._head_bytes += end if end >= 0 else len(data)
            if self._head_bytes > HEAD_BYTES:
                return self._refuse(b"431 Request Header Fields Too Large", b"The head of the request is too large.")
        super().data_received(data)
        return None

    def on_message_begin(self) -> None:
        """A head begins; the first one began with the connection."""
        super().on_message_begin()
        if self._head_bytes is None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_bytes = None
        self._timer.cancel()
        super().on_headers_complete()

    def _late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", b"The head of the request did not arrive in time.")

    def _refuse(self, status: bytes, text: bytes) -> None:
        self._timer.cancel()
        body = b'{"error":{"message":"%s","type":"invalid_request_error","param":null,"code":null}}' % text
        self.transport.write(REFUSED % (status, len(body), body))
        self.transport.close()


class Server(uvicorn.Server):
    """A server that tells when it listens, and leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """The command line has its own way to stop."""
        yield


def listening(host: str, port: int) -> socket.socket:
    """A bound socket. Errors: OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(False)
    return bound


def server_of(app: Any, certificate: Path | None = None, key: Path | None = None) -> Server:
    """Uvicorn with what we have decided."""
    config = uvicorn.Config(
        app, http=BoundedHead, loop="asyncio", ws="none", lifespan="on", access_log=False, log_level="error",
        timeout_keep_alive=IDLE_SECONDS, backlog=2048, server_header=False, date_header=True,
        timeout_graceful_shutdown=5, ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    return Server(config)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on uvloop's loop where it is installed: it halves the time that the gateway adds."""
    try:
        factory = import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


async def run_until(server: Server, bound: socket.socket, stop: asyncio.Event) -> None:
    """Serve until told to stop; running answers have five seconds to end."""
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    waiting.cancel()
    await serving
