"""What becomes of an error: an answer in OpenAI's shape, never a traceback."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from genwright.base.errors import GenwrightError
from genwright.serve.contracts import EngineDown, EngineRefused
from genwright.serve.replies import Refusal


async def on_refusal(http: Request, error: Exception) -> Response:
    """What we refuse."""
    assert isinstance(error, Refusal)
    return error.response()


async def on_engine_down(http: Request, error: Exception) -> Response:
    """503, and when to come back."""
    assert isinstance(error, EngineDown)
    return Refusal(
        503, f"The engine is not there: {error}.", code="engine_down", retry_after=error.retry_after
    ).response()


async def on_engine_refused(http: Request, error: Exception) -> Response:
    """What the engine refuses is the client's to change."""
    assert isinstance(error, EngineRefused)
    return Refusal(error.status, str(error), code="engine_refused").response()


async def on_http(http: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    response = Refusal(error.status_code, f"{error.detail}: {http.method} {http.url.path[:200]}").response()
    response.headers.update(error.headers or {})
    return response


async def on_gone(http: Request, error: Exception) -> Response:
    """Nobody is there to read this."""
    return Response(status_code=499)


async def on_anything(http: Request, error: Exception) -> Response:
    """Our own mistake, without its insides."""
    return Refusal(500, "Something went wrong here; it is logged.", code="internal").response()


async def on_ours(http: Request, error: Exception) -> Response:
    """What a person can put right, in our own words."""
    assert isinstance(error, GenwrightError)
    return Refusal(400 if error.exit_code == 2 else 409, str(error)).response()


HANDLERS = {
    Refusal: on_refusal, EngineDown: on_engine_down, EngineRefused: on_engine_refused, GenwrightError: on_ours,
    HTTPException: on_http, ClientDisconnect: on_gone, Exception: on_anything,
}  # fmt: skip
"""Kind of error -> its answer."""
