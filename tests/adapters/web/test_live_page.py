"""The live page: sessions and headers over HTTP, and all that people do with it in a real browser."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from consumer.adapters.web import gate, live_page
from consumer.adapters.web.gate import COOKIE
from consumer.core import times
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import Outcome, step
from consumer.runtime.bookmark import Bookmark
from consumer.runtime.ports import Effects, Output, Unreachable
from consumer.runtime.standstill import Standstill
from tests.adapters.web.test_query import MARK, TOKEN, Site, serving
from tests.browser import PHONE, browsing, page
from tests.runtime.scenes import call
from tests.strategies import at

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


def applied(site: Site, record: Record) -> Outcome:
    """What a lane does with a record, up to its commit."""
    store = site.worker.lanes[0].store
    outcome = step(record, Rules(), None, store.lookup)
    assert outcome.known is not None
    store.stage(outcome.conversation_id, outcome.known)
    store.merge(None)
    outputs = [Output(outcome.conversation_id.encode(), msgspec.json.encode(each)) for each in outcome.transitions]
    dead = [Output(b"k", b"v", (("cc-reason", b"bad_json"),))]
    site.feed.add(Effects(record.next_offset, Bookmark(), [], outputs, dead))
    return outcome


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as started:
        yield started


@asynccontextmanager
async def site_at(token: str = "") -> AsyncIterator[tuple[Site, str]]:
    async with serving(token) as site:
        yield site, f"http://127.0.0.1:{site.port}"


def shown(moment: str) -> str:
    """A published time as the page shows it."""
    return moment.replace("T", " ").removesuffix("Z")


async def accessible(opened: Page) -> None:
    """Assert that axe finds nothing, by the rules of WCAG 2.2 AA and its best practices."""
    found = await Axe().run(opened)
    assert found.response["violations"] == [], found.generate_report()
    wider = await opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, "the page is wider than the screen"


async def shot(opened: Page, name: str) -> None:
    """Keep a picture for people to look at, where they ask for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        await opened.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


async def test_page_says_how_old_it_is_while_kafka_is_gone(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser) as opened:
        status = opened.get_by_role("status")
        await opened.goto(url)
        await expect(status).to_have_text("Updating.")
        site.worker.lanes[0].standstill = Standstill("leader", "no broker leads the partition", 0.0)
        await expect(opened.locator("#lanes tr.bad")).to_contain_text("no broker leads the partition")
        site.worker.note_connection(Unreachable("connecting to kafka:9092: TimeoutError"))
        assert site.worker.outage is not None
        since = times.text(site.worker.outage.since_ms)
        await expect(status).to_have_text(f"Kafka does not answer: what is shown is from {since} or before.")
        site.worker.note_connection(None)
        await expect(status).to_have_text("Updating.")


async def test_a_conversation_is_followed_live_and_shown_as_of_a_past_time(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser) as opened:
        await opened.goto(url)
        await opened.get_by_label("Conversation id").fill("live-2")
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("heading", name="live-2")).to_be_visible()
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        cells = opened.locator("#conversation tbody tr")
        await expect(cells).to_have_count(1)
        applied(site, call(50, "connected", 40, "live-2"))
        await expect(cells).to_have_count(2)
        await expect(cells.last).to_contain_text("alerting")
        await expect(cells.last).to_contain_text(shown(at(40)))
        applied(site, call(51, "connected", 20, "live-2"))
        correction = opened.locator("li.correction").first
        await expect(correction).to_contain_text("corrected:")
        await expect(correction).to_contain_text(shown(at(40)))
        await expect(cells.last).to_contain_text(shown(at(20)))
        await shot(opened, "conversation")
        await accessible(opened)
        applied(site, call(52, "disconnected", 60, "live-2", disconnectType="peer"))
        await expect(opened.locator("#conversation")).to_contain_text("Ended: 0 of 1")
        await opened.get_by_label("State as of (UTC)").fill(at(30))
        await opened.get_by_role("button", name="Show").click()
        await expect(opened.locator("#conversation")).to_contain_text("Live: 1 of 1")
        await expect(opened.get_by_role("status")).to_contain_text(f"As of {at(30)}")


async def test_the_front_page_keeps_up_with_the_worker(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser) as opened:
        await opened.goto(url)
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        await expect(opened.locator("#live")).to_contain_text("call")
        await expect(opened.locator("#live .number").last).to_have_text("5")
        await expect(opened.locator("#lanes")).to_contain_text("running")
        applied(site, call(50, "connected", 40, "live-1"))
        applied(site, call(51, "connected", 20, "live-1"))
        await expect(opened.locator("#feed tr.correction")).to_contain_text("corrected: alerting → connected")
        await expect(opened.locator("#dead")).to_contain_text("bad_json")
        await expect(opened.locator("#live")).to_contain_text("connected")
        site.worker.lanes[0].phase = "blocked"
        await expect(opened.locator("#lanes tr.bad")).to_contain_text("blocked")
        await shot(opened, "board")
        await accessible(opened)
        site.worker.lanes[0].phase = "running"
        await opened.get_by_role("button", name="Pause").click()
        await expect(opened.get_by_role("status")).to_have_text("Paused.")
        before = await opened.locator("#feed").inner_html()
        applied(site, call(52, "disconnected", 60, "live-1"))
        await asyncio.sleep(2 * live_page._TICK_S)
        assert await opened.locator("#feed").inner_html() == before
        await opened.get_by_role("button", name="Pause").click()
        await expect(opened.locator("#feed")).to_contain_text("connected → disconnected")


async def test_it_is_used_by_keyboard_alone_and_an_update_leaves_the_focus(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser) as opened:
        await opened.goto(url)
        await opened.keyboard.press("Tab")
        await expect(opened.get_by_role("link", name="Skip to the content")).to_be_focused()
        reached = []
        for _ in range(14):
            await opened.keyboard.press("Tab")
            reached.append(await opened.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"id", "pause", "s-oldest", "s-feed", "live-0", "live-4"} <= set(reached)
        await opened.locator("#oldest a").first.focus()
        before = await opened.locator("#oldest").inner_text()
        applied(site, call(50, "connected", 40, "live-0"))
        await expect(opened.locator("#oldest")).not_to_have_text(before, use_inner_text=True)
        await expect(opened.locator("#oldest a").first).to_be_focused()
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("heading", name="live-0")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, scheme: Any) -> None:
    async with site_at() as (site, url):
        applied(site, call(50, "connected", 40, "live-1"))
        applied(site, call(51, "connected", 20, "live-1"))
        async with page(browser, color_scheme=scheme, **PHONE) as opened:
            for name, path in (("board", "/"), ("conversation", "/conversations/live-1")):
                await opened.goto(url + path)
                await expect(opened.get_by_role("status")).to_have_text("Updating.")
                await accessible(opened)
                await shot(opened, f"{name}-phone-{scheme}")
            ink, paper = await opened.evaluate(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            darker = sum(map(int, re.findall(r"\d+", paper))) < sum(map(int, re.findall(r"\d+", ink)))
            assert darker == (scheme == "dark")


async def test_a_conversation_that_is_not_there_is_told_on_a_page(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser, refused=404) as opened:
        site.home = 0
        await opened.goto(f"{url}/conversations/none")
        await expect(opened.get_by_role("alert")).to_contain_text("no such conversation is known")
        await accessible(opened)


async def test_one_logs_in_with_the_token_and_out_again(browser: Browser) -> None:
    async with site_at(TOKEN) as (_, url), page(browser, refused=401, **PHONE) as opened:
        await opened.goto(f"{url}/conversations/{MARK}")
        assert MARK not in await opened.content()
        await accessible(opened)
        await shot(opened, "login-phone")
        await opened.get_by_label("Token of the query port").fill("wrong")
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("alert")).to_have_text("That is not the token.")
        await opened.get_by_label("Token of the query port").fill(TOKEN)
        await opened.get_by_role("button", name="Log in").click()
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        (cookie,) = await opened.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        await opened.goto(f"{url}/conversations/{MARK}")
        await expect(opened.get_by_role("heading", name=MARK)).to_be_visible()
        await opened.get_by_role("button", name="Log out").click()
        await expect(opened.get_by_role("button", name="Log in")).to_be_visible()
        assert await opened.context.cookies() == []


async def test_what_records_say_is_shown_and_never_run(browser: Browser) -> None:
    async with site_at() as (site, url), page(browser) as opened:
        applied(site, call(50, "connected", 0, HOSTILE, HOSTILE))
        await opened.goto(url)
        link = opened.locator("#oldest a").filter(has_text=HOSTILE)
        await expect(link).to_have_text(HOSTILE)
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        applied(site, call(51, "disconnected", 30, HOSTILE, HOSTILE, disconnectType=HOSTILE))
        await opened.locator("#feed a").filter(has_text=HOSTILE).first.click()
        await expect(opened.get_by_role("heading", name=HOSTILE).first).to_be_visible()
        await expect(opened.locator("#conversation h3").first).to_contain_text("img src=x")
        assert await opened.locator("img").count() == 0


async def test_every_page_carries_the_policy_and_the_script_is_a_file_of_its_own() -> None:
    async with serving("") as site:
        for path in (
            "/",
            f"/conversations/{MARK}",
            "/conversations/none",
            "/assets/page.css",
            "/assets/page.js",
            "/no",
        ):
            _, answer, body = await site.ask(path)
            assert (
                "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert not re.search(rb"<script(?![^>]*src=)|<style| style=| on[a-z]+=", body)
            assert not re.search(rb"(?:src|href|action)=\"(?:https?:)?//", body), "nothing from elsewhere"


def session_of(answer: aiohttp.ClientResponse) -> str:
    return answer.cookies[COOKIE].value


async def test_only_a_session_that_was_given_and_is_not_over_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as site:
        url = f"http://127.0.0.1:{site.port}"

        async def status(session: str) -> int:
            return (await site.ask(f"/api/v1/conversations/{MARK}", Cookie=f"{COOKIE}={session}"))[0]

        async def logged_in() -> str:
            async with site.client.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/")
                site.client.cookie_jar.clear()
                return session_of(answer)

        session = await logged_in()
        assert await status(session) == 200
        expiry, _, digest = session.partition(".")
        for forged in (
            "",
            ".",
            digest,
            f"{expiry}.",
            f"{int(expiry) + 1}.{digest}",
            f"{expiry}.{'0' * 64}",
            f"x.{digest}",
        ):
            assert await status(forged) == 401
        monkeypatch.setattr(gate, "SESSION_S", 0)
        assert await status(await logged_in()) == 401
    async with serving("another-token-that-is-long") as site:
        assert (await site.ask("/", Cookie=f"{COOKIE}={session}"))[0] == 401


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"token=x"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nhalf"),
        ("application/x-www-form-urlencoded", b"token=\xff\xfe"),
        ("application/x-www-form-urlencoded; charset=unheard-of", b"token=x"),
        ("application/x-www-form-urlencoded; charset=unicode_escape", b"token=\\ud800"),
    ],
)
async def test_a_form_that_is_none_is_no_login_and_no_error_of_ours(kind: str, body: bytes) -> None:
    async with serving() as site:
        url = f"http://127.0.0.1:{site.port}/login"
        async with site.client.post(url, data=body, headers={"Content-Type": kind}) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers


async def test_a_form_of_another_site_is_refused() -> None:
    async with serving() as site:
        for path in ("/login", "/logout"):
            status, answer, _ = await site.ask(
                path, "POST", **{"Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {TOKEN}"}
            )
            assert status == 403
            assert "Set-Cookie" not in answer.headers


async def test_streams_have_a_limit_and_end_with_the_server() -> None:
    async with serving("") as site:
        url = f"http://127.0.0.1:{site.port}/events"
        opened = [await site.client.get(url) for _ in range(live_page.STREAMS_MAX)]
        assert {each.status for each in opened} == {200}
        first = json.loads((await opened[0].content.readuntil(b"\n\n")).removeprefix(b"data: "))
        assert set(first) == {"live", "lanes", "dead", "oldest", "feed", "status"}
        status, answer, _ = await site.ask("/events")
        assert (status, answer.headers["Retry-After"]) == (503, "60")
        opened[0].close()
        async with asyncio.timeout(60):
            while (refused := await site.client.get(url)).status == 503:
                refused.close()
                await asyncio.sleep(0.05)
        for each in (*opened, refused):
            each.close()


async def test_a_stream_outlives_the_limit_of_other_answers_and_ends_with_its_conversation() -> None:
    async with serving("") as site:
        async with site.client.get(f"http://127.0.0.1:{site.port}/events/live-1") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            told = json.loads((await stream.content.readuntil(b"\n\n")).removeprefix(b"data: "))
            assert "alerting" in told["conversation"]
            site.worker.lanes[0].phase = "fenced"
            assert await stream.content.read() == b""
        assert (await site.ask("/events/live-1"))[0] == 404
        site.worker.lanes[0].phase = "running"
