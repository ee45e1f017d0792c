"""The query port over real HTTP: which requests get an answer, and which answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import aiohttp
import pytest
from yarl import URL

from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.query.fleet import Fleet
from consumer.query.live_search import LiveSearch
from consumer.query.lookup import Found, Lookup, Unfinished
from consumer.query.overview import OverviewReader
from consumer.query.recent_activity import RecentActivity
from consumer.web import answers, attempts
from consumer.web.access_log import AuditLog
from consumer.web.answers import Answers
from consumer.web.query_port import QueryServer
from consumer.web.worker_client import WorkerClient
from consumer.web.worker_signature import WorkerSignature
from consumer.worker.ports import ExternalError, RetriableError
from consumer.worker.worker import Worker
from tests.query.fleets import SetGroup
from tests.strategies import BASE_MS, at
from tests.worker.scenes import call
from tests.worker.serving import run_worker

UNAUTHORIZED = b'{"title":"a bearer token is needed: CC_QUERY_TOKEN","status":401}'
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
    """The state topic, as a test sets it."""

    def __init__(self) -> None:
        self.answer: Found | Unfinished | ExternalError = Found(7, "state_topic", None)

    async def newest(self, partition: int, _: bytes) -> Found | Unfinished:
        if isinstance(self.answer, ExternalError):
            raise self.answer
        assert partition == 7
        return self.answer


class Site:
    """A query port beside a worker, and a client."""

    def __init__(self, worker: Worker, token: str, audit: AuditLog | None) -> None:
        self.worker = worker
        self.refused: list[str] = []
        self.topic = Topic()
        self.home: int | None = 7
        cycles_max = Rules().park_cycles_max
        lookup = Lookup(worker.lanes, self.topic, lambda _: None if self.home is None else [self.home])
        self.recent_activity = RecentActivity(lambda: NOW_MS)
        self.group = SetGroup()
        self.address = ""
        signature = WorkerSignature(token, lambda: NOW_MS)
        self.workers = WorkerClient(signature)
        self.overviews = overviews = OverviewReader(
            worker.lanes,
            self.recent_activity,
            lambda: worker.outage,
            address=lambda: self.address,
            wall_ms=lambda: NOW_MS,
        )
        search = LiveSearch(worker.lanes, cycles_max)
        answers = Answers(lookup, search, overviews, cycles_max, self.group.generation)
        self.server = QueryServer(
            answers,
            Fleet(self.group, self.workers, answers, answers.budget.run),
            overviews,
            token=token,
            signature=signature,
            address=lambda: self.address,
            engine="python",
            wall_ms=lambda: NOW_MS,
            on_refused=self.refused.append,
            audit=audit,
        )
        self.client: aiohttp.ClientSession
        self.port = 0

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, aiohttp.ClientResponse, bytes]:
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self.client.request(method, url, headers=headers) as answer:
            return answer.status, answer, await answer.read()

    async def ask_json(self, path: str) -> tuple[int, Any]:
        status, answer, body = await self.ask(path)
        kind = "application/json" if status == 200 else "application/problem+json"
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Cache-Control"] == "no-store"
        return status, json.loads(body)


@asynccontextmanager
async def serving(
    token: str = TOKEN, audit: AuditLog | None = None, history: Iterable[Record] = HISTORY
) -> AsyncIterator[Site]:
    async with run_worker(history) as worker:
        site = Site(worker, token, audit)
        site.port = await site.server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as site.client:
                yield site
        finally:
            await site.server.stop()
            await site.workers.stop()


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
async def test_without_the_token_all_paths_answer_the_same(
    authorization: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FREE", 1_000)
    requests = [*product(METHODS, (PATH, "/", "/api/v1/conversations/none", "/no/such/path", PATH + "?token=" + TOKEN))]
    async with serving() as site:
        login = (await site.ask("/"))[2]
        assert b"<form" in login
        site.refused.clear()
        for method, path in requests:
            headers = {} if authorization is None else {"Authorization": authorization}
            status, answer, body = await site.ask(path, method, **headers)
            assert status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")
            assert answer.headers["Cache-Control"] == "no-store"
            expected = UNAUTHORIZED if path.startswith("/api/") else login
            assert body == (b"" if method == "HEAD" else expected)
        assert site.refused == ["unauthorized" if authorization is None else "wrong_token"] * len(requests)


async def test_two_authorizations_are_refused() -> None:
    async with serving() as site:
        headers: Any = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
        async with site.client.get(f"http://127.0.0.1:{site.port}{PATH}", headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_with_the_token_a_state_comes_as_it_is_published(scheme: str) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(PATH, Authorization=f"{scheme} {TOKEN}", Host="any.example")
        state = site.worker.lanes[0].engine.states.get(MARK)
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
async def test_an_unknown_path_or_method_is_a_problem(method: str, path: str, expected: int) -> None:
    async with serving() as site:
        status, answer, body = await site.ask(path, method, Authorization=f"Bearer {TOKEN}")
        assert status == expected
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(body)["status"] == expected
        assert answer.headers.get("Allow") == ("GET,HEAD" if expected == 405 else None)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.9.9.9:80", "[::1]:8081"])
async def test_without_a_token_a_request_to_loopback_is_answered(host: str) -> None:
    async with serving("") as site:
        assert (await site.ask(PATH, Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[", ":"]
)
async def test_without_a_token_another_host_name_is_refused(host: str) -> None:
    """A page of a foreign site may point its name to loopback."""
    async with serving("") as site:
        status, _, body = await site.ask(PATH, Host=host)
        assert status == 421
        assert b"mark-of" not in body
        assert site.refused == ["misdirected"]


async def test_a_timeline_now_and_as_of_a_past_time() -> None:
    async with serving("") as site:
        status, now = await site.ask_json(f"{PATH}/timeline")
        assert (status, now["asOf"], now["live"], now["origin"], now["partition"]) == (200, None, 0, "worker", 0)
        (communication,) = now["communications"]
        assert [(step["from"], step["to"], step["eventTime"]) for step in communication["transitions"]] == [
            (None, "alerting", at(1)),
            ("alerting", "connected", at(5)),
            ("connected", "disconnected", at(9)),
        ]
        assert (communication["state"], communication["disconnectType"]) == ("disconnected", "peer")
        status, then = await site.ask_json(f"{PATH}/timeline?asOf={at(7)}")
        assert (status, then["asOf"], then["live"]) == (200, at(7), 1)
        assert then["communications"][0]["state"] == "connected"
        assert then["communications"][0]["transitions"] == communication["transitions"][:2]
        assert await site.ask_json(f"{PATH}/timeline?asOf={at(7).replace('Z', '%2B00:00')}") == (200, then)


async def test_live_communications_come_by_age_and_in_pages() -> None:
    async with serving("") as site:
        pages, path = [], "/api/v1/communications?media=call&state=ALERTING&limit=2"
        cursor = ""
        for _ in range(3):
            status, page = await site.ask_json(path + cursor)
            assert (status, page["partitions"]) == (200, [0])
            pages.append([item["conversationId"] for item in page["items"]])
            cursor = f"&cursor={page['next']}"
        assert pages == [["live-0", "live-1"], ["live-2", "live-3"], ["live-4"]]
        assert page["next"] is None
        for filters, expected in (
            ("minAgeSeconds=3588", ["live-0", "live-1", "live-2"]),
            ("maxAgeSeconds=3588", ["live-2", "live-3", "live-4"]),
            ("minAgeSeconds=3588&maxAgeSeconds=3588", ["live-2"]),
            ("media=email", []),
            ("userId=unknown", []),
            ("queueId=none", []),
        ):
            _, page = await site.ask_json(f"/api/v1/communications?{filters}")
            assert [item["conversationId"] for item in page["items"]] == expected


@pytest.mark.parametrize(
    ("path", "title"),
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
async def test_an_invalid_parameter_is_named(path: str, title: str) -> None:
    async with serving("") as site:
        status, problem = await site.ask_json(path)
        assert status == 400
        assert title in problem["title"]


async def test_another_workers_conversation_is_of_the_state_topic() -> None:
    async with serving("") as site:
        state = site.worker.lanes[0].engine.states.get(MARK)
        site.topic.answer = Found(7, "state_topic", state)
        for suffix in ("", "/timeline"):
            status, answer = await site.ask_json(f"/api/v1/conversations/other{suffix}")
            assert (status, answer["partition"], answer["origin"]) == (200, 7, "state_topic")


@pytest.mark.parametrize("suffix", ["", "/timeline"])
async def test_a_problem_names_the_partition_of_the_conversation(suffix: str) -> None:
    async with serving("") as site:
        path = f"/api/v1/conversations/other{suffix}"
        assert (await site.ask_json(path))[1] == {
            "title": "no such conversation is known; its partition is another worker's, its state topic was read whole",
            "status": 404,
            "partition": 7,
        }
        site.topic.answer = Unfinished(7, 4_000, 12)
        status, problem = await site.ask_json(path)
        assert (status, problem["partition"]) == (504, 7)
        assert "not from offset 4000 on" in problem["title"]
        assert "read back to 12" in problem["title"]
        site.topic.answer = RetriableError("looking into the state topic: the broker is away")
        assert await site.ask_json(path) == (503, {"title": str(site.topic.answer), "status": 503})
        site.home = None
        assert (await site.ask_json(path))[0] == 503
        site.home = 0
        _, problem = await site.ask_json(path)
        assert problem["title"] == "no such conversation is known; its partition is this worker's"
        site.worker.lanes[0].phase = "opening"
        status, problem = await site.ask_json(path)
        assert (status, problem["partition"]) == (503, 0)
        site.worker.lanes[0].phase = "running"


async def test_a_search_of_the_state_topic_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_FIND_S", 0.05)

    async def hang(_: int, __: bytes) -> Found:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving("") as site:
        monkeypatch.setattr(site.topic, "newest", hang)
        assert (await site.ask_json("/api/v1/conversations/other"))[0] == 504


async def test_the_audit_says_who_asks_for_which_conversation(log: Callable[[], list[Any]]) -> None:
    """And holds no id of a conversation. A client that may not ask is not in it: those are counted."""
    audit = AuditLog(b"key")
    async with serving(audit=audit) as site:
        url = f"http://127.0.0.1:{site.port}"
        async with site.client.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        site.client.cookie_jar.clear()
        await site.ask(PATH, Authorization=f"Bearer {TOKEN}")
        await site.ask(PATH)
        await site.ask(f"/conversations/{MARK}?asOf=x", Cookie=cookie)
        await site.ask("/", Cookie=cookie)
        async with site.client.get(f"{url}/events/live-1", headers={"Cookie": cookie}):
            pass
        lines = log()
    session = lines[1]["session"]
    assert session not in cookie
    mark, live = audit.digest(MARK), audit.digest("live-1")
    assert mark != AuditLog(b"").digest(MARK)
    assert [(line["peer"], line["session"], line["path"], line["conversation"]) for line in lines] == [
        ("127.0.0.1", "token", "/api/v1/conversations/{conversationId}", mark),
        ("127.0.0.1", session, "/conversations/{conversationId}", mark),
        ("127.0.0.1", session, "/", None),
        ("127.0.0.1", session, "/events/{conversationId}", live),
    ]
    assert all(line["timestamp"] for line in lines)
    assert MARK not in json.dumps(lines)


async def test_without_the_setting_nothing_is_audited(log: Callable[[], list[Any]]) -> None:
    async with serving("") as site:
        await site.ask(PATH)
    assert log() == []
