"""The live page: HTML for people, which the server renders and keeps up to date by server-sent events.

1. The templates escape everything that comes from records. The page's policy allows only its own script and style.
2. All open pages share one rendering, at most twice a second, less often where it costs more.
3. What does not count all partitions says so, and which are missing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from consumer.core import timestamps
from consumer.query.conclusion import conclude_from_refused
from consumer.query.fleet import Fleet, FleetOverview
from consumer.query.overview import OverviewReader
from consumer.query.parts import RecentPart
from consumer.version import VERSION
from consumer.web.access import Access
from consumer.web.answers import Answers, Refused, Story
from consumer.web.bars import draw
from consumer.web.health import judge
from consumer.web.live_table import arrange
from consumer.web.page_text import FILTERS, STREAM_PATH, link, moment
from consumer.web.records_behind import group_by_record, group_refused, inspect_command
from schemas.query import Problem

STREAMS_MAX: Final = 16
"""Pages that can be followed at the same time: a quarter of the connections."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with `no-referrer` the forms of the page itself have no origin
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_TICK_S: Final = 1.0
_STREAM_S_MAX: Final = 3_600.0
"""A page opens its stream again after this time."""
_SILENCE_S_MAX: Final = 15.0
_COST_SHARE: Final = 0.05
_AGAIN_S: Final = 10.0
"""How often a conversation is rendered while its state stays as it is: the bars of what is live grow."""
_COMMUNICATIONS_MAX: Final = 100
"""On the page of a conversation: as many as people can read, and as can be rendered in some milliseconds."""
_FRAGMENTS: Final = ("verdict", "health", "live", "oldest", "feed", "dead", "troubled", "lanes")
"""Those of the front page, by the id of their element, which is the name of their template."""


class LivePage:
    """Renders the overview and the answers as pages. Ages are by the clock `wall_ms`."""

    def __init__(
        self,
        answers: Answers,
        fleet: Fleet,
        overviews: OverviewReader,
        access: Access,
        engine: str,
        wall_ms: Callable[[], int],
    ) -> None:
        self._answers = answers
        self._fleet = fleet
        self._overviews = overviews
        self._access = access
        self._wall_ms = wall_ms
        self._streams = 0
        self._closing = asyncio.Event()
        self._rendering = asyncio.Lock()
        self._rendered: dict[str, str] = {}
        self._fresh_until_s = 0.0
        self._templates = Environment(
            loader=PackageLoader("consumer.web", "page"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals.update(
            version=VERSION, engine=engine, leave=not access.is_open, most=_COMMUNICATIONS_MAX, now_ms=wall_ms
        )
        folder = resources.files("consumer.web").joinpath("page")
        self._assets = {name: folder.joinpath(name).read_bytes() for name in _ASSETS}

    def routes(self) -> list[web.RouteDef]:
        """The routes to serve."""
        return [
            web.get("/", self._front),
            web.get("/find", self._search),
            web.get("/conversations/{conversationId}", self._conversation),
            web.get(STREAM_PATH, self._follow_overview, allow_head=False),
            web.get(STREAM_PATH + "/{conversationId}", self._follow_conversation, allow_head=False),
            web.get("/assets/{name}", self._asset),
            web.post("/login", self._login),
            web.post("/logout", self._logout),
        ]

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    def problem(self, problem: Problem) -> web.Response:
        """A problem as a page; if the token is missing, the form for it."""
        if problem.status == web.HTTPUnauthorized.status_code:
            return self._page("login.html", status=problem.status, failed=False)
        return self._page("problem.html", status=problem.status, title=problem.title, partition=problem.partition)

    async def _front(self, _request: web.Request) -> web.Response:
        parts = {name: Markup(html) for name, html in (await self._overview_fragments()).items()}  # noqa: S704 - escaped
        return self._page("board.html", parts=parts)

    async def _search(self, request: web.Request) -> web.Response:
        raise web.HTTPSeeOther(link(request.query.get("id", "").strip()))

    async def _conversation(self, request: web.Request) -> web.Response:
        conversation_id = request.match_info["conversationId"]
        asked = request.query.get("asOf", "").strip()
        as_of = timestamps.normalize(asked) if asked else None
        if asked and as_of is None:
            raise Refused(Problem("not a time such as 2026-01-31T09:05:00Z", 400))
        try:
            story = await self._answers.story(conversation_id, as_of, self._wall_ms())
        except Refused as refused:
            if refused.problem.status != web.HTTPNotFound.status_code:
                raise
            return await self._unknown(conversation_id, refused.problem.partition)
        is_held = story.timeline.origin == "worker"
        recent = (
            await self._answers.recent_part(conversation_id)
            if is_held
            else await self._fleet.recent(conversation_id, story.timeline.partition)
        )
        async with self._answers.budget.run():
            return self._page(
                "conversation.html",
                id=conversation_id,
                follow=as_of is None and is_held,
                **self._timeline_values(conversation_id, story, recent),
            )

    async def _unknown(self, conversation_id: str, partition: int | None) -> web.Response:
        recent = None if partition is None else await self._fleet.recent(conversation_id, partition)
        return self._page(
            "unknown.html",
            status=web.HTTPNotFound.status_code,
            id=conversation_id,
            partition=partition,
            letters=recent.letters if recent else [],
            command=inspect_command(conversation_id),
        )

    def _timeline_values(self, conversation_id: str, story: Story, recent: RecentPart | None) -> dict[str, Any]:
        """What the template of a conversation's timeline shows. `recent` is None if its owner does not answer."""
        operations, letters = (recent.operations, recent.letters) if recent else ([], [])
        transitions = [operation.transition for operation in operations]
        return {
            "timeline": story.timeline,
            "conclusion": [*story.conclusion, *conclude_from_refused(conversation_id, group_refused(letters).items())],
            "picture": draw(story.timeline, transitions, self._wall_ms(), _COMMUNICATIONS_MAX),
            "is_recent_known": recent is not None,
            "records": group_by_record(operations),
            "letters": letters,
            "command": inspect_command(conversation_id),
        }

    async def _follow_overview(self, request: web.Request) -> web.StreamResponse:
        async def fragments() -> AsyncGenerator[dict[str, str], None]:
            while True:
                yield await self._overview_fragments()

        return await self._stream(request, fragments())

    async def _follow_conversation(self, request: web.Request) -> web.StreamResponse:
        conversation_id = request.match_info["conversationId"]
        if self._answers.held(conversation_id) is None:
            raise Refused(Problem("this worker does not have the conversation (any more)", 404))
        return await self._stream(request, self._conversation_fragments(conversation_id))

    async def _overview_fragments(self) -> dict[str, str]:
        """The parts of the front page, rendered again if they are due."""
        async with self._rendering:
            if time.monotonic() < self._fresh_until_s:
                return self._rendered
            found = await self._fleet.overview()
            async with self._answers.budget.acquire() as spent:
                with spent:
                    self._rendered = self._render_overview(found)
            self._fresh_until_s = time.monotonic() + max(_TICK_S / 2, spent.seconds / _COST_SHARE)
            return self._rendered

    def _render_overview(self, found: FleetOverview) -> dict[str, str]:
        is_cut_off = self._overviews.outage_since_ms() is not None
        values = {
            "overview": found.overview,
            "health": judge(found, self._wall_ms(), is_cut_off=is_cut_off),
            "rows": arrange(found.overview.live),
            "oldest": found.oldest,
            "letters": found.letters,
            "workers": found.workers,
        }
        return {name: self._templates.get_template(f"{name}.html").render(values) for name in _FRAGMENTS}

    async def _conversation_fragments(self, conversation_id: str) -> AsyncGenerator[dict[str, str], None]:
        """The conversation whenever its state has changed, and every `_AGAIN_S`.

        Ends when this worker does not have it any more.
        """
        template = self._templates.get_template("timeline.html")
        state: bytes | None = None
        stale_s = 0.0
        while (found := self._answers.held(conversation_id)) is not None:
            if found.state == state and time.monotonic() < stale_s:
                yield {}
                continue
            state, stale_s = found.state, time.monotonic() + _AGAIN_S
            story = await self._answers.story_of(found, None, self._wall_ms())
            recent = await self._answers.recent_part(conversation_id)
            async with self._answers.budget.run():
                html = template.render(self._timeline_values(conversation_id, story, recent))
            yield {"conversation": html}

    async def _stream(
        self, request: web.Request, fragments: AsyncGenerator[dict[str, str], None]
    ) -> web.StreamResponse:
        """Send the fragments that have changed, and a comment if none has for a while, until the session ends."""
        if self._streams >= STREAMS_MAX:
            raise Refused(Problem("too many pages are kept up to date already", 503), {"Retry-After": "60"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        sent: dict[str, str] = {}
        began_s = sent_s = time.monotonic()
        self._streams += 1
        try:
            await response.prepare(request)
            async for parts in fragments:
                current = parts | {"status": self._status()}
                changed = {name: html for name, html in current.items() if sent.get(name) != html}
                sent.update(changed)
                now_s = time.monotonic()
                if changed:
                    changed["now"] = str(self._wall_ms())
                    await response.write(b"data: %s\n\n" % msgspec.json.encode(changed))
                    sent_s = now_s
                elif now_s - sent_s > _SILENCE_S_MAX:
                    await response.write(b":\n\n")
                    sent_s = now_s
                if now_s - began_s > _STREAM_S_MAX or await self._is_closing():
                    break
                if self._access.identify(request).verdict != "allowed":  # its session has ended
                    break
        finally:
            self._streams -= 1
            await fragments.aclose()
        return response

    def _status(self) -> str:
        since_ms = self._overviews.outage_since_ms()
        if since_ms is None:
            return "Updating."
        return f"Kafka does not answer: this page is from {moment(timestamps.to_text(since_ms))} or before."

    async def _is_closing(self) -> bool:
        """Wait for the next tick; returns whether the server is stopping."""
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
        # Not `request.post()`: any client may send this, and for an invalid form aiohttp raises various errors.
        form = parse_qs((await request.read()).decode("ascii", "replace"))
        answer = self._access.sign_in(request, form.get("token", [""])[0].strip())
        return answer or self._page("login.html", status=web.HTTPUnauthorized.status_code, failed=True)

    async def _logout(self, request: web.Request) -> web.Response:
        return self._access.sign_out(request)

    def _page(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        text = self._templates.get_template(template).render(**values)
        return web.Response(text=text, status=status, content_type="text/html")
