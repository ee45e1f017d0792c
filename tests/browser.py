"""A headless Chromium: the one that is installed. Without one its tests are skipped; under CI that is a failure."""

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 60_000
"""For everything that is waited for: it only ends what would not come."""
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def executable() -> str:
    """The path of a Chromium; skips the test, or fails it under CI, where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing = "no Chromium is installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@asynccontextmanager
async def browsing() -> AsyncGenerator[Browser, None]:
    """A browser without profile, without a network but loopback."""
    path = executable()
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"], timeout=WAIT_MS
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def page(browser: Browser, refused: int = 0, **options: Any) -> AsyncGenerator[Page, None]:
    """A page of a context of its own; fails if its console told of an error, such as what a policy has blocked.

    So does an answer that is an error but of the status `refused`.
    """
    context = await browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    opened = await context.new_page()
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("dialog", lambda dialog: errors.append(dialog.message))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield opened
        assert [each for each in errors if f"status of {refused} " not in each] == []
    finally:
        await context.close()
