"""Experts added and removed over HTTP, by who may: a key made with --admin; without keys, a program on this machine.

GET    /admin/experts            what is seen, what the engine refused
POST   /admin/experts            {"path": "adapter folder on the server", "name": "..."}: adds, or replaces
DELETE /admin/experts/{name}
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path as Folder
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from genwright.base.errors import UnknownName
from genwright.serve import checks
from genwright.serve.contracts import Expert
from genwright.serve.keys import Keys, shown
from genwright.serve.live import LiveLibrary
from genwright.serve.replies import Refusal

MOST_BYTES = 65_536


class Admin:
    """The endpoints of one live library."""

    def __init__(self, live: LiveLibrary, keys: Keys | None) -> None:
        self.live, self.keys = live, keys

    async def listed(self, http: Request) -> Response:
        """GET."""
        self._refuse_strangers(http)
        return JSONResponse({"experts": [_told(one) for one in self.live.experts()], "refused": self.live.refused})

    async def add(self, http: Request) -> Response:
        """POST: answers when new requests get it."""
        self._refuse_strangers(http)
        told = checks.read_json(await _small_body(http))
        path, name = told.get("path"), told.get("name") or ""
        if not isinstance(path, str) or not path or "\0" in path or not isinstance(name, str):
            raise Refusal(400, "path must be a folder on the server, and name a text.", param="path")
        expert = await run_in_threadpool(self.live.add, Folder(path), name)
        self.live.refused.pop(expert.served_name, None)
        await self.live.refresh()
        if why := self.live.refused.get(expert.served_name):
            raise Refusal(409, f"The engine does not take {expert.name}: {why}", code="engine_refused")
        return JSONResponse(_told(expert))

    async def remove(self, http: Request) -> Response:
        """DELETE: answers when no new request gets it."""
        self._refuse_strangers(http)
        name = str(http.path_params["name"])
        try:
            await run_in_threadpool(self.live.remove, name)
        except UnknownName as error:
            raise Refusal(404, str(error), code="model_not_found") from None
        await self.live.refresh()
        return JSONResponse({"removed": name})

    def _refuse_strangers(self, http: Request) -> None:
        """Errors: Refusal 401, 403. A page of a browser is a stranger: it could be anybody's."""
        if self.keys is not None and self.keys.all():
            key = self.keys.who(shown(http.headers.get("authorization", "")))
            if key is None:
                raise Refusal(401, "An API key is needed: Authorization: Bearer gw-...", code="invalid_api_key")
            if not key.admin:
                raise Refusal(403, "This key may not change experts.", code="not_an_admin")
        elif "origin" in http.headers or http.client is None or not ipaddress.ip_address(http.client.host).is_loopback:
            raise Refusal(403, "Without a key experts are changed from this machine only.", code="not_an_admin")


def admin_routes(live: LiveLibrary, keys: Keys | None) -> Sequence[Route]:
    """The paths."""
    admin = Admin(live, keys)
    return (
        Route("/admin/experts", admin.listed, methods=["GET"]),
        Route("/admin/experts", admin.add, methods=["POST"]),
        Route("/admin/experts/{name}", admin.remove, methods=["DELETE"]),
    )


async def _small_body(http: Request) -> bytes:
    data = bytearray()
    async for piece in http.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise Refusal(413, "The body is too large.", code="body_too_large")
    return bytes(data)


def _told(expert: Expert) -> dict[str, Any]:
    return {"name": expert.name, "version": expert.version, "path": str(expert.path)}
