"""Commands are tried without the settings of whoever runs the tests."""

import os
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address that refuses connections as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
