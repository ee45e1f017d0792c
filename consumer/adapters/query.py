"""The query port: conversations over HTTP, for whoever has the token. `openapi.json` documents it.

1. Without the token nothing is told, not even whether a path exists.
2. Without a token set, only requests that name this machine's loopback as their host are answered: a page of a
   foreign site that a browser here has open must not read conversations by a name that it points to loopback.
3. Only committed state is told.
4. All answers together take at most `_LOOP_SHARE` of the loop's time, and each a bounded time.
"""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct
from yarl import URL

from consumer.adapters.bounded_http import BoundedServer, Bounds, Refusal
from consumer.adapters.loop_share import LoopShare
from consumer.core import times
from consumer.core.lifecycle import folded
from consumer.core.view import communications
from consumer.runtime.live_search import LiveSearch, Position, Wanted
from consumer.runtime.lookup import Found, Lookup, NotOpen, Unfinished
from consumer.runtime.ports import WorldError
from consumer.runtime.settings import is_loopback
from schemas.query import ConversationFound, Problem, Timeline
from schemas.state import ConversationState, Media

LOOK_S: Final = 5.0
"""How long the state topic is searched for a conversation of another worker."""
LIMIT_MAX: Final = 500

_FIND_S: Final = 8.0
"""Within this a conversation is found or given up, waiting for the searches of others included."""
_ANSWER_S: Final = 9.0
_LOOP_SHARE: Final = 0.25
_PROBLEM: Final = "application/problem+json"
_BODY_BYTES_MAX: Final = 4_096
_AGE_S_MAX: Final = 315_360_000  # ten years
_SCHEME: Final = b"Bearer "
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="conversation-consumer"'}
_STATE: Final = msgspec.json.Decoder(ConversationState)
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


class Refused(Exception):
    """A request that gets a problem for an answer."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = headers or {}


class QueryServer:
    """Serves lookups on the worker's loop, within bounds. `cycles_max` is the rules' `park_cycles_max`."""

    def __init__(
        self,
        lookup: Lookup,
        search: LiveSearch,
        *,
        cycles_max: int,
        token: str,
        wall_ms: Callable[[], int],
        on_refused: Callable[[Refusal], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._lookup = lookup
        self._search = search
        self._cycles_max = cycles_max
        self._token = token.encode()
        self._wall_ms = wall_ms
        self._on_refused = on_refused
        self._share = LoopShare(_LOOP_SHARE)
        self._documentation = resources.files(__package__).joinpath("openapi.json").read_bytes()
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/api/v1/openapi.json", self._openapi),
                web.get("/api/v1/conversations/{conversationId}", self._conversation),
                web.get("/api/v1/conversations/{conversationId}/timeline", self._timeline),
                web.get("/api/v1/communications", self._live),
            ]
        )
        self._server = BoundedServer(app, on_refused, bounds or Bounds())

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which is a free one if 0 was asked for. Raises OSError if it cannot."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Stop listening, within a bounded time."""
        await self._server.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            async with asyncio.timeout(_ANSWER_S):
                answer = await handler(request)
        except TimeoutError:
            answer = _json(Problem("too much is asked for just now: try again later", 504), 504, _PROBLEM)
        except Refused as refused:
            answer = _json(refused.problem, refused.problem.status, _PROBLEM)
            answer.headers.update(refused.headers)
        except web.HTTPException as refused:
            answer = _json(Problem(refused.reason, refused.status), refused.status, _PROBLEM)
            if "Allow" in refused.headers:
                answer.headers["Allow"] = refused.headers["Allow"]
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _authorize(self, request: web.Request) -> None:
        if self._token:
            if not self._has_token(request):
                self._on_refused("unauthorized")
                raise Refused(Problem("a bearer token is needed: CC_QUERY_TOKEN", 401), _CHALLENGE)
        elif not _names_loopback(request.headers.get("Host", "")):
            self._on_refused("misdirected")
            raise Refused(Problem("without CC_QUERY_TOKEN only requests to a loopback address are answered", 421))

    def _has_token(self, request: web.Request) -> bool:
        """Compares in a time that does not tell how much of the token is right."""
        shown = request.headers.getall("Authorization", [])
        if len(shown) != 1:
            return False
        given = shown[0].encode("utf-8", "surrogateescape")
        return given[: len(_SCHEME)].lower() == _SCHEME.lower() and hmac.compare_digest(
            given[len(_SCHEME) :].strip(), self._token
        )

    async def _openapi(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        return web.Response(body=self._documentation, content_type="application/json")

    async def _conversation(self, request: web.Request) -> web.Response:
        _parameters(request, NoParameters)
        found, state = await self._find(request.match_info["conversationId"])
        async with self._share.piece() as spent:
            with spent:
                return _json(ConversationFound(found.partition, found.origin, _STATE.decode(state)))

    async def _timeline(self, request: web.Request) -> web.Response:
        asked = _parameters(request, TimelineParameters).as_of
        as_of = None if asked is None else times.published(asked)
        if asked is not None and as_of is None:
            raise Refused(Problem("asOf: not a time such as 2026-01-31T09:05:00.123Z", 400))
        found, state = await self._find(request.match_info["conversationId"])
        async with self._share.piece() as spent:
            with spent:
                conversation = _STATE.decode(state)
                shown = communications(conversation, self._cycles_max, as_of)
                live = sum(each.live for each in shown)
                return _json(Timeline(found.partition, found.origin, conversation.conversation_id, as_of, live, shown))

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
        async with self._share.piece() as spent:
            before_s = self._search.spent_s
            page, end = await self._search.page(wanted, after, asked.limit)
            spent.seconds += self._search.spent_s - before_s
            with spent:
                return _json(msgspec.structs.replace(page, next=None if end is None else _cursor(end)))

    async def _find(self, conversation_id: str) -> tuple[Found, bytes]:
        """A conversation and its state, or why there is none."""
        try:
            async with asyncio.timeout(_FIND_S):
                found = await self._lookup.find(conversation_id)
        except TimeoutError:
            raise Refused(Problem("the state topic could not be read in time: try again later", 504)) from None
        except WorldError as error:
            raise Refused(Problem(str(error), 503)) from None
        match found:
            case Found(state=bytes(state)):
                return found, state
            case Found(partition, origin):
                where = "this worker's" if origin == "worker" else "another worker's, its state topic was read whole"
                raise Refused(Problem(f"no such conversation is known; its partition is {where}", 404, partition))
            case NotOpen(partition):
                raise Refused(
                    Problem("the conversation's partition is this worker's, but not open yet", 503, partition),
                    {"Retry-After": "2"},
                )
            case Unfinished(partition, read_from, begin):
                raise Refused(
                    Problem(
                        f"the conversation's partition is another worker's; in its state topic it is not from offset "
                        f"{read_from} on, and {LOOK_S:g} s did not suffice to read back to {begin}: ask that worker",
                        504,
                        partition,
                    )
                )
            case None:
                raise Refused(Problem("it is not known yet how many partitions there are", 503), {"Retry-After": "2"})

    def _ago(self, seconds: int | None) -> str | None:
        return None if seconds is None else times.text(self._wall_ms() - seconds * 1_000)


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


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(URL(f"http://{host}").host or "")
    except ValueError:
        return False


def _json(value: Any, status: int = 200, content_type: str = "application/json") -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=content_type)
