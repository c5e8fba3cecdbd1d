"""Who may use the server: names in the Host header, other sites' pages, and the API key.

A page on the web can reach a server on the loopback: by a request without a preflight, which has an
Origin, and by a name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

import re
import secrets
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pandacli.errors import PandaError
from pandacli.server.native import is_from_socket
from pandacli.server.page import is_public
from pandacli.server.protocol import RequestError, error_object

if TYPE_CHECKING:
    from pandacli.server.app import ServerSettings

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+?))\.?(?::[0-9]*)?", re.IGNORECASE)
_RETRY_AFTER = "2"  # seconds, where too many requests wait


class Guard:
    """Refuses foreign Host headers, requests of other sites' pages, and those without the key."""

    def __init__(self, app: ASGIApp, settings: "ServerSettings") -> None:
        self._app, self._hosts = app, {name.encode() for name in settings.hosts}
        key = settings.api_key
        self._key = None if key is None else key.encode("utf-8", "surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # of which there are none here
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http" or is_from_socket(scope):
            await self._app(scope, receive, send)
        elif (error := self._refusal(scope["path"], scope["headers"])) is not None:
            await error_response(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: list[tuple[bytes, bytes]]) -> RequestError | None:
        named = dict(headers)
        host = named.get(b"host", b"").lower()
        if self._hosts and _name(host) not in self._hosts:
            return RequestError("this server has another name", status=403, code="wrong_host")
        origins = [value.lower() for name, value in headers if name == b"origin"]
        if any(origin.partition(b"://")[2] != host for origin in origins):
            return RequestError("other sites cannot use it", status=403, code="wrong_origin")
        if self._key is None or path == "/health" or is_public(path):
            return None
        kind, _, given = named.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and secrets.compare_digest(given.strip(b" "), self._key):
            return None
        return RequestError("the API key is missing or wrong", status=401, code="invalid_api_key")


def _name(host: bytes) -> bytes | None:
    """The name or the address in a Host header, without the port."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return (found[1] or found[2]).encode("latin-1") if found else None


def error_response(error: PandaError) -> JSONResponse:
    """An error with its status, in the form of OpenAI."""
    status, body = error_object(error)
    headers = {"retry-after": _RETRY_AFTER} if status == 429 else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status, headers)
