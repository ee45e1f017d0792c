"""Workers that ask each other over real HTTP: who gets an answer, and what a worker lets another see."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.query.fleet import Member, NoAnswerError
from consumer.query.lookup import Found
from consumer.web import worker_client
from consumer.web.worker_client import WorkerClient
from consumer.web.worker_signature import ANSWER_HEADER, WINDOW_S, WorkerSignature
from consumer.worker.offset_metadata import OffsetMetadata
from consumer.worker.ports import Effects
from tests.query.fleets import OWN
from tests.web.test_query_port import NOW_MS, TOKEN, Site, serving
from tests.worker.scenes import call

LIVE = "/api/v1/communications"
PART = "/api/parts/v1/overview"
ADDRESS, TARGET = "10.0.0.1:8081", "/api/parts/v1/overview"


@asynccontextmanager
async def ring(count: int, token: str = TOKEN) -> AsyncIterator[list[Site]]:
    """Query ports that each believe to own one of as many partitions, and the next ones to own the others."""
    async with AsyncExitStack() as stack:
        histories = [
            [call(turn, "alerting", 1 + 2 * turn + number, f"live-{number}-{turn}") for turn in range(5)]
            for number in range(count)
        ]
        sites = [await stack.enter_async_context(serving(token, history=history)) for history in histories]
        for site in sites:
            site.address = f"127.0.0.1:{site.port}"
        for number, site in enumerate(sites):
            lanes = site.worker.lanes
            lane = lanes.pop(0)
            lane.partition = number
            lanes[number] = lane
            site.group.total = count
            site.group.members = [
                Member(OWN if other is site else f"other-{partition}", other.address, [partition])
                for partition, other in enumerate(sites)
            ]
        try:
            yield sites
        finally:
            for number, site in enumerate(sites):
                site.worker.lanes[0] = site.worker.lanes.pop(number)
                site.worker.lanes[0].partition = 0


async def ask(site: Site, path: str, **headers: str) -> tuple[int, Any]:
    status, _, body = await site.ask(path, **({"Authorization": f"Bearer {TOKEN}"} | headers))
    return status, json.loads(body)


async def test_any_worker_answers_for_all() -> None:
    async with ring(3) as sites:
        for site in sites:
            status, page = await ask(site, f"{LIVE}?limit=500")
            assert (status, page["complete"], page["partitions"], page["missing"]) == (200, True, [0, 1, 2], [])
            assert len(page["items"]) == 15
            for filters, count in (
                ("media=call&state=ALERTING", 15),
                ("state=connected", 0),
                ("media=chat", 0),
                ("minAgeSeconds=3598", 2),
                ("maxAgeSeconds=3590", 2),
            ):
                _, page = await ask(site, f"{LIVE}?{filters}")
                assert (page["complete"], len(page["items"])) == (True, count), filters
            status, overview = await ask(site, "/api/v1/overview")
            assert (status, overview["complete"]) == (200, True)
            assert overview["live"] == [{"media": "call", "state": "alerting", "count": 15}]
            assert [lane["worker"] for lane in overview["lanes"]] == [other.address for other in sites]
        assert [site.refused for site in sites] == [[], [], []]


async def test_a_page_has_what_the_owner_of_the_conversation_published() -> None:
    async with ring(2) as sites:
        letter = Output(b"live-1-0", b"v", (("cc-reason", b"wrong_type"), ("cc-source-offset", b"7")))
        sites[1].recent_activity.add(Effects(8, OffsetMetadata(), [], [], [letter]), CommitStats())
        state = sites[1].worker.lanes[1].engine.states.get("live-1-0")
        sites[0].topic.answer = Found(1, "state_topic", state)
        authorization = {"Authorization": f"Bearer {TOKEN}"}
        _, _, body = await sites[0].ask("/conversations/live-1-0", **authorization)
        assert b"Refused as wrong_type: 1 of its records, the last at offset 7." in body
        await sites[1].server.stop()
        _, _, body = await sites[0].ask("/conversations/live-1-0", **authorization)
        assert b"Its worker does not answer" in body
        assert [site.refused for site in sites] == [[], []]


async def test_pages_go_on_at_another_worker() -> None:
    async with ring(2) as sites:
        found, cursor = [], ""
        for turn in range(10):
            _, page = await ask(sites[turn % 2], f"{LIVE}?limit=3{cursor}")
            found += [(item["since"], item["conversationId"]) for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert (turn, found) == (3, sorted(found))
        assert len({conversation_id for _, conversation_id in found}) == 10


async def test_no_question_goes_round_in_a_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three workers asks the two others once, and no question is passed on."""
    asked: list[tuple[str, str]] = []
    one = WorkerClient.ask

    async def note(client: WorkerClient, address: str, path: str, parameters: Any) -> bytes:
        asked.append((address, path))
        return await one(client, address, path, parameters)

    monkeypatch.setattr(WorkerClient, "ask", note)
    async with ring(3) as sites:
        await ask(sites[0], LIVE)
        assert sorted(asked) == sorted((site.address, "communications") for site in sites[1:])


async def test_a_worker_that_hangs_or_has_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.query.fleet._LIVE_S", 0.3)

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    async with ring(3) as sites:
        monkeypatch.setattr(sites[1].server._answers, "live_part", hang)
        await sites[2].server.stop()
        status, page = await ask(sites[0], LIVE)
        assert (status, page["complete"], page["partitions"], len(page["items"])) == (200, False, [0], 5)
        hanging, gone = page["missing"]
        assert (hanging["partitions"], hanging["worker"]) == ([1], sites[1].address)
        assert hanging["reason"] == "no answer within 0.3 s"
        assert (gone["partitions"], gone["worker"]) == ([2], sites[2].address)
        assert gone["reason"].startswith("it cannot be reached: ClientConnector")


async def test_workers_with_different_tokens_learn_nothing_of_each_other() -> None:
    async with ring(2) as sites, ring(2, "another-token-of-23") as others:
        sites[0].group.members = [sites[0].group.members[0], Member("worker-1", others[1].address, [1])]
        page = (await ask(sites[0], LIVE))[1]
        assert page["missing"][0]["reason"].startswith("it refuses the question (401)")
        assert others[1].refused == ["wrong_token"]


async def test_without_a_token_workers_on_loopback_answer_each_other() -> None:
    async with ring(2, "") as sites:
        status, page = await sites[0].ask_json(LIVE)
        assert (status, page["complete"], len(page["items"])) == (200, True, 10)


@pytest.mark.parametrize(
    ("address", "target", "age_s", "token", "status"),
    [
        ("own", PART, 0, TOKEN, 200),
        ("own", PART, WINDOW_S, TOKEN, 200),
        ("own", PART, -WINDOW_S, TOKEN, 200),
        ("own", PART, WINDOW_S + 1, TOKEN, 401),
        ("own", PART, -WINDOW_S - 1, TOKEN, 401),
        ("10.0.0.9:8081", PART, 0, TOKEN, 401),
        ("own", PART + "?x=1", 0, TOKEN, 401),
        ("own", PART, 0, TOKEN + "x", 401),
        ("own", LIVE, 0, TOKEN, 401),
    ],
)
async def test_a_signature_is_for_one_address_and_question_and_a_minute(
    address: str, target: str, age_s: int, token: str, status: int
) -> None:
    """So what an impostor receives opens nothing at another worker, and no conversation."""
    async with ring(1) as (site,):
        signature = WorkerSignature(token, lambda: NOW_MS - age_s * 1_000)
        signed = signature.sign(site.address if address == "own" else address, target)
        assert signed is not None
        path = target.partition("?")[0]
        assert (await ask(site, path, Authorization=signed[0]))[0] == status
        assert (await ask(site, "/api/v1/conversations/live-0-1", Authorization=signed[0]))[0] == 401


@pytest.mark.parametrize("request_text", ["", "%7B%7D", "%ff", "%5B" * 1_300, "null", "%7B%22limit%22:%22x%22%7D"])
async def test_a_request_that_is_not_understood_is_of_another_version(request_text: str) -> None:
    async with ring(1) as (site,):
        status, problem = await ask(site, f"/api/parts/v1/communications?request={request_text}")
        assert (status, problem["title"]) == (404, "not a request of this version")


async def test_wrong_signatures_are_slowed_like_wrong_tokens() -> None:
    async with ring(1) as (site,):
        forged = WorkerSignature("guessed-token-1234", lambda: NOW_MS).sign(site.address, PART)
        right = WorkerSignature(TOKEN, lambda: NOW_MS).sign(site.address, PART)
        assert forged is not None
        assert right is not None
        statuses = [(await ask(site, PART, Authorization=forged[0]))[0] for _ in range(11)]
        assert statuses == [401] * 10 + [429]
        assert (await ask(site, PART, Authorization=right[0]))[0] == 429
        assert (await ask(site, PART))[0] == 200, "the token in a header is counted apart"


@asynccontextmanager
async def impostor(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server without the token at an address that the group tells; yields the address and what it is sent."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def plain(_: web.Request) -> web.Response:
    return web.json_response({"generation": 9, "partitions": [0, 1], "items": [], "end": None, "limit": 100})


async def false_signature(_: web.Request) -> web.Response:
    return web.json_response({}, headers={ANSWER_HEADER: "0" * 64})


async def redirect(_: web.Request) -> web.Response:
    raise web.HTTPFound("http://127.0.0.1:9/")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"[" * 65_536)


async def not_found(_: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def unavailable(_: web.Request) -> web.Response:
    raise web.HTTPServiceUnavailable


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (plain, "not signed"),
        (false_signature, "not signed"),
        (redirect, "no answer at the moment (302)"),
        (endless, "more than 1000000 bytes"),
        (not_found, "of another version"),
        (unavailable, "no answer at the moment (503)"),
    ],
)
async def test_an_impostor_learns_no_token_and_is_not_believed(
    answer: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that may join the group may name any address."""
    monkeypatch.setattr(worker_client, "ANSWER_BYTES_MAX", 1_000_000)
    client = WorkerClient(WorkerSignature(TOKEN, lambda: NOW_MS))
    async with impostor(answer) as (address, seen):
        try:
            with pytest.raises(NoAnswerError) as error:
                await client.ask(address, "communications", {"request": "{}"})
        finally:
            await client.stop()
        assert reason in str(error.value)
        assert len(seen) == 1
        assert TOKEN not in str(seen[0].headers) + seen[0].path_qs


def test_a_signature_does_not_show_the_token() -> None:
    signature = WorkerSignature(TOKEN, lambda: NOW_MS)
    signed = signature.sign(ADDRESS, TARGET)
    assert signed is not None
    authorization, nonce = signed
    assert signature.verify(authorization, ADDRESS, TARGET) == nonce
    assert TOKEN not in authorization
    assert signature.sign(ADDRESS, TARGET) != signed, "every request has a nonce of its own"
    for wrong in ("", authorization[:-1], authorization + "0", authorization.upper(), f"Bearer {TOKEN}"):
        assert signature.verify(wrong, ADDRESS, TARGET) is None
    assert signature.verify(authorization, "", TARGET) is None
    assert WorkerSignature("", lambda: NOW_MS).sign(ADDRESS, TARGET) is None
    assert WorkerSignature("", lambda: NOW_MS).verify(authorization, ADDRESS, TARGET) is None


def test_an_answer_is_signed_for_its_question() -> None:
    signature = WorkerSignature(TOKEN, lambda: NOW_MS)
    signed = signature.sign_answer("a" * 32, b"body")
    assert signature.is_answer("a" * 32, b"body", signed)
    assert not signature.is_answer("b" * 32, b"body", signed)
    assert not signature.is_answer("a" * 32, b"body!", signed)
    assert not signature.is_answer("a" * 32, b"body", "")
    assert not signature.is_answer("a" * 32, b"body", "\xff")
