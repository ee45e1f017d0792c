"""The query port: conversations over HTTP, for whoever may ask. `openapi.json` documents its API.

1. Without the token nothing is told but the form to show it, not even whether a path exists.
2. Only committed state is told.
3. Requests under `/api/` are answered in JSON, all others for people.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from consumer.adapters.web.answers import Answers, Refused
from consumer.adapters.web.bounded_http import BoundedServer, Bounds, Refusal
from consumer.adapters.web.gate import Gate
from consumer.adapters.web.live_page import HEADERS, OPEN_PATHS, STREAM_PATH, LivePage
from consumer.core import times
from consumer.core.lifecycle import folded
from consumer.runtime.board import Board
from consumer.runtime.live_search import Position, Wanted
from schemas.query import Problem
from schemas.state import Media

LIMIT_MAX: Final = 500

_API: Final = "/api/"
_ANSWER_S: Final = 9.0
_PROBLEM: Final = "application/problem+json"
_BODY_BYTES_MAX: Final = 4_096
_AGE_S_MAX: Final = 315_360_000  # ten years
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="conversation-consumer"'}
_OWN_SITE: Final = frozenset(("same-origin", "none"))
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Parameters = TypeVar("_Parameters", bound=Struct)
_Word = Annotated[str, Meta(min_length=1, max_length=256)]
_Age = Annotated[int, Meta(ge=0, le=_AGE_S_MAX)]


class NoParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """None are taken."""


class TimelineParameters(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What a timeline may be asked with."""

    as_of: _Word | None = None


class LiveParameters(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What live communications may be asked for by."""

    media: Media | None = None
    state: _Word | None = None
    queue_id: _Word | None = None
    user_id: _Word | None = None
    min_age_seconds: _Age | None = None
    max_age_seconds: _Age | None = None
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 100
    cursor: Annotated[str, Meta(max_length=2_048)] | None = None


class QueryServer:
    """Serves answers and pages on the worker's loop, within bounds. `wall_ms` is the clock that ages are told by."""

    def __init__(
        self,
        answers: Answers,
        board: Board,
        *,
        token: str,
        wall_ms: Callable[[], int],
        on_refused: Callable[[Refusal], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._answers = answers
        self._gate = Gate(token)
        self._page = LivePage(answers, board, self._gate)
        self._wall_ms = wall_ms
        self._on_refused = on_refused
        self._documentation = resources.files("consumer.adapters.web").joinpath("openapi.json").read_bytes()
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        app.add_routes(
            [
                web.get(f"{_API}v1/openapi.json", self._openapi),
                web.get(f"{_API}v1/conversations/{{conversationId}}", self._conversation),
                web.get(f"{_API}v1/conversations/{{conversationId}}/timeline", self._timeline),
                web.get(f"{_API}v1/communications", self._live),
                *self._page.routes(),
            ]
        )
        self._server = BoundedServer(app, on_refused, bounds or Bounds(), is_stream=_is_stream)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one if 0 was asked for. Raises OSError if it cannot."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        self._page.close()
        await self._server.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            async with asyncio.timeout(None if _is_stream(request) else _ANSWER_S):
                return await handler(request)
        except TimeoutError:
            return self._problem(request, Problem("too much is asked for just now: try again later", 504), {})
        except Refused as refused:
            return self._problem(request, refused.problem, refused.headers)
        except web.HTTPRedirection:
            raise
        except web.HTTPException as refused:
            allow = refused.headers.get("Allow")
            problem = Problem(refused.reason, refused.status)
            return self._problem(request, problem, {} if allow is None else {"Allow": allow})

    def _admit(self, request: web.Request) -> None:
        verdict = self._gate.judge(request)
        if verdict == "misdirected":
            self._on_refused(verdict)
            raise Refused(Problem("without CC_QUERY_TOKEN only requests to a loopback address are answered", 421))
        if verdict == "unauthorized" and request.path not in OPEN_PATHS:
            self._on_refused(verdict)
            raise Refused(Problem("a bearer token is needed: CC_QUERY_TOKEN", 401), _CHALLENGE)
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
            raise Refused(Problem("a form of another site", 403))

    def _problem(self, request: web.Request, problem: Problem, headers: dict[str, str]) -> web.Response:
        is_api = request.path.startswith(_API)
        answer = _json(problem, problem.status, _PROBLEM) if is_api else self._page.problem(problem)
        answer.headers.update(headers)
        return answer

    async def _openapi(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return web.Response(body=self._documentation, content_type="application/json")

    async def _conversation(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return _json(await self._answers.conversation(request.match_info["conversationId"]))

    async def _timeline(self, request: web.Request) -> web.Response:
        asked = _parameters(request, TimelineParameters).as_of
        as_of = None if asked is None else times.published(asked)
        if asked is not None and as_of is None:
            raise Refused(Problem("asOf: not a time such as 2026-01-31T09:05:00.123Z", 400))
        return _json(await self._answers.timeline(request.match_info["conversationId"], as_of))

    async def _live(self, request: web.Request) -> web.Response:
        asked = _parameters(request, LiveParameters)
        wanted = Wanted(
            media=asked.media,
            state=None if asked.state is None else folded(asked.state),
            queue_id=asked.queue_id,
            user_id=asked.user_id,
            begun_by=self._ago(asked.min_age_seconds),
            begun_from=self._ago(asked.max_age_seconds),
        )
        after = None if asked.cursor is None else _position(asked.cursor)
        page, end = await self._answers.live(wanted, after, asked.limit)
        return _json(msgspec.structs.replace(page, next=None if end is None else _cursor(end)))

    def _ago(self, seconds: int | None) -> str | None:
        return None if seconds is None else times.text(self._wall_ms() - seconds * 1_000)


def _is_stream(request: web.Request) -> bool:
    return request.path.startswith(STREAM_PATH)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _parameters(request: web.Request, kind: type[_Parameters]) -> _Parameters:
    """What is asked for after the `?`, each at most once and none that is unknown."""
    given = dict(request.query)
    if len(given) < len(request.query):
        raise Refused(Problem("a parameter is given twice", 400))
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(Problem(f"parameters: {error}", 400)) from None


def _cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _position(cursor: str) -> Position:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position: Position = msgspec.json.decode(text, type=Position)
    except (binascii.Error, ValueError):
        raise Refused(Problem("cursor: not one that a page gave as its next", 400)) from None
    return position


def _json(value: Any, status: int = 200, content_type: str = "application/json") -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=content_type)
