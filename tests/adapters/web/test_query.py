"""The query port over real HTTP: who gets an answer, and what it is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import aiohttp
import pytest
from yarl import URL

from consumer.adapters.web import answers
from consumer.adapters.web.answers import Answers
from consumer.adapters.web.query import QueryServer
from consumer.core.rules import Rules
from consumer.runtime.board import Board
from consumer.runtime.feed import Feed
from consumer.runtime.live_search import LiveSearch
from consumer.runtime.lookup import Found, Lookup, Unfinished
from consumer.runtime.ports import Unreachable, WorldError
from consumer.runtime.worker import Worker
from tests.runtime.scenes import call
from tests.runtime.serving import working
from tests.strategies import BASE_MS, at

TOLD = b'{"title":"a bearer token is needed: CC_QUERY_TOKEN","status":401}'
METHODS = ("GET", "HEAD", "POST", "DELETE")
TOKEN = "0123456789abcdef-token"
MARK = "mark-of-a-conversation"
PATH = f"/api/v1/conversations/{MARK}"
NOW_MS = BASE_MS + 3_600_000
HISTORY = [
    call(0, "alerting", 1, MARK),
    call(1, "connected", 5, MARK),
    call(2, "disconnected", 9, MARK, disconnectType="peer"),
    *(call(3 + number, "alerting", 10 + number, f"live-{number}") for number in range(5)),
]


class Topic:
    """The state topic: whatever a test says of it."""

    def __init__(self) -> None:
        self.says: Found | Unfinished | WorldError = Found(7, "state_topic", None)

    async def newest(self, partition: int, _: bytes) -> Found | Unfinished:
        if isinstance(self.says, WorldError):
            raise self.says
        assert partition == 7
        return self.says


class Site:
    """A query port beside a worker, and a client."""

    def __init__(self, worker: Worker, token: str) -> None:
        self.worker = worker
        self.refused: list[str] = []
        self.topic = Topic()
        self.home: int | None = 7
        cycles_max = Rules().park_cycles_max
        lookup = Lookup(worker.lanes, self.topic, lambda _: self.home)
        self.feed = Feed()
        self.server = QueryServer(
            Answers(lookup, LiveSearch(worker.lanes, cycles_max), cycles_max),
            Board(worker.lanes, self.feed, lambda: worker.outage),
            token=token,
            wall_ms=lambda: NOW_MS,
            on_refused=self.refused.append,
        )
        self.client: aiohttp.ClientSession
        self.port = 0

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, aiohttp.ClientResponse, bytes]:
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self.client.request(method, url, headers=headers) as answer:
            return answer.status, answer, await answer.read()

    async def told(self, path: str) -> tuple[int, Any]:
        status, answer, body = await self.ask(path)
        kind = "application/json" if status == 200 else "application/problem+json"
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Cache-Control"] == "no-store"
        return status, json.loads(body)


@asynccontextmanager
async def serving(token: str = TOKEN) -> AsyncIterator[Site]:
    async with working(HISTORY) as worker:
        site = Site(worker, token)
        site.port = await site.server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as site.client:
                yield site
        finally:
            await site.server.stop()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer " + TOKEN[:-1],
        "Bearer " + TOKEN + "x",
        "Bearer " + TOKEN.upper(),
        "Bearer \xff\xfe",
        TOKEN,
        "Basic " + TOKEN,
        f"Bearer {TOKEN} {TOKEN}",
    ],
)
async def test_without_the_token_there_is_no_data_and_all_paths_are_the_same(authorization: str | None) -> None:
    asked = [*product(METHODS, (PATH, "/", "/api/v1/conversations/none", "/no/such/path", PATH + "?token=" + TOKEN))]
    async with serving() as site:
        login = (await site.ask("/"))[2]
        assert b"<form" in login
        site.refused.clear()
        for method, path in asked:
            headers = {} if authorization is None else {"Authorization": authorization}
            status, answer, body = await site.ask(path, method, **headers)
            assert status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
            assert answer.headers["Cache-Control"] == "no-store"
            told = TOLD if path.startswith("/api/") else login
            assert body == (b"" if method == "HEAD" else told)
        assert site.refused == ["unauthorized"] * len(asked)


async def test_two_authorizations_are_none() -> None:
    async with serving() as site:
        headers: Any = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
        async with site.client.get(f"http://127.0.0.1:{site.port}{PATH}", headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_with_the_token_a_state_comes_as_it_is_in_the_state_topic(scheme: str) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(PATH, Authorization=f"{scheme} {TOKEN}", Host="any.example")
        state = site.worker.lanes[0].store.get(MARK)
        assert state is not None
        assert (status, body) == (200, b'{"partition":0,"origin":"worker","state":%s}' % state)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert site.refused == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/", 404),
        ("GET", "/api/v1/metrics", 404),
        ("GET", "/api/v1/conversations/", 404),
        ("POST", PATH, 405),
        ("DELETE", PATH, 405),
    ],
)
async def test_what_there_is_not_is_told_as_a_problem(method: str, path: str, expected: int) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(path, method, Authorization=f"Bearer {TOKEN}")
        assert status == expected
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(body)["status"] == expected
        assert answer.headers.get("Allow") == ("GET,HEAD" if expected == 405 else None)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.9.9.9:80", "[::1]:8081"])
async def test_without_a_token_set_a_request_to_loopback_is_answered(host: str) -> None:
    async with serving("") as site:
        assert (await site.ask(PATH, Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[", ":"]
)
async def test_without_a_token_set_a_page_that_points_its_name_here_gets_nothing(host: str) -> None:
    async with serving("") as site:
        status, _, body = await site.ask(PATH, Host=host)
        assert status == 421
        assert b"mark-of" not in body
        assert site.refused == ["misdirected"]


async def test_a_timeline_now_and_at_a_past_time() -> None:
    async with serving("") as site:
        status, now = await site.told(f"{PATH}/timeline")
        assert (status, now["asOf"], now["live"], now["origin"], now["partition"]) == (200, None, 0, "worker", 0)
        (shown,) = now["communications"]
        assert [(each["from"], each["to"], each["eventTime"]) for each in shown["transitions"]] == [
            (None, "alerting", at(1)),
            ("alerting", "connected", at(5)),
            ("connected", "disconnected", at(9)),
        ]
        assert (shown["state"], shown["disconnectType"]) == ("disconnected", "peer")
        status, then = await site.told(f"{PATH}/timeline?asOf={at(7)}")
        assert (status, then["asOf"], then["live"]) == (200, at(7), 1)
        assert then["communications"][0]["state"] == "connected"
        assert then["communications"][0]["transitions"] == shown["transitions"][:2]
        assert await site.told(f"{PATH}/timeline?asOf={at(7).replace('Z', '%2B00:00')}") == (200, then)


async def test_live_communications_come_by_age_and_in_pages() -> None:
    async with serving("") as site:
        found, path = [], "/api/v1/communications?media=call&state=ALERTING&limit=2"
        cursor = ""
        for _ in range(3):
            status, page = await site.told(path + cursor)
            assert (status, page["partitions"]) == (200, [0])
            found.append([each["conversationId"] for each in page["items"]])
            cursor = f"&cursor={page['next']}"
        assert found == [["live-0", "live-1"], ["live-2", "live-3"], ["live-4"]]
        assert page["next"] is None
        for filters, expected in (
            ("minAgeSeconds=3588", ["live-0", "live-1", "live-2"]),
            ("maxAgeSeconds=3588", ["live-2", "live-3", "live-4"]),
            ("minAgeSeconds=3588&maxAgeSeconds=3588", ["live-2"]),
            ("media=email", []),
            ("userId=nobody", []),
            ("queueId=none", []),
        ):
            _, page = await site.told(f"/api/v1/communications?{filters}")
            assert [each["conversationId"] for each in page["items"]] == expected


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (f"{PATH}?x=1", "unknown field `x`"),
        (f"{PATH}/timeline?asOf=yesterday", "asOf: not a time"),
        (f"{PATH}/timeline?asOf=", "`$.asOf`"),
        (f"{PATH}/timeline?asOf=1767225600000", "asOf: not a time"),
        (f"{PATH}/timeline?asOf=2026-01-01T00:00:00Z&asOf=2026-01-01T00:00:00Z", "given twice"),
        ("/api/v1/communications?media=fax", "`$.media`"),
        ("/api/v1/communications?limit=0", "`$.limit`"),
        ("/api/v1/communications?limit=501", "`$.limit`"),
        ("/api/v1/communications?limit=x", "`$.limit`"),
        ("/api/v1/communications?minAgeSeconds=-1", "`$.minAgeSeconds`"),
        ("/api/v1/communications?maxAgeSeconds=315360001", "`$.maxAgeSeconds`"),
        ("/api/v1/communications?cursor=*", "cursor: "),
        ("/api/v1/communications?cursor=WzFd", "cursor: "),
        ("/api/v1/communications?cursor=%C3%A9", "cursor: "),
        ("/api/v1/openapi.json?x=1", "unknown field `x`"),
    ],
)
async def test_a_parameter_without_a_good_value_is_told_by_name(path: str, told: str) -> None:
    async with serving("") as site:
        status, problem = await site.told(path)
        assert status == 400
        assert told in problem["title"]


async def test_a_conversation_of_another_worker_is_answered_from_the_state_topic() -> None:
    async with serving("") as site:
        state = site.worker.lanes[0].store.get(MARK)
        site.topic.says = Found(7, "state_topic", state)
        for suffix in ("", "/timeline"):
            status, answer = await site.told(f"/api/v1/conversations/other{suffix}")
            assert (status, answer["partition"], answer["origin"]) == (200, 7, "state_topic")


@pytest.mark.parametrize("suffix", ["", "/timeline"])
async def test_why_a_conversation_is_not_shown_is_told_with_its_partition(suffix: str) -> None:
    async with serving("") as site:
        path = f"/api/v1/conversations/other{suffix}"
        assert (await site.told(path))[1] == {
            "title": "no such conversation is known; its partition is another worker's, its state topic was read whole",
            "status": 404,
            "partition": 7,
        }
        site.topic.says = Unfinished(7, 4_000, 12)
        status, problem = await site.told(path)
        assert (status, problem["partition"]) == (504, 7)
        assert "not from offset 4000 on" in problem["title"]
        assert "read back to 12" in problem["title"]
        site.topic.says = Unreachable("looking into the state topic: the broker is away")
        assert await site.told(path) == (503, {"title": str(site.topic.says), "status": 503})
        site.home = None
        assert (await site.told(path))[0] == 503
        site.home = 0
        assert (await site.told(path))[1]["title"] == "no such conversation is known; its partition is this worker's"
        site.worker.lanes[0].phase = "opening"
        status, problem = await site.told(path)
        assert (status, problem["partition"]) == (503, 0)
        site.worker.lanes[0].phase = "running"


async def test_a_search_of_the_state_topic_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_FIND_S", 0.05)

    async def hang(_: int, __: bytes) -> Found:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving("") as site:
        monkeypatch.setattr(site.topic, "newest", hang)
        assert (await site.told("/api/v1/conversations/other"))[0] == 504
