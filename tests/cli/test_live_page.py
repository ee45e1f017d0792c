"""The live page of the running worker, in a real browser, shows what happened on Kafka a moment ago."""

from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from consumer.app.service import running
from consumer.core.record import Record
from consumer.settings import Settings
from consumer.simulator.traffic import Draft
from consumer.tools.traffic_writer import TrafficWriter
from tests.browser import open_browser, open_page
from tests.cli.conftest import embedded
from tests.worker.scenes import call, rubbish

pytestmark = pytest.mark.browser


@pytest.fixture
def settings() -> Iterator[Settings]:
    with embedded() as made:
        yield made


def draft(record: Record) -> Draft:
    return Draft(record.key, record.value or b"", record.timestamp_ms, record.offset, headers=())


async def test_a_session_is_found_followed_and_corrected(settings: Settings) -> None:
    async with (
        running(settings) as service,
        TrafficWriter(settings) as writer,
        open_browser() as browser,
        open_page(browser) as opened,
    ):

        async def write(record: Record) -> None:
            await writer.write([draft(record)])
            await writer.flush()

        url = f"http://127.0.0.1:{service.query_port}/"
        await opened.goto(url)
        await expect(opened.locator("#lanes tbody tr")).to_have_count(4)
        await expect(opened.locator("#troubled tr.bad")).to_have_count(0)
        await write(call(0, "alerting", 1, "session-1"))
        await write(rubbish(1))
        await expect(opened.locator("#live")).to_contain_text("alerting")
        await expect(opened.locator("#dead")).to_contain_text("bad_json")
        await opened.get_by_label("Conversation id").fill(" session-1 ")
        await opened.keyboard.press("Enter")
        await expect(opened.get_by_role("heading", name="session-1")).to_be_visible()
        await expect(opened.get_by_role("status")).to_have_text("Updating.")
        await opened.get_by_text("Details").click()
        steps = opened.locator("#conversation tbody tr")
        await expect(steps).to_have_count(1)
        await write(call(2, "connected", 40, "session-1"))
        await expect(steps).to_have_count(2)
        await expect(steps.last).to_contain_text("10:00:40.000")
        await write(call(3, "connected", 20, "session-1"))
        await expect(opened.locator("li.correction")).to_contain_text("10:00:40.000")
        await expect(opened.locator(".bar .mark")).to_have_count(1)
        await expect(steps.last).to_contain_text("10:00:20.000")
        await opened.goto(url)
        await expect(opened.locator("#feed tr.correction")).to_contain_text("corrected: alerting → connected")
