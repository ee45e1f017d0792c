"""The live page: what the query port shows to people, rendered here and kept up to date by server-sent events.

1. Everything that comes from records is escaped by the templates; the page's own script and style are the only ones
   that its policy lets run.
2. Pages that are open share one rendering a second, and more seldom where it costs more.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from importlib import resources
from typing import Final
from urllib.parse import parse_qs, quote

import msgspec
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from consumer.adapters.web.answers import Answers, Refused
from consumer.adapters.web.gate import COOKIE, SESSION_S, Gate
from consumer.core import times
from consumer.runtime.board import Board
from consumer.runtime.live_search import Wanted
from consumer.version import VERSION
from schemas.query import Problem

STREAMS_MAX: Final = 16
"""Pages that are kept up to date at the same time: a quarter of the connections."""
STREAM_PATH: Final = "/events"
OPEN_PATHS: Final = frozenset(("/login", "/assets/page.css", "/assets/page.js", "/assets/icon.svg"))
"""What is served without the token: the way to show it."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_TICK_S: Final = 1.0
_STREAM_S_MAX: Final = 3_600.0
"""A page opens its stream anew after this, so a session that is over does not go on."""
_SILENCE_S_MAX: Final = 15.0
_COST_SHARE: Final = 0.05
_OLDEST: Final = 10
_COMMUNICATIONS_MAX: Final = 100
"""Of one conversation, on its page: what people can take in, and can be rendered in some milliseconds."""
_MINUTE_S: Final = 60


class LivePage:
    """Pages over the answers and the board."""

    def __init__(self, answers: Answers, board: Board, gate: Gate) -> None:
        self._answers = answers
        self._board = board
        self._gate = gate
        self._streams = 0
        self._closing = asyncio.Event()
        self._rendering = asyncio.Lock()
        self._rendered: dict[str, str] = {}
        self._fresh_until_s = 0.0
        self._templates = Environment(
            loader=PackageLoader("consumer.adapters.web", "page"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.filters.update(link=_link, stream=_stream, duration=_duration, moment=_moment)
        self._templates.globals.update(version=VERSION, leave=not gate.is_open, most=_COMMUNICATIONS_MAX)
        folder = resources.files("consumer.adapters.web").joinpath("page")
        self._assets = {name: folder.joinpath(name).read_bytes() for name in _ASSETS}

    def routes(self) -> list[web.RouteDef]:
        """What to serve."""
        return [
            web.get("/", self._front),
            web.get("/find", self._search),
            web.get("/conversations/{conversationId}", self._conversation),
            web.get(STREAM_PATH, self._follow_board, allow_head=False),
            web.get(STREAM_PATH + "/{conversationId}", self._follow_conversation, allow_head=False),
            web.get("/assets/{name}", self._asset),
            web.post("/login", self._login),
            web.post("/logout", self._logout),
        ]

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    def problem(self, problem: Problem) -> web.Response:
        """A problem as a page; where the token is missing, with the form to show it."""
        if problem.status == web.HTTPUnauthorized.status_code:
            return self._page("login.html", status=problem.status, failed=False)
        return self._page("problem.html", status=problem.status, title=problem.title, partition=problem.partition)

    async def _front(self, _request: web.Request) -> web.Response:
        parts = {name: Markup(html) for name, html in (await self._board_fragments()).items()}  # noqa: S704 - escaped
        return self._page("board.html", parts=parts, now=times.text(time.time_ns() // 1_000_000))

    async def _search(self, request: web.Request) -> web.Response:
        raise web.HTTPSeeOther(_link(request.query.get("id", "").strip()))

    async def _conversation(self, request: web.Request) -> web.Response:
        conversation_id = request.match_info["conversationId"]
        asked = request.query.get("asOf", "").strip()
        as_of = times.published(asked) if asked else None
        if asked and as_of is None:
            raise Refused(Problem("not a time such as 2026-01-31T09:05:00Z", 400))
        timeline = await self._answers.timeline(conversation_id, as_of)
        async with self._answers.share.block():
            return self._page(
                "conversation.html",
                id=conversation_id,
                timeline=timeline,
                follow=as_of is None and timeline.origin == "worker",
                operations=[] if as_of else self._board.operations_on(conversation_id),
            )

    async def _follow_board(self, request: web.Request) -> web.StreamResponse:
        async def fragments() -> AsyncGenerator[dict[str, str], None]:
            while True:
                yield await self._board_fragments()

        return await self._stream(request, fragments())

    async def _follow_conversation(self, request: web.Request) -> web.StreamResponse:
        conversation_id = request.match_info["conversationId"]
        if self._answers.held(conversation_id) is None:
            raise Refused(Problem("this worker does not have the conversation (any more)", 404))
        return await self._stream(request, self._conversation_fragments(conversation_id))

    async def _board_fragments(self) -> dict[str, str]:
        """The parts of the front page, rendered anew if they are due."""
        async with self._rendering:
            if time.monotonic() < self._fresh_until_s:
                return self._rendered
            searched_s = self._answers.searched_s
            oldest, _ = await self._answers.live(Wanted(), None, _OLDEST)
            began_s = time.perf_counter()
            glance = self._board.glance()
            self._rendered = {
                name: self._templates.get_template(f"{name}.html").render(glance=glance, oldest=oldest.items)
                for name in ("live", "lanes", "dead", "oldest", "feed")
            }
            cost_s = time.perf_counter() - began_s + self._answers.searched_s - searched_s
            self._fresh_until_s = time.monotonic() + max(_TICK_S / 2, cost_s / _COST_SHARE)
            return self._rendered

    async def _conversation_fragments(self, conversation_id: str) -> AsyncGenerator[dict[str, str], None]:
        """The conversation each time it changed, until this worker has it no more."""
        template = self._templates.get_template("timeline.html")
        state: bytes | None = None
        while (found := self._answers.held(conversation_id)) is not None:
            if found.state == state:
                yield {}
                continue
            state = found.state
            timeline = await self._answers.timeline_of(found)
            async with self._answers.share.block():
                operations = self._board.operations_on(conversation_id)
                html = template.render(timeline=timeline, operations=operations)
            yield {"conversation": html}

    async def _stream(
        self, request: web.Request, fragments: AsyncGenerator[dict[str, str], None]
    ) -> web.StreamResponse:
        """Send what changed, as it comes, and a sign of life where nothing does."""
        if self._streams >= STREAMS_MAX:
            raise Refused(Problem("too many pages are kept up to date already", 503), {"Retry-After": "60"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        shown: dict[str, str] = {}
        began_s = told_s = time.monotonic()
        self._streams += 1
        try:
            await response.prepare(request)
            async for each in fragments:
                parts = each | {"status": self._status()}
                changed = {name: html for name, html in parts.items() if shown.get(name) != html}
                shown.update(changed)
                now_s = time.monotonic()
                if changed:
                    await response.write(b"data: %s\n\n" % msgspec.json.encode(changed))
                    told_s = now_s
                elif now_s - told_s > _SILENCE_S_MAX:
                    await response.write(b":\n\n")
                    told_s = now_s
                if now_s - began_s > _STREAM_S_MAX or await self._is_closing():
                    break
        finally:
            self._streams -= 1
            await fragments.aclose()
        return response

    def _status(self) -> str:
        since_ms = self._board.outage_since_ms()
        if since_ms is None:
            return "Updating."
        return f"Kafka does not answer: what is shown is from {times.text(since_ms)} or before."

    async def _is_closing(self) -> bool:
        """Wait for the next tick; whether all is to end."""
        try:
            await asyncio.wait_for(self._closing.wait(), _TICK_S)
        except TimeoutError:
            return False
        return True

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._assets:
            raise web.HTTPNotFound
        return web.Response(body=self._assets[name], content_type=_ASSETS[name])

    async def _login(self, request: web.Request) -> web.Response:
        # Not `request.post()`: anybody may send this, and aiohttp raises what it likes for a form that is none.
        form = parse_qs((await request.read()).decode("ascii", "replace"))
        if not self._gate.takes(form.get("token", [""])[0].strip()):
            return self._page("login.html", status=web.HTTPUnauthorized.status_code, failed=True)
        answer = web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": "/"})
        answer.set_cookie(COOKIE, self._gate.session(), max_age=SESSION_S, httponly=True, samesite="Strict", path="/")
        return answer

    async def _logout(self, _: web.Request) -> web.Response:
        answer = web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": "/"})
        answer.del_cookie(COOKIE, httponly=True, samesite="Strict", path="/")
        return answer

    def _page(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        text = self._templates.get_template(template).render(**values)
        return web.Response(text=text, status=status, content_type="text/html")


def _link(conversation_id: str) -> str:
    return f"/conversations/{quote(conversation_id, safe='', errors='surrogateescape')}"


def _stream(conversation_id: str) -> str:
    return f"{STREAM_PATH}/{quote(conversation_id, safe='', errors='surrogateescape')}"


def _moment(published: str) -> Markup:
    """A published time, whose date and clock may come on two lines where there is little room."""
    date, _, clock = published.removesuffix("Z").partition("T")
    return Markup('<time datetime="{}">{} <span class="clock">{}</span></time>').format(published, date, clock)


def _duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"  # noqa: RUF001 - the dash that stands for nothing in all tables
    seconds = milliseconds / 1_000
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, left = divmod(int(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"
