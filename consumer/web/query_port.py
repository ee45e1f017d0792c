"""The query port: conversations over HTTP. `openapi.json` documents its API.

1. A request without the token gets the form for it and nothing else, not even whether its path exists.
2. Answers hold committed state only.
3. Requests under `/api/` get JSON, all others HTML.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from consumer.core import timestamps
from consumer.core.lifecycle import fold_case
from consumer.query.fleet import LIVE_PATH, OVERVIEW_PATH, RECENT_PATH, REQUEST, Fleet, LiveRequest, RecentRequest
from consumer.query.live_search import LiveFilter, Position
from consumer.query.overview import OverviewReader
from consumer.telemetry.labels import Refusal
from consumer.web.access import OPEN_PATHS, Access, requesting_peer
from consumer.web.access_log import AuditLog
from consumer.web.answers import Answers, Refused
from consumer.web.api import (
    API,
    API_V1,
    CONVERSATION,
    DOCUMENTATION,
    LIMIT_MAX,
    LIVE,
    OVERVIEW,
    PARTS_PATH,
    SCHEMA,
    TIMELINE,
    Endpoint,
)
from consumer.web.authenticator import WORKER
from consumer.web.bounded_http import BoundedServer, Bounds, Kind
from consumer.web.live_page import HEADERS, STREAMS_MAX, LivePage
from consumer.web.page_text import STREAM_PATH
from consumer.web.worker_signature import ANSWER_HEADER, WorkerSignature
from schemas.query import Problem

_ANSWER_S: Final = 9.0
_PROBLEM: Final = "application/problem+json"
_BODY_BYTES_MAX: Final = 4_096
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Parameters = TypeVar("_Parameters", bound=Struct)
assert Bounds().running_max > STREAMS_MAX, "pages that are followed leave turns for others"


class QueryServer:
    """Serves answers and pages on the worker's loop, within bounds.

    Ages are by the clock `wall_ms`; pages name the `engine`. An `audit` gets every request of those who may ask. Other
    workers sign what they ask for the `address` that this one advertises, empty if it advertises none.
    """

    def __init__(
        self,
        answers: Answers,
        fleet: Fleet,
        overviews: OverviewReader,
        *,
        token: str,
        signature: WorkerSignature,
        address: Callable[[], str],
        engine: str,
        wall_ms: Callable[[], int],
        on_refused: Callable[[Refusal], None],
        audit: AuditLog | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._answers = answers
        self._fleet = fleet
        self._access = Access(token, signature, address, on_refused)
        self._page = LivePage(answers, fleet, overviews, self._access, engine, wall_ms)
        self._wall_ms = wall_ms
        self._audit = audit
        self._documentation = resources.files("consumer.web").joinpath("openapi.json").read_bytes()
        contract = resources.files("schemas").joinpath("json")
        self._schemas = {file.name: file.read_bytes() for file in contract.iterdir()}
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        app.add_routes(
            [
                web.get(API_V1 + DOCUMENTATION.path, self._openapi),
                web.get(API_V1 + SCHEMA.path, self._schema),
                web.get(API_V1 + CONVERSATION.path, self._conversation),
                web.get(API_V1 + TIMELINE.path, self._timeline),
                web.get(API_V1 + LIVE.path, self._live),
                web.get(API_V1 + OVERVIEW.path, self._overview),
                web.get(PARTS_PATH + LIVE_PATH, self._live_part),
                web.get(PARTS_PATH + OVERVIEW_PATH, self._overview_part),
                web.get(PARTS_PATH + RECENT_PATH, self._recent_part),
                *self._page.routes(),
            ]
        )
        self._server = BoundedServer(app, on_refused, bounds or Bounds(), self._kind_of)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0. Raises OSError if the address cannot be bound."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        self._page.close()
        await self._server.stop()

    def _kind_of(self, request: web.Request) -> Kind:
        if self._access.identify(request).verdict != "allowed":
            return "ordinary"
        return "stream" if request.path.startswith(STREAM_PATH) else "preferred"

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            identity = self._access.admit(request)
            if self._audit is not None and request.path not in OPEN_PATHS and identity.session != WORKER:
                self._audit.note(request, requesting_peer(request), identity.session)
            async with asyncio.timeout(None if self._kind_of(request) == "stream" else _ANSWER_S):
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

    def _problem(self, request: web.Request, problem: Problem, headers: dict[str, str]) -> web.Response:
        is_api = request.path.startswith(API)
        answer = _json(problem, problem.status, _PROBLEM) if is_api else self._page.problem(problem)
        answer.headers.update(headers)
        return answer

    async def _openapi(self, request: web.Request) -> web.Response:
        _parameters(request, DOCUMENTATION)
        return web.Response(body=self._documentation, content_type="application/json")

    async def _schema(self, request: web.Request) -> web.Response:
        _parameters(request, SCHEMA)
        document = self._schemas.get(request.match_info["schema"])
        if document is None:
            raise Refused(Problem(f"no such schema; there are {', '.join(sorted(self._schemas))}", 404))
        return web.Response(body=document, content_type="application/json")

    async def _conversation(self, request: web.Request) -> web.Response:
        _parameters(request, CONVERSATION)
        return _json(await self._answers.conversation(request.match_info["conversationId"]))

    async def _timeline(self, request: web.Request) -> web.Response:
        asked = _parameters(request, TIMELINE).as_of
        as_of = None if asked is None else timestamps.normalize(asked)
        if asked is not None and as_of is None:
            raise Refused(Problem("asOf: not a time such as 2026-01-31T09:05:00.123Z", 400))
        return _json(await self._answers.timeline(request.match_info["conversationId"], as_of))

    async def _live(self, request: web.Request) -> web.Response:
        asked = _parameters(request, LIVE)
        live_filter = LiveFilter(
            media=asked.media,
            state=None if asked.state is None else fold_case(asked.state),
            queue_id=asked.queue_id,
            user_id=asked.user_id,
            begun_by=self._ago(asked.min_age_seconds),
            begun_from=self._ago(asked.max_age_seconds),
        )
        after = None if asked.cursor is None else _position(asked.cursor)
        page, end = await self._fleet.live(live_filter, after, asked.limit)
        return _json(msgspec.structs.replace(page, next=None if end is None else _cursor(end)))

    async def _overview(self, request: web.Request) -> web.Response:
        _parameters(request, OVERVIEW)
        return _json((await self._fleet.overview()).overview)

    async def _live_part(self, request: web.Request) -> web.Response:
        asked = _part_request(request, LiveRequest)
        limit = min(asked.limit, LIMIT_MAX)
        return self._part(request, await self._answers.live_part(asked.live_filter, asked.after, limit))

    async def _overview_part(self, request: web.Request) -> web.Response:
        return self._part(request, await self._answers.overview_part())

    async def _recent_part(self, request: web.Request) -> web.Response:
        asked = _part_request(request, RecentRequest)
        return self._part(request, await self._answers.recent_part(asked.conversation_id))

    def _part(self, request: web.Request, part: Struct) -> web.Response:
        """A part of an answer, signed if its request is. It is this worker's own: parts are never asked for here."""
        body = msgspec.json.encode(part)
        answer = web.Response(body=body, content_type="application/json")
        signature = self._access.sign_answer(request, body)
        if signature is not None:
            answer.headers[ANSWER_HEADER] = signature
        return answer

    def _ago(self, seconds: int | None) -> str | None:
        return None if seconds is None else timestamps.to_text(self._wall_ms() - seconds * 1_000)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _parameters(request: web.Request, endpoint: Endpoint[_Parameters]) -> _Parameters:
    """The query's parameters. Raises Refused for one that is unknown, repeated or not valid."""
    given = dict(request.query)
    if len(given) < len(request.query):
        raise Refused(Problem("a parameter is given twice", 400))
    try:
        return msgspec.convert(given, endpoint.parameters, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(Problem(f"parameters: {error}", 400)) from None


def _part_request(request: web.Request, type_: type[_Parameters]) -> _Parameters:
    """What another worker asks. Raises Refused if it is of another version."""
    try:
        return msgspec.json.decode(request.query.get(REQUEST, ""), type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # also for text that is no UTF-8
        raise Refused(Problem("not a request of this version", 404)) from None


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
