"""The query port: conversations over HTTP, for whoever has the token.

1. Without the token nothing is told, not even whether a path exists.
2. Without a token set, only requests that name this machine's loopback as their host are answered: a page of a
   foreign site that a browser here has open must not read conversations by a name that it points to loopback.
3. Only committed state is told.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from yarl import URL

from consumer.adapters.bounded_http import BoundedServer, Bounds, Refusal
from consumer.runtime.settings import is_loopback

Find = Callable[[str], bytes | None]
"""The committed state of a conversation by its id."""

_BODY_BYTES_MAX: Final = 4_096
_SCHEME: Final = b"Bearer "
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="conversation-consumer"'}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class QueryServer:
    """Serves lookups on the worker's loop, within bounds."""

    def __init__(
        self, find: Find, token: str, on_refused: Callable[[Refusal], None], bounds: Bounds | None = None
    ) -> None:
        self._find = find
        self._token = token.encode()
        self._on_refused = on_refused
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[self._guard])
        app.add_routes([web.get("/api/v1/conversations/{id}", self._conversation)])
        self._server = BoundedServer(app, on_refused, bounds or Bounds())

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one if 0 was asked for. Raises OSError if it cannot."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        await self._server.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._token:
            if not self._is_authorized(request):
                self._on_refused("unauthorized")
                return _problem(401, "a bearer token is needed: CC_QUERY_TOKEN", _CHALLENGE)
        elif not _names_loopback(request.headers.get("Host", "")):
            self._on_refused("misdirected")
            return _problem(421, "without CC_QUERY_TOKEN only requests to a loopback address are answered")
        try:
            answer = await handler(request)
        except web.HTTPException as refused:
            return _problem(
                refused.status, refused.reason, {"Allow": allow} if (allow := refused.headers.get("Allow")) else {}
            )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _is_authorized(self, request: web.Request) -> bool:
        """Compares in a time that does not tell how much of the token is right."""
        shown = request.headers.getall("Authorization", [])
        if len(shown) != 1:
            return False
        given = shown[0].encode("utf-8", "surrogateescape")
        return given[: len(_SCHEME)].lower() == _SCHEME.lower() and hmac.compare_digest(
            given[len(_SCHEME) :].strip(), self._token
        )

    async def _conversation(self, request: web.Request) -> web.Response:
        state = self._find(request.match_info["id"])
        if state is None:
            raise web.HTTPNotFound
        return web.Response(body=state, content_type="application/json")


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(URL(f"http://{host}").host or "")
    except ValueError:
        return False


def _problem(status: int, title: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as RFC 9457 has it."""
    return web.json_response(
        {"title": title, "status": status},
        status=status,
        headers={**(headers or {}), "Cache-Control": "no-store"},
        content_type="application/problem+json",
    )
