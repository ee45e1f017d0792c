"""The installed Chromium, headless. Without one the tests that need it are skipped, and fail under CI."""

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 60_000
"""The timeout of every wait, far above what a busy machine needs."""
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def find_chromium() -> str:
    """The path of a Chromium. Without one the test is skipped, and fails under CI."""
    executable_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable_path is None:
        missing = "no Chromium is installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return executable_path


@asynccontextmanager
async def open_browser() -> AsyncGenerator[Browser, None]:
    """A browser with a fresh profile."""
    path = find_chromium()
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
async def open_page(browser: Browser, refused: int = 0, **options: Any) -> AsyncGenerator[Page, None]:
    """A page in a context of its own; fails if its console logs an error, such as a violation of the content policy.

    The console logs a response with an error status too; only the status `refused` is allowed.
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
        assert [error for error in errors if f"status of {refused} " not in error] == []
    finally:
        await context.close()
