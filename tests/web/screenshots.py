"""`make screenshots`: pictures of the live page for the documents, of a running worker on an embedded broker.

The worker gets four minutes of disordered traffic, and a conversation of which an event comes late. Then the broker
ends.
"""

import asyncio
import io
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import Browser, expect

from consumer.app.service import running
from consumer.core import timestamps
from consumer.kafka.embedded import EmbeddedBroker
from consumer.settings import Settings
from consumer.simulator.traffic import Draft, Traffic, records
from consumer.telemetry import logs
from consumer.tools.traffic_writer import TrafficWriter
from tests.browser import PHONE, open_browser, open_page
from tests.strategies import NESTED_TOPICS, websocket
from tests.web.small_png import shrink

FOLDER = Path(__file__).parent.parent.parent / "docs" / "how-to" / "pictures"
SECONDS = 240
RATE = 60
CONVERSATION = "5f0c1a52-9f0e-4a3e-8a44-0d3c6f1b7e21"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
_TICK_S = 0.5


def corrected_conversation(now_ms: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Snapshots of a conversation: when each was taken, in seconds from the beginning, and its participants.

    It waits in a queue and is answered by an agent. Then comes a record that cannot be used, and last, and late, that
    the agent's phone rang.
    """
    began_ms = now_ms - 600_000

    def leg(number: int, purpose: str, state: str, connected: int, ended: int | None = None) -> dict[str, Any]:
        call = {"id": f"{number}b7d3c19-52f1-4c8e-9a0e-6d2f8c4b1a30", "state": state}
        call["connectedTime"] = timestamps.to_text(began_ms + connected * 1_000)
        if ended is not None:
            call |= {"disconnectedTime": timestamps.to_text(began_ms + ended * 1_000), "disconnectType": "transfer"}
        return {"id": f"{number}e41a7c8-0d2b-4f6e-b1c7-35a9d8e2f604", "purpose": purpose, "calls": [call]}

    customer = leg(1, "customer", "connected", 4)
    ivr = leg(2, "ivr", "disconnected", 4, 65)
    waiting = leg(3, "acd", "connected", 65)
    answered = leg(3, "acd", "disconnected", 65, 228)
    agent = leg(4, "agent", "connected", 230)
    ringing = {"id": agent["id"], "purpose": "agent", "calls": [{"id": agent["calls"][0]["id"], "state": "alerting"}]}
    held = {**agent, "calls": [{**agent["calls"][0], "state": "parked"}]}
    yield 4, [customer, leg(2, "ivr", "connected", 4)]
    yield 66, [customer, ivr, waiting]
    yield 231, [customer, ivr, answered, agent]
    yield 400, [customer, ivr, answered, held]
    yield 410, [{"id": agent["id"], "purpose": 4}]
    yield 212, [customer, ivr, waiting, ringing]


def to_drafts(now_ms: int) -> Iterator[Draft]:
    for offset, (second, participants) in enumerate(corrected_conversation(now_ms)):
        taken_ms = now_ms - 600_000 + second * 1_000
        body = {"id": CONVERSATION, "participants": participants}
        value = msgspec.json.encode(websocket(NESTED_TOPICS[0], body))
        headers = (("snapshot-time", str(taken_ms).encode()),)
        yield Draft(CONVERSATION.encode(), value, now_ms, offset, headers=headers)


async def write_traffic(writer: TrafficWriter, drafts: Sequence[Draft]) -> None:
    """Write records evenly, as if each had been written to Kafka at its time."""
    started_s, written = time.monotonic(), 0
    while written < len(drafts):
        due = int((time.monotonic() - started_s) * RATE)
        now_ms = time.time_ns() // 1_000_000
        await writer.write(msgspec.structs.replace(draft, timestamp_ms=now_ms) for draft in drafts[written:due])
        written = min(due, len(drafts))
        await asyncio.sleep(_TICK_S)
    await writer.flush()


async def take(browser: Browser, url: str, name: str, *, full: bool = True, **options: Any) -> None:
    """A picture of a page that is up to date."""
    async with open_page(browser, timezone_id="Europe/Berlin", **options) as opened:
        await opened.goto(url)
        await expect(opened.get_by_role("status")).not_to_contain_text("As of")
        picture = await opened.screenshot(full_page=full)
    (FOLDER / f"{name}.png").write_bytes(await shrink(browser, picture))


async def main(seconds: int) -> None:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    broker = EmbeddedBroker()
    with broker:
        settings = Settings(
            bootstrap_servers=broker.bootstrap_servers, delivery="at_least_once", admin_port=0, query_port=0, drain_s=1,
            log_level="error",
        )  # fmt: skip
        logs.configure(settings, io.StringIO())  # of the broker that ends
        broker.create_topics(settings.topics)
        start_ms = time.time_ns() // 1_000_000
        traffic = Traffic(seed=7, start_ms=start_ms, records_per_s=RATE / 1.3, conversations=60, broken=0.0004)
        drafts = list(islice(records(traffic), seconds * RATE))
        async with running(settings) as service, open_browser() as browser:
            front = f"http://127.0.0.1:{service.query_port}/"
            async with TrafficWriter(settings) as writer:
                await write_traffic(writer, drafts)
                for draft in to_drafts(time.time_ns() // 1_000_000):
                    await writer.write([draft])
                    await writer.flush()
                await asyncio.sleep(2)
                conversation = f"{front}conversations/{CONVERSATION}"
                await take(browser, front, "live-page", **DESKTOP)
                await take(browser, front, "live-page-dark", color_scheme="dark", **DESKTOP)
                await take(browser, front, "live-page-phone", **PHONE)
                await take(browser, conversation, "conversation", **DESKTOP)
                await take(browser, conversation, "conversation-phone", **PHONE)
            broker.__exit__()
            while service.worker.outage is None:
                await asyncio.sleep(_TICK_S)
            await asyncio.sleep(15)
            await take(browser, front, "live-page-outage", full=False, **DESKTOP)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
